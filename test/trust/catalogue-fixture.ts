// Why: a small TUF repository in memory whose every file a test can replace, withhold or forge.
// Trusts: shared/trust for making files. Must never: check anything itself; that is what is being tested.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type MetadataFetcher, refreshCatalogue, type TrustState } from '../../shared/trust/tuf/client.ts';
import {
  type CatalogueRole,
  describeFile,
  type MetaFile,
  makeRoot,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  type RoleSpec,
  type TargetEntry,
} from '../../shared/trust/tuf/repository.ts';

export const nowMs = 1_800_000_000_000;
export const dayMs = 86_400_000;

const signers = new Map<string, Signer>();

/** A signer whose key is made of its name; made once, tweetnacl takes its time. */
export function signerNamed(name: string): Signer {
  const seed = new Uint8Array(32);
  seed.set(new TextEncoder().encode(name).subarray(0, 32));
  const signer = signers.get(name) ?? signerFromSeed(seed, 'node');
  signers.set(name, signer);
  return signer;
}

export function role(threshold: number, ...signers: Signer[]): RoleSpec {
  return { keys: signers.map((signer) => signer.publicKey), threshold };
}

export function entry(counter: number, bytes = 100): TargetEntry {
  return { sha256: counter.toString(16).padStart(64, 'a'), bytes, counter, requires: { opset: 17 } };
}

export type Roles = Record<CatalogueRole, RoleSpec>;

/** A repository; change a field, then publish what it concerns. */
export class Repository {
  readonly files = new Map<string, Uint8Array>();
  rootSigners = ['root-1', 'root-2', 'root-3'].map(signerNamed);
  timestampSigner = signerNamed('timestamp');
  snapshotSigner = signerNamed('snapshot');
  targetsSigner = signerNamed('targets');
  publishers = new Map([
    ['acme', signerNamed('acme')],
    ['beta', signerNamed('beta')],
  ]);
  readonly releases = new Map([
    ['acme', new Map([['acme/detector/1.0.0', entry(1)]])],
    ['beta', new Map([['beta/voice/1.0.0', entry(1)]])],
  ]);
  readonly floors = new Map<string, Map<string, number>>();
  readonly versions = new Map<string, number>();
  expiresAtMs = nowMs + 7 * dayMs;
  firstRoot = new Uint8Array();

  constructor() {
    this.publishRoot();
    this.publishTargets();
    for (const namespace of this.publishers.keys()) this.publishNamespace(namespace);
    this.publishSnapshot();
  }

  next(name: string): number {
    const version = (this.versions.get(name) ?? 0) + 1;
    this.versions.set(name, version);
    return version;
  }

  roles(): Roles {
    return {
      root: role(2, ...this.rootSigners),
      timestamp: role(1, this.timestampSigner),
      snapshot: role(1, this.snapshotSigner),
      targets: role(1, this.targetsSigner),
    };
  }

  /** Signed by the present root keys and by `alsoBy`, the keys before a rotation. */
  publishRoot(alsoBy: readonly Signer[] = [], roles: Roles = this.roles()): Uint8Array {
    const version = this.next('root');
    const signers = [...new Set([...this.rootSigners, ...alsoBy])];
    const bytes = makeRoot({ version, expiresAtMs: this.expiresAtMs, roles, signers });
    this.files.set(`${version}.root.json`, bytes);
    if (version === 1) this.firstRoot = new Uint8Array(bytes);
    return bytes;
  }

  publishTargets(): Uint8Array {
    const version = this.next('targets');
    const delegations = [...this.publishers].map(([namespace, signer]) => ({
      namespace,
      ...role(1, signer),
    }));
    const bytes = makeTargets({
      version,
      expiresAtMs: this.expiresAtMs,
      delegations,
      signers: [this.targetsSigner],
    });
    this.files.set(`${version}.targets.json`, bytes);
    return bytes;
  }

  publishNamespace(namespace: string): Uint8Array {
    const version = this.next(namespace);
    const bytes = makeTargets({
      version,
      expiresAtMs: this.expiresAtMs,
      targets: this.releases.get(namespace) ?? new Map(),
      floors: this.floors.get(namespace) ?? new Map(),
      signers: [this.publishers.get(namespace) ?? signerNamed(namespace)],
    });
    this.files.set(`${version}.${namespace}.json`, bytes);
    return bytes;
  }

  current(name: string): Uint8Array {
    const bytes = this.files.get(`${this.versions.get(name)}.${name}.json`);
    if (bytes === undefined) throw new Error(`no ${name} was published`);
    return bytes;
  }

