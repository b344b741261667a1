// Why: the settings without which mosquitto would let in whom our broker refuses, in its own words.
// Trusts: nothing. Must never: name a password or a key of anybody.

/** Where the settings look for the other files; `lepton broker files` puts its own folder there. */
export const mosquittoFolder = '/etc/mosquitto/lepton';

/** The port under which devices look for the broker; 8883 where that is not known. */
export function mosquittoPort(url: string): number {
  const port = URL.canParse(url) ? Number(new URL(url).port) : 0;
  return port > 0 ? port : 8883;
}

/** Beside the files that `lepton broker files` writes. */
export function mosquittoSettings(port: number): string {
  return `# Lepton Fleet: what a mosquitto broker needs. It works as it stands.
# Run "lepton broker files" again whenever a device was shut out and at least weekly, and let mosquitto read the
# files again (SIGHUP). After authorities changed, restart it.

listener ${port}

# Devices trust certificates of their fleet alone, so the broker shows one. Whoever mosquitto runs as must be able to
# read the key: chown mosquitto server.key
certfile ${mosquittoFolder}/server.crt
keyfile ${mosquittoFolder}/server.key
tls_version tlsv1.3

# Only certificates of this fleet, and not those that were revoked. The list ends 30 days after it was made;
# from then on mosquitto refuses everybody.
cafile ${mosquittoFolder}/authorities.pem
crlfile ${mosquittoFolder}/revoked.crl.pem
require_certificate true
allow_anonymous false

# A device is who its certificate says, and may use its own topics only.
use_identity_as_username true
acl_file ${mosquittoFolder}/acl

# A borrowed client id would end its owner's connection. Devices that enrol with one claim at the same moment take
# turns for it.
use_username_as_clientid true

# Sessions are clean, and one control message is at most 256 KiB. Retained messages are published again by the registry
# whenever it connects.
persistence false
max_packet_size 270336
set_tcp_nodelay true

# What may wait for one client. In flight: for the registry at a busy time. In the queue: the frames of at most 64 KiB for a
# device that asks and does not read, 16 MiB; one that reads never has more than 4 MiB before it.
max_inflight_messages 2000
max_queued_messages 256
`;
}
