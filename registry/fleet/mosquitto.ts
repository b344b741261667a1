// Why: the settings without which mosquitto would let in whom our broker refuses, in its own words.
// Trusts: nothing. Must never: name a password or a key of anybody.

/** Beside the files that `lepton broker files` writes. */
export const mosquittoSettings = `# Lepton Fleet: what a mosquitto broker needs beside its own certificate.
# Put the files beside this one, run "lepton broker files" again whenever a device was revoked and at least
# weekly, and let mosquitto read them again (SIGHUP; restart after authorities changed).

listener 8883

# The broker's own certificate and key: yours. Devices check it against the host that they dial.
# certfile /etc/mosquitto/certs/server.crt
# keyfile /etc/mosquitto/certs/server.key
tls_version tlsv1.3

# Only certificates of this fleet, and not those that were revoked. The list ends 30 days after it was made;
# from then on mosquitto refuses everybody.
cafile /etc/mosquitto/lepton/authorities.pem
crlfile /etc/mosquitto/lepton/revoked.crl.pem
require_certificate true
allow_anonymous false

# A device is who its certificate says, and may use its own topics only.
use_identity_as_username true
acl_file /etc/mosquitto/lepton/acl

# A device whose certificate expired while it was off is refused here; only the registry's own broker lets it
# in to renew. A borrowed client id would end its owner's connection:
use_username_as_clientid true

# Sessions are clean, and one control message is at most 256 KiB.
persistence false
max_packet_size 270336
set_tcp_nodelay true
`;
