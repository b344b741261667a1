// Why: one valid object of every kind that crosses a border, for the fuzzing to start from.
// Trusts: nothing; a test checks that each is accepted. Must never: miss a schema of shared/wire/messages.ts.

import type { z } from 'zod';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import * as messages from '../../shared/wire/messages.ts';
import { HostileRepository, nowMs, signerNamed } from './hostile-repository.ts';

const hex = (digit: string, count: number): string => digit.repeat(count);
const device = hex('d', 32);
const region = 'eu';
const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
const head = { schemaVersion: 1, messageId: 'm', sentAtMs: nowMs };
const agent = { version: '0.1.0', runtime: 'onnxruntime 1', arch: 'x64' };
const assigned = new HostileRepository().assignmentOf('acme/detector/1.0.0');
const held = { root: 1, regionRoot: 1, timestamp: 9, snapshot: 4, targets: 3 };
const outbox = { producedRecords: 1, acknowledgedRecords: 1, droppedRecords: 0, pendingBatches: 0, bytes: 0 };
const tensor = (name: string) => ({ name, shape: [2], datatype: 'FP32', data: [1.5, 2] });

const model = {
  name: 'detector',
  state: 'fetching',
  active: null,
  activeSha256: null,
  candidate: assigned.releaseId,
  lastGood: null,
  target: assigned.releaseId,
  rolloutId: 'r1',
  reason: { code: 'blob-digest-mismatch', detail: 'x' },
  progress: { doneBytes: 1, totalBytes: 2 },
  probe: {
    goldenCases: 1,
    goldenPassed: 1,
    firstFailure: null,
    latencyP50Ms: 1,
    latencyP95Ms: 2,
    memoryBytesPeak: 3,
  },
  shadow: {
    requests: 3,
    compared: 2,
    skipped: 1,
    failed: 0,
    agreement: 0.5,
    firstFailure: 'x',
    latencyP95Ms: 1,
    activeLatencyP95Ms: null,
    differences: [{ output: 'y', counts: [1, 1] }],
  },
};
const refusal = { id: 1, code: 'metadata-rollback', detail: 'x', atMs: nowMs, attack: true };
const telemetry = { epoch: 1, keyId: 'k1', publicKey: hex('a', 64) };

const assignment = {
  schemaVersion: 1,
  deviceId: device,
  region,
  epoch: 7,
  issuedAtMs: nowMs,
  expiresAtMs: nowMs + 86_400_000,
  labels: { site: 'a' },
  releases: [assigned],
  telemetry,
  masking: { key: hex('c', 64), rules: [{ do: 'drop', field: ['inputs', 'face'], classes: ['sample'] }] },
  samples: [
    {
      ...{ model: 'acme/detector', lowConfidence: { below: 0.5 }, disagreement: true, outOfRange: true },
      ...{ randomShare: 0.01, perHourMax: 20, bytesMax: 65_536 },
    },
  ],
  authoritiesSha256: hex('b', 64),
};
const report = {
  schemaVersion: 1,
  deviceId: device,
  region,
  counter: 1,
  boot: 1,
  session: hex('a', 32),
  sentAtMs: nowMs,
  verifiedTimeMs: 0,
  epoch: 1,
  timezone: 'Europe/Berlin',
  agent,
  models: [model],
  refusals: [refusal],
  outbox,
  held,
  clock: { wallMs: nowMs, source: 'signed' },
  certificateExpiresAtMs: nowMs,
};
const move = { moveId: hex('1', 24), to: 'us', state: 'waiting', reason: null };
const authorities = { schemaVersion: 1, region, issuedAtMs: nowMs, certificates: [pem] };
const envelope = signEnvelope(
  messages.payloadTypes.authorities,
  new TextEncoder().encode(JSON.stringify(authorities)),
  [signerNamed('command')],
);
const refused = { status: 'refused', code: 'claim-expired', detail: 'too late' };

const rollout = {
  apiVersion: 'lepton/v1',
  kind: 'Rollout',
  metadata: { name: 'detector-1' },
  spec: {
    release: 'acme/detector@1.0.0',
    selector: {
      matchLabels: { site: 'a' },
      matchExpressions: [{ key: 'line', operator: 'In', values: ['x', 'y'] }],
    },
    waves: [{ count: 1, soak: '10m' }, { percent: 100 }],
    gates: { success: 0.99 },
    deadlines: { fetching: '1h', unreachable: { after: '24h', counts: 'wait' } },
    onGateFailure: 'rollback',
  },
};

