// Why: a registry as small as the wire allows, on the real broker and the real trust chain, which can also
// lie, corrupt and vanish. Trusts: shared/trust and registry/broker. Must never: be better than the real one.

import { type Broker, type BrokerRefusal, startBroker } from '../../registry/broker/broker.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { publicKeyOf, type Signer } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import {
  issueClaimCertificate,
  issueDeviceCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
  readDeviceRequest,
} from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Log } from '../../shared/kernel/ports.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
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
import { newSigner, testCatalogue } from './test-catalogue.ts';

export const region = 'test';
const dayMs = 86_400_000;
const frameBytes = 16 * 1024;

export interface StandIn {
  readonly refused: BrokerRefusal[];
  readonly reports: Report[];
  readonly presence: boolean[];
  /** Fetch requests, as `blob <sha256> <offset>` or `metadata <name>`. */
  readonly fetches: string[];
  /** Public keys that asked to be enrolled, hex, in the order of their requests. */
  readonly enrolRequests: string[];
  /** Changes an answer before it is sent; for lies and losses. */
  tamper: {
    frame?: (target: string, frame: Uint8Array, deviceId: string) => Uint8Array | null;
    enrolReply?: (result: Record<string, unknown>) => Record<string, unknown> | null;
    mayConnect?: (deviceId: string) => boolean;
    /** Everything this device may fetch, metadata by name and blobs by digest, in the place of the stand-in's own. */
    files?: (deviceId: string) => ReadonlyMap<string, Uint8Array> | undefined;
  };
  url(): string;
  claim(options?: { expired?: boolean; uses?: number }): Promise<ClaimFile>;
  /** Adds a release with these files; returns what a director would assign. */
  release(id: string, files: { role: string; path: string; bytes: Uint8Array }[]): AssignedRelease;
  raiseFloor(model: string, counter: number): void;
  assign(deviceId: string, releases: AssignedRelease[], changes?: Partial<Assignment>): Assignment;
  /** Publishes any envelope as the retained `desired` of the device. */
  publishDesired(deviceId: string, envelope: Envelope): Promise<void>;
  sign(assignment: Assignment, signer?: Signer): Envelope;
  /** From now on another key is the director's. */
  rotateDirector(): void;
  ring(): Promise<void>;
  connected(): string[];
  disconnect(deviceId: string): Promise<void>;
  /** Breaks the line; `start` opens the same port again. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

const seedOf = (): Uint8Array => systemEntropy.bytes(32);
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const head = () => ({ schemaVersion: 1 as const, messageId: 'stand-in', sentAtMs: Date.now() });

export async function standIn(log: Log): Promise<StandIn> {
  const now = Date.now();
  const validity = { notBeforeMs: now - dayMs, notAfterMs: now + 30 * dayMs };
  const caSeed = seedOf();
  const caPem = await makeCertificateAuthority({ seed: caSeed, name: 'fleet CA', ...validity });
  const ca = { certificatePem: caPem, seed: caSeed };
  const serverSeed = seedOf();
  const serverCert = await issueServerCertificate({
    ca,
    seed: serverSeed,
    hosts: ['127.0.0.1', 'localhost'],
    ...validity,
  });

  const catalogue = testCatalogue(region, now + 7 * dayMs);
  const { files, blobs, rootFile, regionFile, expiresAtMs } = catalogue;

  const devices = new Map<string, { publicKey: Uint8Array; certificate: string; lastCounter: number }>();
  const claims = new Map<string, { expired: boolean; usesLeft: number }>();
  const retained = new Map<string, Uint8Array>();
  let epoch = 0;
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
        const certificate = await issueDeviceCertificate({ ca, deviceId, publicKey, ...validity });
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
    const name = target.kind === 'blob' ? target.sha256 : target.kind === 'metadata' ? target.name : '';
    self.fetches.push(target.kind === 'blob' ? `blob ${name} ${request.offset}` : `metadata ${name}`);
    const hostile = self.tamper.files?.(deviceId);
    const own = target.kind === 'blob' ? blobs.get(name) : files.get(name);
    const whole = hostile === undefined ? own : hostile.get(name);
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
    enrolRequests: [],
    tamper: {},
    url: () => `mqtts://127.0.0.1:${port}`,

    claim: async ({ expired = false, uses = 1 } = {}) => {
      const claimId = Buffer.from(systemEntropy.bytes(10)).toString('hex');
      claims.set(claimId, { expired, usesLeft: uses });
      const seed = seedOf();
      const certificate = await issueClaimCertificate({
        ca,
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
        fleetCa: caPem,
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
    rotateDirector: catalogue.rotateDirector,

    assign: (deviceId, assigned, changes = {}) => {
      epoch += 1;
      return {
        schemaVersion: 1,
        deviceId,
        region,
        epoch,
        issuedAtMs: Date.now(),
        expiresAtMs: Date.now() + dayMs,
        labels: { site: 'a' },
        releases: assigned,
        telemetry: null,
        authoritiesSha256: null,
        ...changes,
      };
    },

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
        tls: { key: pkcs8PemFromSeed(serverSeed), cert: serverCert, ca: caPem },
        region,
        log,
        clock: systemClock,
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
  await self.start();
  return self;
}

/** For tests that speak as somebody else. */
export function strangerSigner(): Signer {
  return newSigner();
}
