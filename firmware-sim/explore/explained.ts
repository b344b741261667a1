// Why: what the simulated world cannot reach, with the reason, so that the list of what it missed is worth reading.
// Trusts: nothing. Must never: keep an explanation of something that is reached: `lepton-sim coverage` says so, but of
// what is `seldom`, which some thousand seeds reach and others do not.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { RolloutState } from '../../shared/wire/rollouts.ts';

interface Group {
  why: string;
  codes: readonly ErrorCode[];
}

const groups: readonly Group[] = [
  {
    why: 'devices of this world stay in their region: moves have tests of their own (test/moves)',
    codes: [
      ...(['move-malformed', 'move-signature-invalid', 'move-other-device', 'move-other-region'] as const),
      ...(['move-replayed', 'move-expired', 'move-waits', 'device-moved', 'claim-other-device'] as const),
      ...(['joining-invalid', 'carried-malformed', 'carried-region-unknown'] as const),
      ...(['carried-full', 'carried-answer-invalid'] as const),
    ],
  },
  {
    why: 'a fault that means a bug or a wrong installation: the process ends, and the world calls it a violation',
    codes: ['internal', 'not-implemented', 'migration-edited', 'state-newer', 'state-locked'],
  },
  {
    why: 'flags, settings and files that a person types: the world calls cores, not command lines',
    codes: [
      ...(['config-invalid', 'claim-malformed'] as const),
      ...([
        'rollout-file-invalid',
        'masking-file-invalid',
        'sample-rules-invalid',
        'webhook-unreachable',
        'erasure-invalid',
        'golden-malformed',
      ] as const),
      ...(['profile-malformed', 'demo-failed'] as const),
    ],
  },
  {
    why: 'backups are an operator’s folders, which the world copies by itself: test/rights',
    codes: ['backup-malformed', 'backup-damaged', 'erasures-unconfirmed', 'erasure-declined'],
  },
  {
    why: 'the policy of a region: no region of the world has one; test/policy',
    codes: [
      ...(['policy-denied', 'policy-file-invalid', 'policy-signature-invalid'] as const),
      ...(['policy-version-stale', 'policy-other-region'] as const),
    ],
  },
  {
    why: 'other regions: the world of one fleet has none; firmware-sim/region-world',
    codes: [
      ...(['not-home', 'region-unreachable', 'region-untrusted'] as const),
      ...(['region-answer-invalid', 'region-unknown', 'region-not-joined', 'region-door-closed'] as const),
      ...(['region-list-invalid', 'region-list-old', 'region-key-changed', 'region-exists'] as const),
      ...(['invitation-invalid', 'mirror-incomplete'] as const),
      ...(['order-invalid', 'rollout-region-unknown', 'rollout-decided-there'] as const),
    ],
  },
  {
    why: 'the HTTP API and heads of other regions’ audit records: the world has one region and calls cores; test/audit',
    codes: [
      ...(['token-in-url', 'audit-head-invalid', 'audit-head-equivocation', 'audit-head-rollback'] as const),
      ...(['audit-head-time-backwards', 'audit-head-unverified'] as const),
    ],
  },
  {
    why: 'what one region publishes and another takes: the world is one region; test/cells',
    codes: ['cells-invalid', 'cells-changed'],
  },
  {
    why: 'training on a table of data: no part of a registry or an agent; test/learn',
    codes: [
      ...(['data-malformed', 'data-too-large', 'data-column-unknown'] as const),
      ...(['data-unfit', 'training-diverged'] as const),
    ],
  },
  {
    why: 'the HTTP API of the registry and who may call it: the world asks the registry core itself',
    codes: [
      ...(['token-missing', 'token-invalid', 'role-forbidden', 'namespace-forbidden'] as const),
      ...([
        'registry-unreachable',
        'agent-not-running',
        'registry-answer-invalid',
        'registry-not-ready',
      ] as const),
      ...(['port-in-use', 'listen-insecure', 'auth-required', 'method-not-allowed'] as const),
      ...(['body-too-large', 'body-malformed', 'body-encoding', 'body-timeout'] as const),
    ],
  },
  {
    why: 'the operators of the world approve for each other and name no groups: test/rollout',
    codes: ['approval-own', 'group-unknown'],
  },
  {
    why: 'a device that asks for more than an agent does, or for what is no part of a file: test/delivery',
    codes: ['fetch-busy', 'fetch-too-many', 'fetch-range', 'fetch-too-slow'],
  },
  {
    why: 'a bound on what releases may take of the disk: devices of the world have all of theirs; test/update',
    codes: ['storage-quota'],
  },
  {
    why: 'key ceremonies: people with files and passphrases, tested by the ceremony’s own tests',
    codes: [
      ...(['key-file-malformed', 'key-plan-malformed', 'key-bundle-malformed', 'key-unknown'] as const),
      ...(['key-duplicate', 'key-not-needed', 'passphrase-missing', 'passphrase-wrong'] as const),
      ...(['threshold-unreachable', 'signatures-missing', 'keys-offline', 'keys-not-held'] as const),
    ],
  },
  {
    why: 'what only a publisher’s machine asks wrongly: the world’s pushes what it has made, once',
    codes: [
      ...(['release-exists', 'release-not-signed', 'namespace-unknown'] as const),
      ...(['publisher-key-unknown', 'blob-missing'] as const),
    ],
  },
  {
    why: 'admission of an ONNX graph: the models of the world are bytes with a behaviour, not graphs',
    codes: [
      ...(['model-not-onnx', 'model-int4-output', 'model-output-not-tensor'] as const),
      ...(['model-custom-operator', 'model-external-data-missing', 'model-opset-too-new'] as const),
      ...(['model-type-unsupported', 'model-memory-estimate', 'model-trial-memory'] as const),
      ...(['model-trial-crashed', 'model-trial-timeout'] as const),
    ],
  },
  {
    why: 'requests for inference: the inference child is a stub that answers no application',
    codes: [
      ...(['infer-invalid', 'infer-unknown-model', 'infer-queue-full'] as const),
      ...(['infer-unsupported', 'infer-failed'] as const),
    ],
  },
  {
    why: 'TLS and the broker’s own doors: the world’s link carries messages, not packets and certificates',
    codes: [
      ...(['broker-no-certificate', 'broker-client-id-borrowed'] as const),
      ...(['broker-publish-denied', 'broker-subscribe-denied'] as const),
      ...(['broker-server-untrusted'] as const),
    ],
  },
  {
    why: 'what only a holder of a key can sign: each is an attack of SECURITY.md, run against these very functions',
    codes: [
      ...(['target-digest-mismatch'] as const),
      ...(['key-invalid', 'assignment-malformed', 'assignment-other-region'] as const),
      ...(['release-counter-mismatch', 'release-requires-mismatch'] as const),
      ...(['telemetry-wrap-mismatch', 'telemetry-key-unknown', 'telemetry-unreadable'] as const),
      ...(['telemetry-too-large', 'telemetry-other-device', 'manifest-malformed'] as const),
    ],
  },
  {
    why: 'an operator who asks for what is not there: the world’s knows what it has made',
    codes: ['input-invalid', 'not-found', 'conflict', 'rollout-unsupported'],
  },
  {
    why: 'an enrolment that went wrong by hand: in the world each device gets a claim of its own',
    codes: [...(['claim-expired', 'enrolment-request-invalid', 'enrolment-root-mismatch'] as const)],
  },
  {
    why: 'a device that its registry has forgotten or refuses for good: it says so by closing the door, before any code',
    codes: ['certificate-expired', 'renewal-refused'],
  },
  {
    why: 'words of the inference host for what the stub of the world says in others',
    codes: ['infer-not-ready'],
  },
  {
    why: 'what a real patch does wrong: the patches of the world are bytes that a stub takes or refuses',
    codes: [
      ...(['delta-unsupported', 'delta-too-large', 'delta-result-mismatch'] as const),
      ...(['delta-rebuild-failed', 'delta-base-mismatch'] as const),
    ],
  },
  {
    why: 'a registry’s torn database: a person restores a backup; a device’s is put aside, and goes by another word',
    codes: ['state-corrupt'],
  },
  {
    why: 'the TUF command line reads a repository over HTTP; a device of the world asks over the bus',
    codes: ['repository-unreachable'],
  },
];

