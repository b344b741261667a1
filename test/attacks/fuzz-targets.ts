// Why: every parser that bytes from outside reach, with valid inputs to start from and what must hold of an
// answer. Trusts: the makers of valid objects. Must never: catch what a parser throws; that is the finding.

import { parseRecords } from '../../agent/telemetry/records.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { readBatch } from '../../registry/telemetry/open-batch.ts';
import { canonicalJson, parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { makeDeviceRequest, readDeviceRequest } from '../../shared/host/certificates.ts';
import { ok, type Result } from '../../shared/kernel/result.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { checkAuthorities } from '../../shared/trust/authorities.ts';
import { checkNotice } from '../../shared/trust/carried.ts';
import { checkJoining, openMove } from '../../shared/trust/device-move.ts';
import { parseRegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { checkReport, noReportYet } from '../../shared/trust/report.ts';
import { checkAnswer } from '../../shared/trust/telemetry.ts';
import { checkTime } from '../../shared/trust/time.ts';
import { type TrustState, verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import { parseRoot, parseSnapshot, parseTargets, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { checkPublisherStep } from '../../shared/trust/tuf/publisher.ts';
import { decodeCarried, encodeCarried } from '../../shared/wire/carried.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import { decodeFrame, encodeFrame } from '../../shared/wire/frames.ts';
import { parseGolden } from '../../shared/wire/golden.ts';
import { manifestSchema } from '../../shared/wire/manifest.ts';
import {
  type Envelope,
  parseMessage,
  payloadTypes,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { parseInferRequest, parseInferResponse } from '../../shared/wire/oip-json.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import { encodeParcel, packParcel, readParcelHeader, unpackParcel } from '../../shared/wire/refresh.ts';
import { deviceId, region, regionRootFile, trusted } from './fleet-region.ts';
import { reportOf } from './fleet-reports.ts';
import { batchMessage, statementOf } from './fleet-telemetry.ts';
import { messageSeeds, objects } from './fuzz-seeds.ts';
import { decode, encode, HostileRepository, nowMs, signerNamed } from './hostile-repository.ts';

export interface FuzzTarget {
  name: string;
  seeds: readonly Uint8Array[];
  judge(bytes: Uint8Array): Result<unknown> | Promise<Result<unknown>>;
  /** What was signed, in one spelling, where the input is a signed object: accepted means that it is a seed's. */
  signed?(bytes: Uint8Array): string;
}

const json = (value: unknown): Uint8Array => encode(JSON.stringify(value));
const device = signerNamed('device');
const reporter = deviceIdOf(device.publicKey);

const repository = new HostileRepository();
const first = repository.fork();
repository.release('acme/detector/1.1.0');
const files = (name: string): Uint8Array[] => [repository.bytes(name), first.bytes(name)];

/** The signed part of a metadata file as canonical text: white space and the order of members are not signed. */
function signedPart(bytes: Uint8Array): string {
  const read = parseStrictJson(bytes);
  if (!read.ok) return read.refusal.code;
  const signed = (read.value as { signed: Parameters<typeof canonicalJson>[0] }).signed;
  return decode(canonicalJson(signed));
}

const state: TrustState = {
  root: repository.bytes('root'),
  timestamp: repository.bytes('timestamp'),
  snapshot: repository.bytes('snapshot'),
  targets: repository.bytes('targets'),
  delegated: { acme: repository.bytes('acme'), beta: repository.bytes('beta') },
};

const metadata: FuzzTarget[] = [
  {
    name: 'parseRoot',
    seeds: [...files('root'), regionRootFile()],
    judge: (bytes) => parseRoot(bytes, ['root', 'timestamp', 'snapshot', 'targets']),
  },
  { name: 'parseTimestamp', seeds: files('timestamp'), judge: parseTimestamp },
  { name: 'parseSnapshot', seeds: files('snapshot'), judge: parseSnapshot },
  { name: 'parseTargets', seeds: [...files('acme'), ...files('targets')], judge: parseTargets },
  ...(['root', 'timestamp', 'snapshot', 'targets'] as const).map((name) => ({
    name: `verifyStoredCatalogue ${name}`,
    seeds: [repository.bytes(name)],
    judge: (bytes: Uint8Array) => verifyStoredCatalogue({ ...state, [name]: bytes }),
    signed: signedPart,
  })),
  {
    name: 'verifyStoredCatalogue acme',
    seeds: [repository.bytes('acme')],
    judge: (bytes) => verifyStoredCatalogue({ ...state, delegated: { ...state.delegated, acme: bytes } }),
    signed: signedPart,
  },
  {
    name: 'checkPublisherStep next',
    seeds: [repository.bytes('acme')],
    judge: (next) => checkPublisherStep({ namespace: 'acme', current: first.bytes('acme'), next }),
  },
  {
    name: 'checkPublisherStep current',
    seeds: [first.bytes('acme')],
    judge: (current) => checkPublisherStep({ namespace: 'acme', current, next: repository.bytes('acme') }),
  },
  {
    name: 'parseRegionRoot',
    seeds: [regionRootFile()],
    judge: parseRegionRoot,
    signed: signedPart,
  },
  {
    name: 'updateRegionRoot',
    seeds: [regionRootFile({ version: 2 })],
    judge: (bytes) => updateRegionRoot(regionRootFile(), bytes),
    signed: signedPart,
  },
];

interface Kind {
  name: string;
  type: string;
  signer: ReturnType<typeof signerNamed>;
  payload: object;
  check(envelope: Envelope): Result<unknown>;
}

const nonce = 'a'.repeat(32);
const mover = signerNamed('root of one key');
const moveRoot = {
  roles: new Map([['root', { keys: [{ keyId: mover.keyId, publicKey: mover.publicKey }], threshold: 1 }]]),
};
const signedKinds: Kind[] = [
  {
    name: 'assignment',
    type: payloadTypes.assignment,
    signer: signerNamed('director'),
    payload: objects.assignment,
    check: (envelope) =>
      checkAssignment({ envelope, regionRoot: trusted, deviceId, region, current: null, nowMs }),
  },
  {
    name: 'report',
    type: payloadTypes.report,
    signer: device,
    payload: reportOf({}),
    check: (envelope) =>
      checkReport({ envelope, devicePublicKey: device.publicKey, deviceId: reporter, last: noReportYet }),
  },
  {
    name: 'time',
    type: payloadTypes.time,
    signer: signerNamed('time'),
    payload: { schemaVersion: 1, deviceId, region, nonce, timeMs: nowMs },
    check: (envelope) => checkTime({ envelope, regionRoot: trusted, deviceId, region, nonce }),
  },
  {
    name: 'authorities',
    type: payloadTypes.authorities,
    signer: signerNamed('command'),
    payload: objects.authorities,
    check: (envelope) => checkAuthorities({ envelope, regionRoot: trusted, region, heldIssuedAtMs: 0 }),
  },
  {
    name: 'answer',
    type: payloadTypes.telemetryAnswer,
    signer: signerNamed('ack'),
    payload: objects.answer,
    check: (envelope) => checkAnswer({ envelope, regionRoot: trusted, deviceId, region }),
  },
  {
    name: 'carried notice',
    type: payloadTypes.carriedNotice,
    signer: signerNamed('ack'),
    payload: objects.carriedNotice,
    check: (envelope) => checkNotice({ envelope, regionRoot: trusted, deviceId }),
  },
  {
    name: 'joining',
    type: payloadTypes.joining,
    signer: device,
    payload: { ...objects.joining, deviceId: reporter },
    check: (envelope) =>
      checkJoining({
        ...{ envelope, devicePublicKey: device.publicKey },
        ...{ claimId: objects.joining.claimId, region: objects.joining.to },
      }),
  },
  {
    name: 'move order',
    type: payloadTypes.deviceMove,
    signer: mover,
    payload: objects.moveOrder,
    check: (envelope) => openMove(envelope, moveRoot),
  },
];

const head = { schemaVersion: 1, messageId: 'm', sentAtMs: nowMs };

/** Each signed kind twice: the message on its way, changed; and a payload that its own key signed, however odd. */
const envelopes: FuzzTarget[] = signedKinds.flatMap(({ name, type, signer, payload, check }) => {
  const envelope = signEnvelope(type, json(payload), [signer]);
  return [
    {
      name: `${name} on its way`,
      seeds: [json({ ...head, envelope })],
      judge: (bytes: Uint8Array) => {
        const message = parseMessage(signedMessageSchema, bytes);
        return message.ok ? check(message.value.envelope) : message;
      },
      signed: (bytes: Uint8Array) => {
        const message = parseMessage(signedMessageSchema, bytes);
        return message.ok ? `${message.value.envelope.payloadType} ${message.value.envelope.payload}` : '';
      },
    },
    {
      name: `${name} signed as it is`,
      seeds: [json(payload)],
      judge: (bytes: Uint8Array) => check(signEnvelope(type, bytes, [signer])),
    },
  ];
});

const messages: FuzzTarget[] = messageSeeds.map(([name, schema, seeds]) => ({
  name: `parseMessage ${name}`,
  seeds: seeds.map(json),
  judge: (bytes) => parseMessage(schema, bytes),
}));

const plainParcel = packParcel({
  files: new Map([
    ['timestamp.json', repository.bytes('timestamp')],
    ['2.acme.json', repository.bytes('acme')],
  ]),
  behind: ['timestamp'],
  behindNamespaces: ['beta'],
});

const binary: FuzzTarget[] = [
  {
    name: 'decodeFrame',
    seeds: [
      encodeFrame({ status: 'data', requestId: 7, offset: 10, totalBytes: 100, payload: new Uint8Array(20) }),
    ],
    judge: decodeFrame,
  },
  {
    name: 'readParcelHeader',
    seeds: [encodeParcel(plainParcel, null), encodeParcel(plainParcel, new Uint8Array(30))],
    judge: (bytes) => {
      const header = readParcelHeader(bytes);
      return header.ok && !header.value.deflated ? unpackParcel(header.value.body) : header;
    },
  },
  { name: 'unpackParcel', seeds: [plainParcel], judge: unpackParcel },
  {
    name: 'decodeCarried',
    seeds: [encodeCarried({ region, batch: batchMessage })],
    judge: decodeCarried,
  },
  {
    name: 'readBatch',
    seeds: [batchMessage],
    judge: (payload) => readBatch({ payload, devicePublicKey: device.publicKey, deviceId: reporter, region }),
    signed: (bytes) => statementOf(bytes),
  },
];

const texts: FuzzTarget[] = [
  {
    name: 'parseStrictJson and back',
    seeds: [...files('acme'), json({ é: ['\u{1f600}', 0, -1], __proto__: 1, '': { a: null } })],
    judge: (bytes) => {
      const read = parseStrictJson(bytes, { integersOnly: true });
      if (!read.ok) return read;
      // What was read has one spelling, and that spelling is read as the same.
      const spelled = canonicalJson(read.value);
      const again = parseStrictJson(withEscapes(spelled), { integersOnly: true });
      if (!again.ok) return again;
      if (Buffer.compare(canonicalJson(again.value), spelled) !== 0)
        throw new Error('two spellings of one value');
      return ok();
    },
  },
  {
    name: 'claim file',
    seeds: [json(objects.claim), json(objects.boundClaim)],
    judge: (bytes) => parseMessage(claimFileSchema, bytes),
  },
  {
    name: 'manifest',
    seeds: [json(objects.manifest)],
    judge: (bytes) => parseMessage(manifestSchema, bytes),
  },
  {
    name: 'rollout file',
    seeds: [json(objects.rollout), encode(objects.rolloutYaml)],
    judge: (bytes) => parseRolloutFile(decode(bytes)),
  },
  { name: 'golden', seeds: [json(objects.golden)], judge: (bytes) => parseGolden(bytes, () => null) },
  { name: 'profile', seeds: [json(objects.profile)], judge: parseProfile },
  { name: 'OIP request', seeds: [json(objects.inferRequest)], judge: parseInferRequest },
  { name: 'OIP response', seeds: [json(objects.inferResponse)], judge: (bytes) => parseInferResponse(bytes) },
  {
    name: 'application records',
    seeds: [encode('{"timeMs":1,"a":1}\n{"release":null,"data":{"b":2}}\n')],
    judge: (bytes) => parseRecords(bytes, nowMs),
  },
];

/** Canonical JSON leaves control characters bare; a JSON reader wants them escaped. */
function withEscapes(bytes: Uint8Array): Uint8Array {
  const escaped = Array.from(decode(bytes), (one) => {
    const code = one.charCodeAt(0);
    return code < 0x20 ? `\\u${code.toString(16).padStart(4, '0')}` : one;
  });
  return encode(escaped.join(''));
}

/** What the registry's edge takes (`enrolRequestSchema`). */
const csrCharactersMax = 8_192;

export async function fuzzTargets(): Promise<FuzzTarget[]> {
  const csr = await makeDeviceRequest(new Uint8Array(32).fill(3));
  return [
    ...metadata,
    ...envelopes,
    ...messages,
    ...binary,
    ...texts,
    {
      name: 'readDeviceRequest',
      seeds: [encode(csr)],
      judge: (bytes) => readDeviceRequest(decode(bytes).slice(0, csrCharactersMax)),
    },
  ];
}
