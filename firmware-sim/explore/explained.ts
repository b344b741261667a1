// Why: what the simulated world cannot reach, with the reason, so that the list of what it missed is worth reading.
// Trusts: nothing. Must never: keep an explanation of something that is reached: `lepton-sim coverage` says so.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { RolloutState } from '../../shared/wire/rollouts.ts';

interface Group {
  why: string;
  codes: readonly ErrorCode[];
}

const groups: readonly Group[] = [
  {
    why: 'a fault that means a bug or a wrong installation: the process ends, and the world calls it a violation',
    codes: ['internal', 'not-implemented', 'migration-edited', 'state-newer', 'state-locked'],
  },
  {
    why: 'flags, settings and files that a person types: the world calls cores, not command lines',
    codes: [
      ...(['config-invalid', 'interrupted', 'claim-malformed'] as const),
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
    why: 'approvals are asked for by no file of the world: test/rollout/approvals.test.ts',
    codes: ['approval-not-needed', 'approval-repeated', 'approval-own', 'nothing-to-retry', 'group-unknown'],
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
      ...(['metadata-malformed', 'metadata-too-large', 'target-digest-mismatch'] as const),
      ...(['key-invalid', 'assignment-malformed', 'assignment-other-region'] as const),
      ...(['release-counter-mismatch', 'release-requires-mismatch', 'authorities-invalid'] as const),
      ...(['telemetry-wrap-mismatch', 'telemetry-key-unknown', 'telemetry-unreadable'] as const),
      ...(['telemetry-too-large', 'telemetry-other-device', 'telemetry-chain-broken'] as const),
      ...(['metadata-signature-invalid', 'manifest-malformed', 'blob-size-mismatch'] as const),
    ],
  },
  {
    why: 'an operator who asks for what is not there: the world’s knows what it has made',
    codes: ['input-invalid', 'not-found', 'conflict', 'rollout-unsupported'],
  },
  {
    why: 'an enrolment that went wrong by hand: in the world each device gets a claim of its own',
    codes: [
      ...(['claim-expired', 'claim-used-up', 'claim-unknown', 'enrolment-request-invalid'] as const),
      ...(['enrolment-certificate-invalid', 'enrolment-root-mismatch'] as const),
    ],
  },
  {
    why: 'a batch of an enrolment before the present one, which a registry must still get: its own tests send it',
    codes: ['telemetry-replayed'],
  },
  {
    why: 'a device that its registry has forgotten or refuses for good: it says so by closing the door, before any code',
    codes: ['device-unknown', 'certificate-expired', 'renewal-refused'],
  },
  {
    why: 'words of the inference host for what the stub of the world says in others',
    codes: ['model-load-failed', 'infer-not-ready'],
  },
  {
    why: 'what a real patch does wrong: the patches of the world are bytes that a stub takes or refuses',
    codes: ['delta-unsupported', 'delta-too-large', 'delta-result-mismatch'],
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
  [
    'rollout awaiting-approval',
    'the files of the world ask for no approval: test/rollout/approvals.test.ts does',
  ],
];

/** `verifying`, `offered` and the look at a rotten file take milliseconds: test/update walks the table itself. */
const moments = [
  'probing fetching',
  'shadowing fetching',
  'verifying rolling-back',
  'verifying offered',
  'verifying idle',
  'verifying committed',
  'offered idle',
  'offered committed',
  'staging committed',
] as const;
const moment =
  'an assignment or a rotten file within a moment of milliseconds: the machine’s own tests walk its table';

/** Name of the thing → why the world does not reach it. */
export const explained: ReadonlyMap<string, string> = new Map([
  ...groups.flatMap(({ why, codes }) => codes.map((code) => [`code ${code}`, why] as const)),
  ...states,
  ...moments.map((change) => [`transition ${change}`, moment] as const),
]);