const claim = {
  schemaVersion: 1,
  kind: 'lepton-claim',
  claimId: hex('a', 20),
  region,
  brokerUrl: 'mqtts://127.0.0.1:8883',
  fleetCa: pem,
  certificate: pem,
  privateKey: 'a secret',
  labels: {},
  uses: 1,
  expiresAtMs: nowMs,
  catalogueRootSha256: hex('a', 64),
  regionRootSha256: hex('b', 64),
};

/** Objects that are not messages of their own. */
export const objects = {
  assignment,
  authorities,
  answer: {
    schemaVersion: 1,
    deviceId: device,
    region,
    epoch: 1,
    sequence: 1,
    headSha256: hex('a', 64),
    result: { status: 'stored', records: 1 },
  },
  claim,
  boundClaim: { ...claim, deviceIds: [device] },
  moveOrder: {
    schemaVersion: 1,
    moveId: hex('1', 24),
    deviceIds: [device],
    from: region,
    to: { ...claim, region: 'us', deviceIds: [device] },
    issuedAtMs: nowMs - 1,
    expiresAtMs: nowMs,
  },
  joining: {
    schemaVersion: 1,
    deviceId: device,
    claimId: hex('a', 20),
    moveId: hex('1', 24),
    from: region,
    to: 'us',
    labels: {},
    timezone: 'UTC',
    runs: [{ as: 'detector', releaseId: 'acme/detector@1.0.0', manifestSha256: hex('a', 64) }],
  },
  carriedNotice: {
    schemaVersion: 1,
    deviceId: device,
    epoch: 1,
    sequence: 1,
    headSha256: hex('a', 64),
    region,
    forRegion: 'us',
    code: 'carried-full',
    detail: 'x',
    pauseMs: 1,
  },
  manifest: {
    schemaVersion: 1,
    name: 'acme/detector',
    version: '1.0.0',
    files: [
      { path: 'model.onnx', role: 'model', sha256: hex('a', 64), bytes: 1 },
      { path: 'golden/golden.json', role: 'golden', sha256: hex('b', 64), bytes: 2 },
    ],
    requires: { opset: 17, arch: ['x64'] },
    limits: { latencyP95Ms: 50 },
    inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 3] }],
    compare: { output: 'y', by: 'argmax', tolerance: 0.1 },
    stream: { input: 'x', window: 2, hop: 1 },
  },
  rollout,
  rolloutYaml: `apiVersion: lepton/v1
kind: Rollout
metadata: {name: detector-1}
spec:
  release: acme/detector@1.0.0   # a comment
  waves:
    - &first {count: 1, soak: 10m}
    - percent: 100
`,
  golden: [
    {
      request: { inputs: [tensor('x')] },
      response: { model_name: 'm', outputs: [tensor('y')] },
      rtol: 0.1,
      atol: 0.2,
    },
  ],
  profile: {
    schemaVersion: 1,
    features: [
      {
        role: 'input',
        tensor: 'x',
        index: 0,
        kind: 'numeric',
        edges: [0, 1, 2],
        counts: [0, 1, 2, 0],
        chunks: [[0, 1, 2, 0]],
      },
      {
        role: 'output',
        tensor: 'y',
        index: 0,
        kind: 'categorical',
        values: ['a', 1, true],
        counts: [1, 2, 3],
        other: 1,
      },
    ],
  },
  inferRequest: {
    id: '1',
    parameters: { a: 1, b: 'x' },
    inputs: [
      tensor('x'),
      { name: 'i', shape: [1, 2], datatype: 'INT64', data: [[1, -9_007_199_254_740_991]] },
    ],
    outputs: [{ name: 'y' }],
  },
  inferResponse: { model_name: 'm', model_version: '1', id: '1', outputs: [tensor('y')] },
} as const;