const states: readonly (readonly [`rollout ${RolloutState}`, string])[] = [
  ['rollout draft', 'a word of the API for which no part of the registry has a use yet'],
];

/** `verifying` takes milliseconds: test/update walks the table itself. */
const moments = ['verifying offered', 'verifying idle', 'verifying committed'] as const;
const moment = 'an assignment within a moment of milliseconds: the machine’s own tests walk its table';

/** Of ten thousand seeds fewer than forty reached each of these, most of them fewer than thirty. */
const seldomChanges = [
  'verifying fetching',
  'staging fetching',
  'probing fetching',
  'shadowing fetching',
  'shadowing staging',
  'idle rolling-back',
  'verifying rolling-back',
  'staging idle',
  'shadowing idle',
  'switching idle',
  'offered committed',
  'staging committed',
  'shadowing committed',
  'switching committed',
  'rolling-back committed',
] as const;
const seldomCodes: readonly ErrorCode[] = [
  'interrupted',
  'metadata-malformed',
  'metadata-expired',
  'metadata-signature-invalid',
  'metadata-rollback',
  'metadata-digest-mismatch',
  'metadata-too-large',
  'envelope-malformed',
  'assignment-epoch-reused',
  'release-lost',
  'release-unknown',
  'time-replayed',
  'authorities-invalid',
  'fetch-not-found',
  'blob-size-mismatch',
  'journal-budget-exceeded',
  'defer-exhausted',
  'model-load-failed',
  'broker-certificate-untrusted',
  'device-unknown',
  'claim-used-up',
  'claim-unknown',
  'enrolment-certificate-invalid',
  'telemetry-replayed',
  'telemetry-chain-broken',
];

/** What a thousand seeds may reach or not: neither is news. */
export const seldom: ReadonlySet<string> = new Set([
  ...seldomChanges.map((change) => `transition ${change}`),
  ...seldomCodes.map((code) => `code ${code}`),
]);

/** Name of the thing → why the world does not reach it. */
export const explained: ReadonlyMap<string, string> = new Map([
  ...groups.flatMap(({ why, codes }) => codes.map((code) => [`code ${code}`, why] as const)),
  ...states,
  ...moments.map((change) => [`transition ${change}`, moment] as const),
]);
