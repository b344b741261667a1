// Why: what the simulated world cannot reach, with the reason, so that the list of what it missed is worth reading.
// Trusts: nothing. Must never: keep an explanation of something that is reached: `lepton-sim coverage` says so.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { RolloutState } from '../../shared/wire/http.ts';

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
      ...(['rollout-file-invalid', 'golden-malformed'] as const),
      ...(['profile-malformed', 'rollout-failed', 'demo-failed'] as const),
    ],
  },
  {
    why: 'the HTTP API of the registry and who may call it: the world asks the registry core itself',
    codes: [
      ...(['token-missing', 'token-invalid', 'role-forbidden', 'namespace-forbidden'] as const),
      ...(['registry-unreachable', 'registry-answer-invalid', 'registry-not-ready'] as const),
      ...(['port-in-use', 'listen-insecure', 'auth-required', 'method-not-allowed'] as const),
      ...(['body-too-large', 'body-malformed', 'body-encoding', 'body-timeout'] as const),
    ],
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
    why: 'a push of a release by a publisher: the world’s catalogue is signed before its fleet is booted',
    codes: [
      ...(['release-exists', 'release-unknown', 'release-not-signed', 'namespace-unknown'] as const),
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
      ...(['broker-no-certificate', 'broker-certificate-untrusted', 'broker-client-id-borrowed'] as const),
      ...(['broker-publish-denied', 'broker-subscribe-denied'] as const),
      ...(['broker-server-untrusted'] as const),
    ],
  },
  {
    why: 'the TUF command line reads a repository over HTTP; a device of the world asks over the bus',
    codes: ['repository-unreachable'],
  },
];

const states: readonly (readonly [`rollout ${RolloutState}`, string])[] = [
  ['rollout draft', 'a word of the API for which no part of the registry has a use yet'],
  ['rollout awaiting-approval', 'a word of the API for which no part of the registry has a use yet'],
];

/** Name of the thing → why the world does not reach it. */
export const explained: ReadonlyMap<string, string> = new Map([
  ...groups.flatMap(({ why, codes }) => codes.map((code) => [`code ${code}`, why] as const)),
  ...states,
]);