/** Valid values of every schema that shared/wire/messages.ts exports, by its name there. */
const seeds: Record<string, readonly unknown[]> = {
  nameSchema: ['detector'],
  providerNameSchema: ['webgpu'],
  deviceIdSchema: [device],
  versionSchema: ['1.0.0-rc.1'],
  releaseIdSchema: ['acme/detector@1.0.0'],
  labelsSchema: [{ site: 'a', line: 'x' }],
  envelopeSchema: [envelope],
  signedMessageSchema: [{ ...head, envelope }],
  desiredMessageSchema: [
    { ...head, envelope },
    { ...head, envelope, move: envelope },
  ],
  activationPolicySchema: [
    assigned.policy,
    {
      ...assigned.policy,
      windows: {
        download: [{ days: ['sat', 'sun'], from: '22:00', to: '05:00' }],
        activate: [{ from: '02:00', to: '05:00' }],
        deferMaxMs: 3_600_000,
      },
    },
  ],
  assignedReleaseSchema: [assigned],
  telemetryKeySchema: [telemetry],
  assignmentSchema: [assignment, { ...assignment, keep: ['other'] }],
  agentInfoSchema: [agent, { ...agent, memoryMiB: 512, providers: ['cpu', 'webgpu'] }],
  reasonSchema: [model.reason, { code: 'window-closed', detail: 'x', untilMs: nowMs }],
  probeEvidenceSchema: [model.probe],
  shadowEvidenceSchema: [model.shadow],
  shadowPolicySchema: [{ requests: 10, cpuPercent: 25, timeoutMs: 1_000, agreementMin: 0.9 }],
  reportedModelSchema: [model],
  reportedRefusalSchema: [refusal],
  heldVersionsSchema: [held],
  outboxStateSchema: [outbox],
  droppedRecordsSchema: [{ class: 'log', reason: 'space', records: 3 }],
  reportedMoveSchema: [move, { ...move, to: null, state: 'ended', reason: model.reason }],
  reportSchema: [report, { ...report, move }],
  presenceSchema: [{ ...head, online: true }],
  refreshTargetSchema: [{ kind: 'refresh', held, namespaces: { acme: 2 } }],
  waysTargetSchema: [{ kind: 'ways', sha256: hex('a', 64), held: [hex('b', 64)] }],
  fetchRequestSchema: [
    { ...head, requestId: 1, target: { kind: 'blob', sha256: hex('a', 64) }, offset: 0, length: 1 },
    { ...head, requestId: 1, target: { kind: 'metadata', name: '3.acme.json' }, offset: 0, length: 1 },
    {
      ...head,
      requestId: 1,
      target: { kind: 'refresh', held, namespaces: { acme: 2 } },
      offset: 0,
      length: 1,
    },
    {
      ...head,
      requestId: 1,
      target: { kind: 'ways', sha256: hex('a', 64), held: [hex('b', 64)] },
      offset: 0,
      length: 1,
    },
  ],
  enrolRequestSchema: [
    { ...head, csr: 'x', labels: {}, timezone: 'UTC', agent },
    { ...head, csr: 'x', labels: {}, timezone: 'UTC', agent, joining: envelope },
  ],
  enrolReplySchema: [
    {
      ...head,
      result: {
        status: 'accepted',
        deviceId: device,
        certificate: pem,
        labels: {},
        catalogueRoot: 'AAAA',
        regionRoot: 'AAAA',
        telemetryEpoch: 1,
      },
    },
    { ...head, result: refused },
  ],
  timeRequestSchema: [{ ...head, nonce: hex('a', 32) }],
  timeStatementSchema: [{ schemaVersion: 1, deviceId: device, region, nonce: hex('a', 32), timeMs: nowMs }],
  renewRequestSchema: [{ ...head, csr: 'x' }],
  authoritiesStatementSchema: [authorities],
  renewReplySchema: [
    { ...head, result: { status: 'accepted', certificate: pem, authorities: envelope } },
    { ...head, result: refused },
  ],
  heldMessageSchema: [
    { ...head, kind: 'held', file: 'ns/acme', sha256: hex('a', 64), totalBytes: 3, offset: 0, bytes: 'AAAA' },
  ],
};

/** Name, schema, valid values. A schema that is new and has none here starts from an empty object. */
export const messageSeeds: [string, z.ZodType, readonly unknown[]][] = Object.entries(messages).flatMap(
  ([name, schema]): [string, z.ZodType, readonly unknown[]][] =>
    name.endsWith('Schema') && typeof schema === 'object' && 'safeParse' in schema
      ? [[name, schema as z.ZodType, seeds[name] ?? [{}]]]
      : [],
);
