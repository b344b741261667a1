// Why: what the tests of the registry's core share: a clock they turn, a model small enough to write by hand.
// Trusts: nothing. Must never: stand in for a part that is under test.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AdmissionTerms } from '../../registry/catalog/admit.ts';
import { type Blobs, openBlobs } from '../../registry/catalog/blobs.ts';
import { createReleases, type Releases } from '../../registry/catalog/releases.ts';
import { openRegionPolicies, type PolicyDesk } from '../../registry/policy/region-policies.ts';
import { createReleaseAdmission } from '../../registry/policy/release-admission.ts';
import { type Keyring, openKeyring } from '../../registry/signing/keys.ts';
import { type CatalogueRepository, openRepository } from '../../registry/signing/repository.ts';
import { openRegistryStore, type RegistryStore } from '../../registry/store/open.ts';
import type { JsonValue } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { formatReleaseId, parseReleaseId } from '../../shared/kernel/releases.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';

export const dayMs = 86_400_000;

export interface TurnedClock extends Clock {
  advance(ms: number): void;
}

/** A clock that stands still until it is advanced; due timers fire then. */
export function turnedClock(startMs = Date.UTC(2026, 0, 1)): TurnedClock {
  let now = startMs;
  let timers: { at: number; fire: () => void }[] = [];
  return {
    wall: () => now,
    mono: () => now - startMs,
    timer(ms) {
      let fire: () => void = () => undefined;
      const done = new Promise<void>((resolve) => {
        fire = resolve;
      });
      const entry = { at: now + ms, fire };
      timers.push(entry);
      return {
        done,
        cancel: () => {
          timers = timers.filter((one) => one !== entry);
        },
      };
    },
    advance(ms) {
      now += ms;
      const due = timers.filter((one) => one.at <= now);
      timers = timers.filter((one) => one.at > now);
      for (const one of due) one.fire();
    },
  };
}

/** The same bytes in every run: SHA-256 of a counter. */
export function countedEntropy(name: string): Entropy {
  let drawn = 0;
  const block = (): Uint8Array =>
    new Uint8Array(Buffer.from(sha256Hex(Buffer.from(`${name} ${drawn++}`)), 'hex'));
  return {
    u32: () => new DataView(block().buffer).getUint32(0),
    bytes(n) {
      const bytes = new Uint8Array(n);
      for (let at = 0; at < n; at += 32) bytes.set(block().subarray(0, n - at), at);
      return bytes;
    },
  };
}

export interface HeardLog extends Log {
  events: { event: LogEvent; fields: Record<string, unknown> }[];
}

export function heardLog(): HeardLog {
  const events: HeardLog['events'] = [];
  return { events, emit: (_level, event, fields = {}) => events.push({ event, fields }) };
}

/** A folder that goes away with the test. */
/** A test, or whoever else ends what was opened for it. */
export interface Ending {
  after(end: () => unknown): void;
}

