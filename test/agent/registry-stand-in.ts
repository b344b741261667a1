// Why: a registry as small as the wire allows, on the real broker and the real trust chain, which can also
// lie, corrupt and vanish. Trusts: shared/trust and registry/broker. Must never: be better than the real one.

import { type Broker, type BrokerRefusal, startBroker } from '../../registry/broker/broker.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { publicKeyOf, type Signer } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import {
  type CertificateAuthority,
  issueClaimCertificate,
  issueDeviceCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
  readDeviceRequest,
} from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { authoritiesSha256 } from '../../shared/trust/authorities.ts';
import { checkReport, noReportYet } from '../../shared/trust/report.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { encodeFrame } from '../../shared/wire/frames.ts';
import {
  type AssignedRelease,
  type Assignment,
  type Envelope,
  encodeMessage,
  enrolRequestSchema,
  fetchRequestSchema,
  parseMessage,
  presenceSchema,
  type Report,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import {
  deviceTopic,
  enrolReplyTopic,
  everyDeviceFilter,
  everyEnrolRequestFilter,
  parseTopic,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import { type TrustTamper, trustAnswers } from './stand-in-trust.ts';
import { newSigner, testCatalogue } from './test-catalogue.ts';

export const region = 'test';
const dayMs = 86_400_000;
const frameBytes = 16 * 1024;

export interface StandInOptions {
  /** The registry's own clock: its certificates, metadata and signed time go by it. */
  clock?: Clock;
}

export interface StandIn {
  readonly refused: BrokerRefusal[];
  readonly reports: Report[];
  readonly presence: boolean[];
  /** Fetch requests, as `blob <sha256> <offset>`, `metadata <name>` or `refresh`. */
  readonly fetches: string[];
  /** What devices gave back, each file whole. */
  readonly returned: { file: string; bytes: Uint8Array }[];
  /** Questions for the time, requests for certificates. */
  readonly asked: { time: number; renewal: number };
  /** Public keys that asked to be enrolled, hex, in the order of their requests. */
  readonly enrolRequests: string[];
  /** Changes an answer before it is sent; for lies and losses. */
  tamper: {
    frame?: (target: string, frame: Uint8Array, deviceId: string) => Uint8Array | null;
    enrolReply?: (result: Record<string, unknown>) => Record<string, unknown> | null;
    mayConnect?: (deviceId: string) => boolean;
    /** Everything this device may fetch, metadata by name and blobs by digest, in the place of the stand-in's own. */
    files?: (deviceId: string) => ReadonlyMap<string, Uint8Array> | undefined;
  } & TrustTamper;
  /** Validity of the device certificates it issues. */
  certificates: { notBeforeMs: number; notAfterMs: number };
  /** PEM of the authorities, the one that issues now first. */
  authorities(): string[];
  /** Another authority issues from now on; the broker takes both. Its own certificate stays the old one's. */
  addAuthority(): Promise<void>;
  /** The old authorities are gone: certificates and the broker's own are of the newest alone. */
  retireAuthorities(): Promise<void>;
  /** Digest of the list, as an assignment names it. */
  authoritiesSha256(): string;
  url(): string;
  claim(options?: { expired?: boolean; uses?: number }): Promise<ClaimFile>;
  /** Adds a release with these files; returns what a director would assign. */
  release(id: string, files: { role: string; path: string; bytes: Uint8Array }[]): AssignedRelease;
  raiseFloor(model: string, counter: number): void;
  assign(deviceId: string, releases: AssignedRelease[], changes?: Partial<Assignment>): Assignment;
  /** Publishes any envelope as the retained `desired` of the device. */
  publishDesired(deviceId: string, envelope: Envelope): Promise<void>;
  sign(assignment: Assignment, signer?: Signer): Envelope;
  /** The region's `time` key: what a thief would hold. */
  timeSigner(): Signer;
  commandSigner(): Signer;
  /** A device certificate, of this authority's, for a seed or for a device that is enrolled. */
  certificateOf(seed: Uint8Array | null, deviceId?: string): Promise<string>;
  /** PEM of an authority that nobody named. */
  strangerAuthority(): Promise<string>;
  /** By which the broker judges certificates; the registry's own where absent. Counts at `start`. */
  brokerClock: Clock | null;
  /** The releases of the last assignment made. */
  assigned(): AssignedRelease[];
  /** From now on another key has this role of the region. */
  rotate(role: 'director' | 'time'): void;
  ring(): Promise<void>;
  /** Rings with these bytes, once. */
  ringWith(bytes: Uint8Array): Promise<void>;
  connected(): string[];
  disconnect(deviceId: string): Promise<void>;
  /** Breaks the line; `start` opens the same port again. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

const seedOf = (): Uint8Array => systemEntropy.bytes(32);
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const head = () => ({ schemaVersion: 1 as const, messageId: 'stand-in', sentAtMs: Date.now() });

export async function standIn(log: Log, options: StandInOptions = {}): Promise<StandIn> {
  const clock = options.clock ?? systemClock;
  const now = clock.wall();
  const validity = { notBeforeMs: now - dayMs, notAfterMs: now + 30 * dayMs };
  const newAuthority = async (name: string): Promise<CertificateAuthority> => {
    const seed = seedOf();
    return { seed, certificatePem: await makeCertificateAuthority({ seed, name, ...validity }) };
  };
  const serverOf = (ca: CertificateAuthority): Promise<string> =>
    issueServerCertificate({ ca, seed: serverSeed, hosts: ['127.0.0.1', 'localhost'], ...validity });
  const serverSeed = seedOf();
  let authorities = [await newAuthority('fleet CA 1')];
  let serverCert = await serverOf(issuing());
  const pems = (): string[] => authorities.map(({ certificatePem }) => certificatePem);

  /** The authority that issues now. */
  function issuing(): CertificateAuthority {
    const [newest] = authorities;
    if (newest === undefined) throw new Error('no authority');
    return newest;
  }

  const catalogue = testCatalogue(region, now + 7 * dayMs);
  const { files, blobs, rootFile, regionFile, expiresAtMs } = catalogue;

  const devices = new Map<string, { publicKey: Uint8Array; certificate: string; lastCounter: number }>();
  const claims = new Map<string, { expired: boolean; usesLeft: number }>();
  const retained = new Map<string, Uint8Array>();
  let epoch = 0;
  let lastAssigned: AssignedRelease[] = [];
  let port = 0;
  let broker: Broker | null = null;

  const bus = () => {
    if (broker === null) throw new Error('the stand-in is stopped');
    return broker.bus;
  };

  async function answerEnrolment(topic: string, payload: Uint8Array): Promise<void> {
    const parsed = parseTopic(topic);
    if (parsed?.kind !== 'enrol') throw new Error(topic);
    const request = unwrap(parseMessage(enrolRequestSchema, payload));
    const { publicKey, deviceId } = unwrap(await readDeviceRequest(request.csr));
    self.enrolRequests.push(Buffer.from(publicKey).toString('hex'));
    const claim = claims.get(parsed.claimId);
    let known = devices.get(deviceId);
    let result: Record<string, unknown>;
    if (claim === undefined || claim.expired)
      result = { status: 'refused', code: 'claim-expired', detail: 'too late' };
    else if (known === undefined && claim.usesLeft === 0) {
      result = { status: 'refused', code: 'claim-used-up', detail: 'no uses left' };
    } else {
      if (known === undefined) {
        claim.usesLeft -= 1;
        const dates = self.certificates;
        const certificate = await issueDeviceCertificate({ ca: issuing(), deviceId, publicKey, ...dates });
        known = { publicKey, certificate, lastCounter: 0 };
        devices.set(deviceId, known);
      }
      result = {
        status: 'accepted',
        deviceId,
        certificate: known.certificate,
        labels: { ...request.labels, site: 'a' },
        catalogueRoot: base64(rootFile),
        regionRoot: base64(regionFile),
        telemetryEpoch: 1,
      };
    }
    const answer = self.tamper.enrolReply === undefined ? result : self.tamper.enrolReply(result);
    if (answer === null) return;
    const reply = encodeMessage({ ...head(), result: answer });
    await bus().publish(enrolReplyTopic(region, parsed.claimId, parsed.attempt), reply, {
      qos: 1,
      retain: false,
    });
  }

  async function answerFetch(deviceId: string, payload: Uint8Array): Promise<void> {
    const request = unwrap(parseMessage(fetchRequestSchema, payload));
    const { target } = request;
    const hostile = self.tamper.files?.(deviceId);
    const [name, own] =
      target.kind === 'blob'
        ? [target.sha256, blobs.get(target.sha256)]
        : target.kind === 'metadata'
          ? [target.name, files.get(target.name)]
          : target.kind === 'ways'
            ? ['ways', undefined]
            : ['refresh', await trust.parcel(target)];
    // A hostile registry of the suite has files and no parcels: they are asked for one by one.
    const whole = hostile === undefined ? own : hostile.get(name);
    self.fetches.push(
      target.kind === 'blob'
        ? `blob ${name} ${request.offset}`
        : target.kind !== 'metadata'
          ? name
          : `metadata ${name}`,
    );
    const send = async (frame: Uint8Array): Promise<void> => {
      const sent = self.tamper.frame === undefined ? frame : self.tamper.frame(name, frame, deviceId);
      if (sent !== null) await bus().sendBulk(deviceId, deviceTopic(region, deviceId, 'bytes'), sent);
    };
    if (whole === undefined) {
      const empty = { requestId: request.requestId, offset: 0, totalBytes: 0, payload: new Uint8Array() };
      return send(encodeFrame({ status: 'not-found', ...empty }));
    }
    const end = Math.min(whole.length, request.offset + request.length);
    for (let offset = request.offset; offset < end || offset === request.offset; offset += frameBytes) {
      const piece = whole.subarray(offset, Math.min(end, offset + frameBytes));
      await send(
        encodeFrame({
          status: 'data',
          requestId: request.requestId,
          offset,
          totalBytes: whole.length,
          payload: piece,
        }),
      );
    }
  }

  /** A bug in here must fail the test, not hang it. */
  const run = (work: Promise<void>): void => {
    work.catch((error: unknown) => {
      if (broker !== null) process.emitWarning(`stand-in: ${String(error)}`);
    });
  };

  const deviceOf = (topic: string): string => {
    const parsed = parseTopic(topic);
    return parsed?.kind === 'device' ? parsed.deviceId : '';
  };

  const self: StandIn = {
    refused: [],
    reports: [],
    presence: [],
    fetches: [],
    returned: [],
    asked: { time: 0, renewal: 0 },
    enrolRequests: [],
    tamper: {},
    certificates: validity,
    authorities: pems,
    addAuthority: async () => {
      authorities = [await newAuthority(`fleet CA ${authorities.length + 1}`), ...authorities];
      await self.stop();
      await self.start();
    },
    retireAuthorities: async () => {
      authorities = [issuing()];
      serverCert = await serverOf(issuing());
      await self.stop();
      await self.start();
    },
    authoritiesSha256: () => authoritiesSha256(pems()),
    url: () => `mqtts://127.0.0.1:${port}`,

    claim: async ({ expired = false, uses = 1 } = {}) => {
      const claimId = Buffer.from(systemEntropy.bytes(10)).toString('hex');
      claims.set(claimId, { expired, usesLeft: uses });
      const seed = seedOf();
      const certificate = await issueClaimCertificate({
        ca: issuing(),
        claimId,
        publicKey: publicKeyOf(seed),
        ...validity,
      });
      return {
        schemaVersion: 1,
        kind: 'lepton-claim',
        claimId,
        region,
        brokerUrl: self.url(),
        fleetCa: pems().join(''),
        certificate,
        privateKey: pkcs8PemFromSeed(seed),
        labels: {},
        uses,
        expiresAtMs,
        catalogueRootSha256: sha256Hex(rootFile),
        regionRootSha256: sha256Hex(regionFile),
      };
    },

    release: catalogue.release,
    raiseFloor: catalogue.raiseFloor,
    rotate: catalogue.rotate,

    assign: (deviceId, assigned, changes = {}) => {
      epoch += 1;
      lastAssigned = assigned;
      return {
        schemaVersion: 1,
        deviceId,
        region,
        epoch,
        issuedAtMs: clock.wall(),
        expiresAtMs: clock.wall() + dayMs,
        labels: { site: 'a' },
        releases: assigned,
        telemetry: null,
        authoritiesSha256: null,
        ...changes,
      };
    },

    timeSigner: catalogue.time,
    commandSigner: catalogue.command,
    brokerClock: null,
    strangerAuthority: async () => (await newAuthority('stranger')).certificatePem,
    certificateOf: (seed, deviceId = '') => {
      const publicKey = seed === null ? devices.get(deviceId)?.publicKey : publicKeyOf(seed);
      if (publicKey === undefined) throw new Error(`no device ${deviceId}`);
      const ofDevice = deviceIdOf(publicKey);
      return issueDeviceCertificate({ ca: issuing(), deviceId: ofDevice, publicKey, ...self.certificates });
    },
    assigned: () => lastAssigned,

    sign: (assignment, signer = catalogue.director()) => signAssignment(assignment, signer),

    publishDesired: async (deviceId, envelope) => {
      const topic = deviceTopic(region, deviceId, 'desired');
      const body = encodeMessage({ ...head(), envelope });
      retained.set(topic, body);
      await bus().publish(topic, body, { qos: 1, retain: true });
    },

    ring: async () => {
      const timestamp = files.get('timestamp.json');
      if (timestamp) await bus().publish(tufTimestampTopic(region), timestamp, { qos: 1, retain: true });
    },

    ringWith: (bytes) => bus().publish(tufTimestampTopic(region), bytes, { qos: 1, retain: false }),

    connected: () => broker?.connectedDevices() ?? [],
    disconnect: (deviceId) => bus().disconnect(deviceId),

    stop: async () => {
      const ending = broker;
      broker = null;
      await ending?.close();
    },

    start: async () => {
      broker = await startBroker({
        host: '127.0.0.1',
        port,
        tls: { key: pkcs8PemFromSeed(serverSeed), cert: serverCert, ca: pems().join('') },
        region,
        log,
        clock: self.brokerClock ?? clock,
        mayConnect: (identity) =>
          identity.kind === 'claim' ||
          (devices.has(identity.deviceId) && (self.tamper.mayConnect?.(identity.deviceId) ?? true)),
        onRefused: (refusal) => self.refused.push(refusal),
        onConnected: () => undefined,
        onDisconnected: () => undefined,
      });
      port = broker.port;
      for (const [topic, body] of retained) await broker.bus.publish(topic, body, { qos: 1, retain: true });
      await self.ring();
      await broker.bus.subscribe(everyEnrolRequestFilter(region), (message) => {
        run(answerEnrolment(message.topic, message.payload));
      });
      await broker.bus.subscribe(everyDeviceFilter(region, 'fetch'), (message) => {
        run(answerFetch(deviceOf(message.topic), message.payload));
      });
      for (const channel of ['time', 'renew', 'result'] as const) {
        await broker.bus.subscribe(everyDeviceFilter(region, channel), (message) => {
          run(trust.answer(channel, deviceOf(message.topic), message.payload));
        });
      }
      await broker.bus.subscribe(everyDeviceFilter(region, 'presence'), (message) => {
        self.presence.push(unwrap(parseMessage(presenceSchema, message.payload)).online);
      });
      await broker.bus.subscribe(everyDeviceFilter(region, 'reported'), (message) => {
        const deviceId = deviceOf(message.topic);
        const device = devices.get(deviceId);
        if (device === undefined) return;
        const { envelope } = unwrap(parseMessage(signedMessageSchema, message.payload));
        const { publicKey, lastCounter } = device;
        const report = unwrap(
          checkReport({
            envelope,
            devicePublicKey: publicKey,
            deviceId,
            last: { ...noReportYet, counter: lastCounter },
          }),
        );
        device.lastCounter = report.counter;
        self.reports.push(report);
      });
    },
  };
  const trust = trustAnswers({
    catalogue,
    region,
    clock,
    tamper: () => self.tamper,
    authorities: pems,
    issue: (deviceId, publicKey) =>
      issueDeviceCertificate({ ca: issuing(), deviceId, publicKey, ...self.certificates }),
    asked: self.asked,
    returned: self.returned,
    publish: (topic, body) => bus().publish(topic, body, { qos: 1, retain: false }),
  });
  await self.start();
  return self;
}

/** For tests that speak as somebody else. */
export function strangerSigner(): Signer {
  return newSigner();
}