  /** Makes a snapshot of the current files, then its timestamp; `change` may list what is not there. */
  publishSnapshot(change: (files: Map<string, MetaFile>) => void = () => undefined): Uint8Array {
    const files = new Map<string, MetaFile>();
    for (const name of ['targets', ...this.publishers.keys()]) {
      const bytes = this.current(name);
      files.set(`${name}.json`, {
        version: this.versions.get(name) ?? 0,
        bytes: bytes.length,
        sha256: sha256Hex(bytes),
      });
    }
    change(files);
    const version = this.next('snapshot');
    const bytes = makeSnapshot({
      version,
      expiresAtMs: this.expiresAtMs,
      files,
      signers: [this.snapshotSigner],
    });
    this.files.set(`${version}.snapshot.json`, bytes);
    this.publishTimestamp(describeFile(bytes));
    return bytes;
  }

  publishTimestamp(snapshot: MetaFile = describeFile(this.current('snapshot'))): Uint8Array {
    const version = this.next('timestamp');
    const bytes = makeTimestamp({
      version,
      expiresAtMs: this.expiresAtMs,
      snapshot,
      signers: [this.timestampSigner],
    });
    this.files.set('timestamp.json', bytes);
    return bytes;
  }

  /** A new release in a namespace, through snapshot and timestamp. */
  release(path: string, counter: number): void {
    const namespace = path.split('/')[0] ?? '';
    this.releases.get(namespace)?.set(path, entry(counter));
    this.publishNamespace(namespace);
    this.publishSnapshot();
  }
}

/** A device: its state and what it asked for. */
export class Device {
  state: TrustState;
  asked: string[] = [];
  savedRoots: Uint8Array[] = [];

  constructor(root: Uint8Array) {
    this.state = { root, timestamp: null, snapshot: null, targets: null, delegated: {} };
  }

  /** One refresh against these files; the state moves only where it succeeds, as a store would. */
  async refresh(
    files: ReadonlyMap<string, Uint8Array> | MetadataFetcher['fetch'],
    options: { nowMs?: number; namespaces?: string[] } = {},
  ): Promise<Result<TrustState>> {
    const serve = typeof files === 'function' ? files : fetchFrom(files);
    this.asked = [];
    const result = await refreshCatalogue({
      state: this.state,
      fetcher: {
        fetch: (name, bytesMax) => {
          this.asked.push(name);
          return serve(name, bytesMax);
        },
      },
      nowMs: options.nowMs ?? nowMs,
      namespaces: options.namespaces ?? ['acme', 'beta'],
      saveRoot: async (root) => {
        this.savedRoots.push(root);
        this.state = { ...this.state, root };
      },
    });
    if (result.ok) this.state = result.value;
    return result;
  }
}

export function fetchFrom(files: ReadonlyMap<string, Uint8Array>): MetadataFetcher['fetch'] {
  return async (name) => {
    const bytes = files.get(name);
    return bytes === undefined ? refuse('metadata-missing', name) : ok(bytes);
  };
}

export function codeOf(result: Result<unknown>): string {
  return result.ok ? 'ok' : result.refusal.code;
}

/** A file as JSON, to be changed and written back. */
export interface OpenFile {
  signatures: { keyid: string; sig: string }[];
  signed: Record<string, unknown>;
}

/** Changes the signed part (or the signatures) and, where signers are given, signs again with them. */
export function forge(
  bytes: Uint8Array,
  change: (file: OpenFile) => void,
  signers: readonly Signer[] = [],
): Uint8Array {
  const file: OpenFile = JSON.parse(new TextDecoder().decode(bytes));
  change(file);
  if (signers.length > 0) {
    const message = Buffer.from(canonical(file.signed), 'utf8');
    file.signatures = signers.map((signer) => ({
      keyid: signer.keyId,
      sig: Buffer.from(signer.sign(message)).toString('hex'),
    }));
  }
  return new TextEncoder().encode(JSON.stringify(file));
}

/** Canonical JSON written once more, for ASCII strings, so that forging does not depend on what is tested. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(',')}}`;
}

/** The id of a key object, whatever stands in it (TUF 1.0.34 §4.2.1). */
export function wireKeyId(key: object): string {
  return sha256Hex(Buffer.from(canonical(key), 'utf8'));
}

/** A repository and a device that has refreshed once. */
export async function settled(): Promise<{ repository: Repository; device: Device }> {
  const repository = new Repository();
  const device = new Device(repository.firstRoot);
  assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
  return { repository, device };
}