export function temporaryFolder(t: Ending): string {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-registry-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Bench {
  /** Of keys and blobs. */
  folder: string;
  clock: TurnedClock;
  log: HeardLog;
  store: RegistryStore;
  keyring: Keyring;
  repository: CatalogueRepository;
  blobs: Blobs;
  releases: Releases;
  policies: PolicyDesk;
}

export interface BenchOptions {
  /** Everything is kept there, the database too; absent: a folder that goes away, the database in memory. */
  folder?: string;
  clock?: TurnedClock;
  /** How pushed models are judged; blobs lie in this folder. Absent: they are only read. */
  admission?: (blobFolder: string) => AdmissionTerms;
  /** Names what is drawn by chance: two registries on one folder, one after the other, draw differently. */
  chance?: string;
}

/** The registry's core without its shell. */
export async function bench(t: Ending, options: BenchOptions = {}): Promise<Bench> {
  const folder = options.folder ?? temporaryFolder(t);
  const clock = options.clock ?? turnedClock();
  const log = heardLog();
  const entropy = countedEntropy(options.chance ?? 'bench');
  const store = await openRegistryStore(
    options.folder === undefined ? ':memory:' : join(folder, 'registry.sqlite'),
  );
  t.after(() => store.close());
  const region = 'test';
  const keyring = await openKeyring({
    disk: openDisk(join(folder, 'keys')),
    mayCreate: true,
    region,
    hosts: ['localhost'],
    clock,
    entropy,
    log,
  });
  const repository = await openRepository({ store, keyring, region, clock, log });
  const blobs = await openBlobs({ disk: openDisk(join(folder, 'blobs')), entropy });
  const policies = await openRegionPolicies({ store, region, keyring, clock, log });
  return {
    folder,
    clock,
    log,
    store,
    keyring,
    repository,
    blobs,
    policies,
    releases: createReleases({
      ...{ store, repository, blobs, clock, log },
      policy: createReleaseAdmission({ blobs, policies }),
      admission: options.admission?.(join(folder, 'blobs')) ?? {},
    }),
  };
}

export function publisherKey(name: string): Signer {
  return signerFromSeed(countedEntropy(`publisher ${name}`).bytes(32), 'tweetnacl');
}

export function hexOf(signer: Signer): string {
  return Buffer.from(signer.publicKey).toString('hex');
}

/** ValueInfoProto of a float tensor with one free dimension; `elemType` as in TensorProto.DataType. */
function valueInfo(name: string, elemType: number): ProtobufWriter {
  const shape = new ProtobufWriter().message(1, new ProtobufWriter().string(2, 'n'));
  const tensor = new ProtobufWriter().int(1, elemType).message(2, shape);
  return new ProtobufWriter().string(1, name).message(2, new ProtobufWriter().message(1, tensor));
}

/** ONNX ModelProto `y = Identity(x)`; `note` makes its bytes its own. */
export function identityModel(note: string, elemType = 1): Uint8Array {
  const node = new ProtobufWriter().string(1, 'x').string(2, 'y').string(4, 'Identity');
  const graph = new ProtobufWriter()
    .message(1, node)
    .string(2, 'identity')
    .message(11, valueInfo('x', elemType))
    .message(12, valueInfo('y', elemType));
  return new ProtobufWriter()
    .int(1, 8)
    .string(6, note)
    .message(7, graph)
    .message(8, new ProtobufWriter().int(2, 13))
    .finish();
}

export async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export interface PreparedPush {
  releaseId: string;
  metadata: Uint8Array;
  manifest: Uint8Array;
  pushedBy: string;
  model: Uint8Array;
}

/** What a publisher's machine makes of a release: manifest and the namespace's next metadata. */
export function preparePush(input: {
  releaseId: string;
  model: Uint8Array;
  current: Uint8Array | null;
  counter: number;
  signers: Signer[];
  expiresAtMs: number;
  manifest?: object;
  /** `custom.requires` as it is signed. */
  requires?: JsonValue;
  versionFloor?: number;
}): PreparedPush {
  const release = parseReleaseId(input.releaseId);
  if (release === null) throw new Error(`not a release id: ${input.releaseId}`);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 1,
      name: `${release.namespace}/${release.name}`,
      version: release.version,
      files: [
        { path: 'model.onnx', role: 'model', sha256: sha256Hex(input.model), bytes: input.model.length },
      ],
      ...input.manifest,
    }),
  );
  const metadata = unwrap(
    nextPublisherTargets({
      namespace: release.namespace,
      current: input.current,
      add: [
        {
          release,
          entry: {
            bytes: manifest.length,
            sha256: sha256Hex(manifest),
            counter: input.counter,
            requires: input.requires ?? null,
          },
        },
      ],
      expiresAtMs: input.expiresAtMs,
      signers: input.signers,
      versionFloor: input.versionFloor ?? 0,
    }),
  );
  return { releaseId: formatReleaseId(release), metadata, manifest, pushedBy: 'tester', model: input.model };
}
