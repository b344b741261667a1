// Why: the one table of codes. A code is a literal, never derived, never reused; it maps to a retry
// class, an HTTP status, an exit code and the next step for the person who reads it.
// Trusts: nothing. Must never: hold two codes for one meaning, or one code for two.

export interface CodeInfo {
  retry: 'now' | 'backoff' | 'never';
  http: number;
  exit: 1 | 2;
  hint: string;
}

const row = (http: number, retry: CodeInfo['retry'], hint: string, exit: 1 | 2 = 1): CodeInfo => ({
  retry,
  http,
  exit,
  hint,
});

export const codes = {
  // kernel
  internal: row(500, 'backoff', 'this is a bug; keep the log and report it'),
  'config-invalid': row(400, 'never', 'correct the setting; --help lists them', 2),
  'input-invalid': row(400, 'never', 'correct the input', 2),
  'not-found': row(404, 'never', 'check the name; the list command shows what exists'),
  conflict: row(409, 'never', 'fetch the present state and decide again'),
  'state-locked': row(409, 'never', 'another process uses this folder; stop it first'),
  'state-corrupt': row(500, 'never', 'restore the folder from a backup or enrol again'),
  'state-newer': row(500, 'never', 'a newer version wrote this folder; run that version or newer'),
  'migration-edited': row(500, 'never', 'an applied migration was changed; run an unmodified build'),
  'disk-full': row(507, 'backoff', 'free some space on the device'),
  'disk-io': row(500, 'backoff', 'check the disk; a read or write failed'),
  interrupted: row(503, 'now', 'the program was asked to stop; start it again to go on'),
  'not-implemented': row(501, 'never', 'this version does not support it'),

  // trust: missing, corrupt, expired and forged are four codes
  'metadata-missing': row(404, 'backoff', 'the registry does not offer this metadata file'),
  'metadata-malformed': row(400, 'never', 'the file is no valid metadata of its role'),
  'metadata-expired': row(400, 'backoff', 'the registry must re-sign it; check that it runs'),
  'metadata-signature-invalid': row(400, 'never', 'signed by too few of the keys of its role'),
  'metadata-version-invalid': row(400, 'never', 'its version is not the one that was announced'),
  'metadata-rollback': row(400, 'never', 'older than what this device has verified before'),
  'metadata-digest-mismatch': row(400, 'backoff', 'its bytes differ from what the signed listing says'),
  'metadata-too-large': row(400, 'never', 'larger than the limit for its role'),
  'repository-unreachable': row(503, 'backoff', 'check the URL and that the repository answers there'),
  'target-unknown': row(404, 'never', 'no publisher signed a release of this name'),
  'target-digest-mismatch': row(400, 'never', 'the director names other bytes than the publisher signed'),
  'key-invalid': row(400, 'never', 'the key is malformed or of small order'),
  'envelope-malformed': row(400, 'never', 'no valid DSSE envelope of the expected payload type'),
  'assignment-signature-invalid': row(400, 'never', 'not signed by this region’s director'),
  'assignment-other-device': row(400, 'never', 'it was issued for another device'),
  'assignment-replayed': row(400, 'never', 'its epoch is older than the one in force'),
  'assignment-epoch-reused': row(400, 'never', 'another assignment with the same epoch is in force'),
  'assignment-expired': row(400, 'backoff', 'the registry must issue it again'),
  'assignment-malformed': row(400, 'never', 'its content does not follow the schema'),
  'assignment-other-region': row(400, 'never', 'it was issued by another region'),
  'release-counter-mismatch': row(
    400,
    'never',
    'the director names another counter than the publisher signed',
  ),
  'release-lost': row(409, 'never', 'it was lost in a restore; push a new version'),
  'release-below-floor': row(400, 'never', 'assign a newer release: lepton models show NS/NAME'),
  'release-withdrawn': row(400, 'never', 'assign another release: lepton models show NS/NAME'),
  'report-signature-invalid': row(400, 'never', 'not signed by the key of the device it speaks for'),
  'release-requires-mismatch': row(
    400,
    'never',
    'the director names other requirements than the publisher signed',
  ),
  'time-signature-invalid': row(400, 'never', 'not signed by this region’s time key'),
  'time-replayed': row(400, 'never', 'it answers another question, or another device’s'),
  'time-unavailable': row(503, 'backoff', 'the region did not answer with signed time'),
  'certificate-expired': row(403, 'backoff', 'the device renews it as soon as it is connected'),
  'authorities-invalid': row(400, 'never', 'the list of certificate authorities is not this region’s'),
  'renewal-refused': row(403, 'never', 'enrol the device again with a new claim'),
  'held-invalid': row(
    400,
    'never',
    'what the device returned is not signed by this region or its publishers',
  ),
  'report-cloned': row(409, 'never', 'two devices use one key; lepton devices release ID, or enrol again'),
  'report-replayed': row(409, 'never', 'its counter was used before'),

  // keys of authorities
  'key-file-malformed': row(400, 'never', 'give a file that lepton keys create wrote', 2),
  'key-plan-malformed': row(400, 'never', 'give the file that lepton keys plan wrote', 2),
  'key-bundle-malformed': row(
    400,
    'never',
    'give a file that lepton keys ceremony, rotate or revoke wrote',
    2,
  ),
  'key-unknown': row(404, 'never', 'lepton keys status and lepton keys show FILE list keys and their ids'),
  'key-duplicate': row(400, 'never', 'give every role different keys'),
  'key-not-needed': row(409, 'never', 'lepton keys show BUNDLE says whose signatures it needs'),
  'passphrase-missing': row(
    400,
    'never',
    'type it at a terminal, or give --passphrase-file F or LEPTON_PASSPHRASE',
    2,
  ),
  'passphrase-wrong': row(403, 'never', 'try again; without its passphrase a key is lost'),
  'threshold-unreachable': row(400, 'never', 'add keys first, or lower the threshold with them'),
  'signatures-missing': row(409, 'never', 'carry the bundle to the holders named: lepton keys sign'),
  'keys-offline': row(409, 'never', 'make a plan and a bundle, and have it signed offline: lepton keys plan'),
  'keys-not-held': row(409, 'never', 'make the bundle from a new plan: lepton keys plan --new-online'),

  // delivery
  'fetch-not-found': row(404, 'never', 'the registry does not have this digest'),
  'fetch-denied': row(403, 'never', 'this digest is not assigned to the device'),
  'fetch-timeout': row(504, 'backoff', 'the registry did not answer in time'),
  'fetch-invalid': row(400, 'never', 'the fetch request does not follow the schema'),
  'fetch-busy': row(
    503,
    'backoff',
    'other devices download; the registry lets this one in when it is its turn',
  ),
  'fetch-too-many': row(429, 'backoff', 'end some of the downloads first; one device may have only a few'),
  'fetch-range': row(416, 'never', 'ask for bytes that the file has'),
  'bus-offline': row(503, 'backoff', 'there is no connection to the broker'),
  'fetch-too-slow': row(504, 'backoff', 'the link is slower than the least rate; it is tried again later'),
  'storage-quota': row(507, 'backoff', 'raise the quota of the device, or remove models from it'),
  'blob-digest-mismatch': row(400, 'backoff', 'the bytes received are not those that were signed'),
  'blob-size-mismatch': row(400, 'backoff', 'the size received is not the one that was signed'),
  'delta-encode-failed': row(500, 'backoff', 'no smaller file could be made; devices fetch what there is'),
  'delta-rebuild-failed': row(
    500,
    'now',
    'the file could not be made of the patch; the whole file is fetched instead',
  ),
  'delta-malformed': row(400, 'now', 'the patch is damaged or hostile; the whole file is fetched instead'),
  'delta-unsupported': row(400, 'now', 'a newer version made the patch; the whole file is fetched instead'),
  'delta-too-large': row(
    413,
    'now',
    'the patch needs more memory than allowed; the whole file is fetched instead',
  ),
  'delta-base-mismatch': row(409, 'now', 'the patch is for another base; the whole file is fetched instead'),
  'delta-result-mismatch': row(400, 'now', 'the patch makes other bytes; the whole file is fetched instead'),
  'manifest-malformed': row(400, 'never', 'manifest.json does not follow the schema'),

  // update machine
  'deadline-missed': row(504, 'backoff', 'a step of the update took too long'),
  'journal-budget-exceeded': row(500, 'never', 'the update kept restarting; the old release is back'),
  'update-superseded': row(409, 'now', 'a newer assignment replaced this update'),
  'window-closed': row(409, 'backoff', 'the update goes on by itself when its window opens'),
  'update-deferred': row(
    409,
    'backoff',
    'somebody at the device said not now; lepton-agent defer --clear ends it',
  ),
  'update-together': row(
    409,
    'backoff',
    'the update goes on by itself once the others of its rollout can switch',
  ),
  'update-parted': row(
    409,
    'never',
    'another model of the same rollout failed, or is not part of it any more; nothing of it was kept',
  ),
  'defer-exhausted': row(
    409,
    'never',
    'the rollout allows no more deferral of this update (windows.deferMax); it goes on in its window',
  ),
  'probe-golden-failed': row(422, 'never', 'the release does not give its own golden answers here'),
  'probe-latency-exceeded': row(422, 'never', 'slower on this device than its manifest allows'),
  'probe-memory-exceeded': row(422, 'never', 'needs more memory here than its manifest allows'),
  'shadow-disagreement': row(
    422,
    'never',
    'it answers live inputs otherwise than the release that serves; compare them',
  ),
  'shadow-insufficient': row(
    422,
    'never',
    'too few live inputs came in time; give shadowing longer, or no bound',
  ),
  'soak-errors': row(422, 'never', 'the release failed after it was switched on'),
  'release-incompatible': row(422, 'never', 'the release needs hardware or software this device lacks'),

  // models
  'model-not-onnx': row(422, 'never', 'give the .onnx file itself; a Git LFS pointer is not a model'),
  'model-invalid': row(422, 'never', 'ONNX Runtime does not accept the graph; check the export'),
  'model-int4-output': row(422, 'never', 'cast 4-bit outputs to int8 when exporting'),
  'model-output-not-tensor': row(422, 'never', 'list the output under excludeOutputs in the manifest'),
  'model-custom-operator': row(422, 'never', 'export the model with standard operators only'),
  'model-external-data-missing': row(422, 'never', 'push the folder that holds the external data files'),
  'model-opset-too-new': row(422, 'never', 'export with an older opset'),
  'model-type-unsupported': row(
    422,
    'never',
    'cast such inputs and outputs to a type of the inference protocol when exporting',
  ),
  'model-memory-estimate': row(
    422,
    'never',
    'say in the manifest what it needs (requires.memoryMiB), raise the bound in the detail, or use a smaller model',
  ),
  'model-trial-memory': row(
    422,
    'never',
    'say in the manifest what it needs (requires.memoryMiB), raise the bound in the detail, or use a smaller model',
  ),
  'model-trial-crashed': row(
    422,
    'never',
    'the model ended the process that tried it; see the detail, and export it otherwise',
  ),
  'model-trial-timeout': row(
    422,
    'never',
    'the model did not load and run once in time; use a smaller model, or export it otherwise',
  ),
  'model-memory-exceeded': row(
    503,
    'backoff',
    'the model’s process took more memory than it may; raise limits.memoryMiB or use a smaller model',
  ),
  'golden-malformed': row(
    400,
    'never',
    'correct the golden file: a list of {request, response} in OIP JSON',
    2,
  ),
  'profile-malformed': row(400, 'never', 'correct the reference profile, or make it with lepton profile', 2),
  'model-load-failed': row(500, 'backoff', 'the child could not load the model; see the detail'),
  'model-crash-loop': row(503, 'backoff', 'the model’s process keeps dying; assign another release'),
  'model-crashed': row(500, 'backoff', 'the model killed its process; see the agent’s log'),

  // inference (OIP)
  'infer-invalid': row(400, 'never', 'correct the request; GET the model’s metadata for names and shapes'),
  'infer-unknown-model': row(404, 'never', 'GET /v2/repository/index lists the models'),
  'infer-not-ready': row(503, 'backoff', 'the model is loading'),
  'infer-queue-full': row(503, 'backoff', 'too many requests wait; try again later'),
  'infer-deadline': row(504, 'backoff', 'the model did not answer in time'),
  'infer-unsupported': row(501, 'never', 'this runtime cannot serve that'),
  'infer-failed': row(500, 'never', 'ONNX Runtime refused the input; see the detail'),
  'body-too-large': row(413, 'never', 'send a smaller body'),
  'body-malformed': row(400, 'never', 'correct the body; its gzip or deflate stream is broken'),
  'body-encoding': row(415, 'never', 'send the body plain, in gzip or in deflate'),
  'body-timeout': row(408, 'backoff', 'send the body faster, or a smaller one'),
  'method-not-allowed': row(405, 'never', 'use the method that the documentation names'),
  'auth-required': row(401, 'never', 'send Authorization: Bearer TOKEN'),

  // broker and enrolment
  'broker-no-certificate': row(403, 'never', 'connect with a client certificate of this fleet'),
  'broker-certificate-untrusted': row(403, 'never', 'the certificate is not from this fleet’s CA'),
  'broker-client-id-borrowed': row(403, 'never', 'the client id must be the certificate’s device id'),
  'broker-publish-denied': row(403, 'never', 'a device may publish only to its own topics'),
  'broker-subscribe-denied': row(403, 'never', 'a device may subscribe only to its own topics'),
  'broker-not-authorized': row(403, 'backoff', 'the broker refused this device; is it revoked?'),
  'broker-unreachable': row(503, 'backoff', 'check the address, the network and that the registry runs'),
  'broker-server-untrusted': row(
    503,
    'backoff',
    'the broker’s certificate is not this fleet’s, or not for this address',
  ),
  'device-revoked': row(403, 'never', 'the device was revoked; enrol it again with a new claim'),
  'device-unknown': row(404, 'never', 'lepton devices list shows the devices'),
  'device-quarantined': row(
    403,
    'never',
    'two devices use one key; lepton devices release ID, or enrol again',
  ),
  'claim-malformed': row(400, 'never', 'give the file that lepton claims create wrote', 2),
  'claim-expired': row(403, 'never', 'make a new claim: lepton claims create'),
  'claim-used-up': row(403, 'never', 'make a new claim: lepton claims create --uses N'),
  'claim-unknown': row(403, 'never', 'the claim is not of this registry; make a new one'),
  'enrolment-request-invalid': row(400, 'never', 'the certificate request is malformed'),
  'enrolment-certificate-invalid': row(400, 'never', 'the certificate received is not for this device’s key'),
  'enrolment-root-mismatch': row(400, 'never', 'the roots received are not those the claim names'),
  'enrolment-required': row(400, 'never', 'start once with --claim FILE', 2),
  'message-malformed': row(400, 'never', 'the message does not follow its schema'),

  // registry API and CLI
  'token-missing': row(401, 'never', 'give --token T or set LEPTON_TOKEN'),
  'token-invalid': row(
    401,
    'never',
    'the token is unknown, expired or revoked; lepton tokens create makes one',
  ),
  'role-forbidden': row(403, 'never', 'ask for a token with the role that this needs'),
  'namespace-forbidden': row(403, 'never', 'ask for a token for this namespace'),
  'agent-not-running': row(503, 'never', 'start it with lepton-agent run, or name its --state folder'),
  'registry-unreachable': row(503, 'backoff', 'check --registry URL and that lepton serve runs there'),
  'registry-answer-invalid': row(502, 'never', 'is this really a Lepton registry of the same version?'),
  'registry-not-ready': row(503, 'backoff', 'the registry is starting or stopping'),
  'release-exists': row(409, 'never', 'versions are never replaced; push a higher one'),
  'release-unknown': row(404, 'never', 'lepton models list shows what is there'),
  'release-not-signed': row(409, 'never', 'add the missing signatures: lepton models sign'),
  'namespace-unknown': row(404, 'never', 'name its keys first: lepton publishers add'),
  'publisher-key-unknown': row(403, 'never', 'sign with a key that lepton publishers add named'),
  'blob-missing': row(409, 'never', 'upload every file of the manifest first'),
  'webhook-unreachable': row(502, 'backoff', 'check the address and that a program listens there'),
  'erasure-invalid': row(400, 'never', 'the certificate is not one of this region'),
  'masking-file-invalid': row(400, 'never', 'correct the masking file at the line named', 2),
  'sample-rules-invalid': row(400, 'never', 'correct the file of sample rules at the line named', 2),
  'rollout-file-invalid': row(400, 'never', 'correct the rollout file at the line named', 2),
  'rollout-unsupported': row(501, 'never', 'leave that section out; this version does not apply it'),
  'rollout-unknown': row(404, 'never', 'lepton rollout list shows the rollouts'),
  'rollout-state': row(409, 'never', 'the rollout is not in a state that allows this'),
  'approval-not-needed': row(409, 'never', 'lepton rollout status ID shows which waves wait for approval'),
  'approval-repeated': row(409, 'never', 'another person has to approve it'),
  'approval-own': row(403, 'never', 'whoever started the rollout cannot approve it; ask somebody else'),
  'nothing-to-retry': row(409, 'never', 'lepton rollout status ID shows on which devices it failed'),
  'group-unknown': row(404, 'never', 'lepton groups list shows the groups'),
  'rollout-failed': row(409, 'never', 'lepton rollout status ID says why'),
  'port-in-use': row(500, 'never', 'choose another port or stop the other program'),
  'listen-insecure': row(400, 'never', 'plain HTTP only on loopback; give --http-cert and --http-key', 2),
  // telemetry
  'telemetry-malformed': row(400, 'never', 'the batch does not follow the wire format of its version'),
  'telemetry-signature-invalid': row(
    403,
    'never',
    'the batch is not signed by the key of the device it speaks for',
  ),
  'telemetry-other-device': row(403, 'never', 'the batch was made by another device, or for another region'),
  'telemetry-replayed': row(409, 'never', 'the batch is older than what the region holds of this device'),
  'telemetry-gap': row(409, 'now', 'batches before this one are missing; the device sends them first'),
  'telemetry-chain-broken': row(
    409,
    'never',
    'the batch does not follow the one before it; was the device restored from a copy?',
  ),
  'telemetry-cloned': row(
    409,
    'never',
    'another batch with this sequence is stored: two devices use one key',
  ),
  'telemetry-body-mismatch': row(400, 'backoff', 'the bytes received are not those that the device signed'),
  'telemetry-wrap-mismatch': row(400, 'never', 'the batch’s key was sealed for another batch'),
  'telemetry-key-unknown': row(410, 'never', 'the region does not hold the key that the batch is sealed to'),
  'telemetry-unreadable': row(
    422,
    'never',
    'the batch does not decrypt or its records do not follow the schema',
  ),
  'telemetry-too-large': row(413, 'never', 'send smaller records, or fewer at once'),
  'telemetry-answer-invalid': row(400, 'never', 'the acknowledgement is not this region’s for this batch'),
  'telemetry-full': row(507, 'backoff', 'the outbox is full; connect the device so that it can send'),
  'telemetry-lost': row(
    503,
    'never',
    'the device’s outbox was broken or removed; enrol it again (--re-enroll) to record anew',
  ),
  'telemetry-not-ready': row(
    503,
    'backoff',
    'the device has no telemetry key yet; it comes with its first assignment',
  ),

  // backups, erasures and the rights of people
  'backup-malformed': row(400, 'never', 'name the folder that holds backup.json', 2),
  'backup-damaged': row(409, 'never', 'use another backup; this one is not what was written'),
  'erasure-declined': row(409, 'never', 'an admin of that region erases it there: lepton telemetry erase'),
  'erasures-unconfirmed': row(
    409,
    'never',
    'wait for the other regions, or say that nothing is missing: lepton backup confirm-erasures',
  ),
  // the audit record
  'token-in-url': row(
    400,
    'never',
    'send it as Authorization: Bearer TOKEN; revoke this one, proxies on the way may have logged it',
  ),
  'audit-head-invalid': row(400, 'never', 'not signed by the `ack` key of the region that it names'),
  'audit-head-equivocation': row(
    409,
    'never',
    'the region signed two histories of one length; export both records: lepton audit verify --against',
  ),
  'audit-head-rollback': row(
    409,
    'never',
    'the region signed a shorter history than before: it was restored from a backup, or removed entries',
  ),
  'audit-head-time-backwards': row(409, 'never', 'the region signed a later head with an earlier time'),
  'audit-head-unverified': row(503, 'backoff', 'the root of that region is not known here yet'),

  // the region's policy
  'policy-denied': row(
    403,
    'never',
    'the region’s policy says no by the rule that is named: lepton policy show',
  ),
  'policy-file-invalid': row(
    400,
    'never',
    'correct the file at the place that is named; lepton policy check FILE looks at it without a registry',
    2,
  ),
  'policy-signature-invalid': row(
    403,
    'never',
    'enough holders of region root keys must sign: lepton policy sign BUNDLE --key FILE',
  ),
  'policy-version-stale': row(
    409,
    'never',
    'a policy’s version only rises: raise metadata.version and sign it again',
  ),
  'policy-other-region': row(409, 'never', 'metadata.region must name this region'),

  // cells
  'cells-invalid': row(400, 'never', 'the cell is not signed by the region that it is said to come from'),
  'cells-changed': row(
    409,
    'never',
    'a region published another cell than before; was its registry restored from a backup?',
  ),

  // from data to a release
  'data-malformed': row(
    400,
    'never',
    'the file must be a table of text whose first line names its columns',
    2,
  ),
  'data-too-large': row(413, 'never', 'train on a part of it: a few million cells teach as much'),
  'data-column-unknown': row(400, 'never', 'name a column as the first line of the file spells it', 2),
  'data-unfit': row(422, 'never', 'this data cannot teach this task; the report says what is in it'),
  'training-diverged': row(422, 'never', 'lower --learning-rate, or train on what is normalised and clipped'),

  // regions
  'not-home': row(409, 'never', 'do it at the home region: lepton regions list says which that is'),
  'region-unreachable': row(503, 'backoff', 'check the address, and that the region’s registry runs there'),
  'region-untrusted': row(502, 'never', 'another program answers there, or the region has another key'),
  'region-answer-invalid': row(502, 'backoff', 'the other region may run another version'),
  'region-unknown': row(403, 'never', 'lepton regions add at the home region invites a region'),
  'region-not-joined': row(
    409,
    'never',
    'start it with --invitation FILE (lepton regions add NAME --out FILE, at the home region)',
  ),
  'region-door-closed': row(409, 'never', 'start lepton serve with --regions HOST:PORT'),
  'region-list-invalid': row(400, 'never', 'not a list of regions that the home region signed'),
  'region-list-old': row(400, 'never', 'a newer list of regions is in force'),
  'region-key-changed': row(
    400,
    'never',
    'a region keeps its key: one that lost it joins under another name',
  ),
  'region-exists': row(409, 'never', 'choose another name: one that was used is never used again'),
  'invitation-invalid': row(403, 'never', 'ask the home region for a new invitation'),
  'mirror-incomplete': row(503, 'backoff', 'its files are still on their way from another region'),

  // rollouts across regions
  'order-invalid': row(400, 'never', 'the other region may run another version'),
  'rollout-region-unknown': row(404, 'never', 'lepton rollout status ID shows the regions of it'),
  'rollout-decided-there': row(
    409,
    'never',
    'do it in the region itself: lepton rollout status ID shows what its part is called there',
  ),

  // devices that move between regions
  'move-malformed': row(400, 'never', 'give the file that lepton devices move wrote', 2),
  'move-signature-invalid': row(
    403,
    'never',
    'more holders of the catalogue’s root keys must sign: lepton devices sign-move FILE --key KEY',
  ),
  'move-other-device': row(400, 'never', 'the order names other devices; make one that names this one'),
  'move-other-region': row(
    400,
    'never',
    'the order is for devices of another region; lepton devices show says where a device is',
  ),
  'move-replayed': row(400, 'never', 'the device took a newer order since; make another one'),
  'move-expired': row(400, 'never', 'make another order: lepton devices move'),
  'move-waits': row(409, 'backoff', 'an update comes to its end first, or earlier telemetry is acknowledged'),
  'device-moved': row(403, 'never', 'the device is in another region now; lepton devices show names it'),
  'claim-other-device': row(403, 'never', 'the claim names other devices; make one that names this one'),
  'joining-invalid': row(403, 'never', 'not signed by the device’s own key for this claim'),
  'carried-malformed': row(400, 'never', 'not a batch in the envelope that devices send after a move'),
  'carried-region-unknown': row(
    403,
    'backoff',
    'the region that it is for is not among the regions here; lepton regions list shows them',
  ),
  'carried-full': row(
    503,
    'backoff',
    'more waits for the other region than is kept here; the device keeps it and tries again',
  ),
  'carried-answer-invalid': row(502, 'backoff', 'not what the other region signed; its batch stays here'),

  // demo
  'demo-failed': row(
    500,
    'never',
    'the lines above say how far it came; run it again with nothing else on the machine',
  ),
} as const satisfies Record<string, CodeInfo>;

export type ErrorCode = keyof typeof codes;

export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(codes, value);
}
