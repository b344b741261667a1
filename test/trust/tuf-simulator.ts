// Why: a TUF repository that tests may run into any state, served over real HTTP, with the key types that public
// repositories use. Made for these tests from the specification; shares no code with what is tested.
// Trusts: node:crypto. Must never: check anything itself, nor import shared/trust.

import {
  constants,
  createHash,
  generateKeyPairSync,
  type KeyObject,
  sign as nodeSign,
  type SignKeyObjectInput,
} from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Signed = Record<string, unknown>;

/** Keys in order of their code points, no space: for text without characters beyond U+FFFF. */
export function canonicalText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(',')}]`;
  if (typeof value === 'string') return `"${value.replace(/[\\"]/g, '\\$&')}"`;
  if (value === null || typeof value !== 'object') return String(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${canonicalText(key)}:${canonicalText(member)}`).join(',')}}`;
}

export const digest = (algorithm: string, bytes: Uint8Array | string): string =>
  createHash(algorithm).update(bytes).digest('hex');

export interface WireKey {
  keytype: string;
  scheme: string;
  keyval: { public: string };
  [more: string]: unknown;
}

export interface SimKey {
  id: string;
  wire: WireKey;
  sign(message: Uint8Array): string;
}

export type KeyKind = 'ed25519' | 'ecdsa' | 'ecdsa-legacy' | 'ecdsa-p384' | 'rsa-pss' | 'rsa-pkcs1';

interface KeyShape {
  make(): { publicKey: KeyObject; privateKey: KeyObject };
  keytype: string;
  scheme: string;
  digest: string | null;
  options?: Omit<SignKeyObjectInput, 'key'>;
}

const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const shapes: Record<KeyKind, KeyShape> = {
  ed25519: {
    make: () => generateKeyPairSync('ed25519'),
    keytype: 'ed25519',
    scheme: 'ed25519',
    digest: null,
  },
  ecdsa: { make: p256, keytype: 'ecdsa', scheme: 'ecdsa-sha2-nistp256', digest: 'sha256' },
  'ecdsa-legacy': {
    make: p256,
    keytype: 'ecdsa-sha2-nistp256',
    scheme: 'ecdsa-sha2-nistp256',
    digest: 'sha256',
  },
  'ecdsa-p384': {
    make: () => generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    keytype: 'ecdsa',
    scheme: 'ecdsa-sha2-nistp384',
    digest: 'sha384',
  },
  'rsa-pss': {
    make: rsa,
    keytype: 'rsa',
    scheme: 'rsassa-pss-sha256',
    digest: 'sha256',
    options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 },
  },
  'rsa-pkcs1': {
    make: rsa,
    keytype: 'rsa',
    scheme: 'rsa-pkcs1v15-sha256',
    digest: 'sha256',
    options: { padding: constants.RSA_PKCS1_PADDING },
  },
};

function publicText(kind: KeyKind, key: KeyObject): string {
  if (kind !== 'ed25519') return key.export({ type: 'spki', format: 'pem' }).toString();
  return Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url').toString('hex');
}

export function keyId(wire: WireKey): string {
  return digest('sha256', canonicalText(wire));
}

/** A new key; `more` are fields that stand beside those of the specification. */
export function newKey(kind: KeyKind = 'ecdsa', more: Record<string, unknown> = {}): SimKey {
  const shape = shapes[kind];
  const { publicKey, privateKey } = shape.make();
  const wire: WireKey = {
    keytype: shape.keytype,
    scheme: shape.scheme,
    keyval: { public: publicText(kind, publicKey) },
    ...more,
  };
  return {
    id: keyId(wire),
    wire,
    sign: (message) => nodeSign(shape.digest, message, { key: privateKey, ...shape.options }).toString('hex'),
  };
}

/** The same physical key under another id. */
export function sameKey(key: SimKey, more: Partial<WireKey>): SimKey {
  const wire = { ...key.wire, ...more };
  return { ...key, wire, id: keyId(wire) };
}

export function encode(signed: Signed, signers: readonly SimKey[]): Buffer {
  const message = Buffer.from(canonicalText(signed));
  const signatures = signers.map((key) => ({ keyid: key.id, sig: key.sign(message) }));
  return Buffer.from(JSON.stringify({ signatures, signed }));
}

/** Changes a published file without signing it again. */
export function edited(
  bytes: Uint8Array,
  change: (file: { signatures: { keyid: string; sig: string }[]; signed: Signed }) => void,
): Buffer {
  const file = JSON.parse(Buffer.from(bytes).toString()) as Parameters<typeof change>[0];
  change(file);
  return Buffer.from(JSON.stringify(file));
}

export const tufDate = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`;

export interface WireRole {
  keyids: string[];
  threshold: number;
  [more: string]: unknown;
}

export interface WireDelegation {
  keyids: string[];
  threshold: number;
  name: string;
  terminating: boolean;
  paths?: string[];
  path_hash_prefixes?: string[];
}

export interface WireTarget {
  length: number;
  hashes: Record<string, string>;
  custom?: unknown;
}

/** The signed part of any role. */
interface Words extends Signed {
  version: number;
  expires: string;
}

interface TargetsWords extends Words {
  targets: Record<string, WireTarget>;
  delegations?: { keys: Record<string, WireKey>; roles: WireDelegation[] };
}

interface RootWords extends Words {
  consistent_snapshot: boolean;
  keys: Record<string, WireKey>;
  roles: Record<string, WireRole>;
}

interface MetaWords extends Words {
  meta: Record<string, { version: number; length?: number; hashes?: Record<string, string> }>;
}

export const dayMs = 86_400_000;
const online = ['root', 'timestamp', 'snapshot', 'targets'] as const;

/** Change the words of a role, then publish what it concerns, in the order targets, snapshot, timestamp. */
export class TufSimulator {
  readonly roles = new Map<string, Words>();
  readonly signers = new Map<string, SimKey[]>();
  /** By role; version N is served as the N-th. */
  readonly published = new Map<string, Buffer[]>();
  /** What is served for a target, whatever the metadata says. */
  readonly artifacts = new Map<string, Buffer>();
  /** Whether files are listed with length and digest. */
  listsHashes = false;
  /** Paths as they came over the wire, below `/metadata/` and `/targets/`. */
  requests: string[] = [];
  readonly kind: KeyKind;
  readonly expiresAtMs: number;

  constructor(kind: KeyKind = 'ecdsa', expiresAtMs = Date.now() + 30 * dayMs) {
    this.kind = kind;
    this.expiresAtMs = expiresAtMs;
    this.roles.set('root', this.words('root', { consistent_snapshot: true, keys: {}, roles: {} }));
    this.roles.set('timestamp', this.words('timestamp', { meta: { 'snapshot.json': { version: 1 } } }));
    this.roles.set('snapshot', this.words('snapshot', { meta: {} }));
    this.roles.set('targets', this.words('targets', { targets: {} }));
    for (const role of online) {
      this.root.roles[role] = { keyids: [], threshold: 1 };
      this.addKey(role);
    }
    this.publish('targets', 'snapshot', 'timestamp', 'root');
  }

  words(type: string, more: Signed): Words {
    const head = { _type: type, spec_version: '1.0.31', version: 1, expires: tufDate(this.expiresAtMs) };
    return { ...head, ...more };
  }

  role(name: string): Words {
    const found = this.roles.get(name);
    if (found === undefined) throw new Error(`no role ${name}`);
    return found;
  }

  get root(): RootWords {
    return this.role('root') as RootWords;
  }

  get snapshot(): MetaWords {
    return this.role('snapshot') as MetaWords;
  }

  get timestamp(): MetaWords {
    return this.role('timestamp') as MetaWords;
  }

  targetsOf(name: string): TargetsWords {
    return this.role(name) as TargetsWords;
  }

  expire(role: string, atMs: number): void {
    this.role(role).expires = tufDate(atMs);
  }

  /** A key for a top-level role, named in the root and signing from now on. */
  addKey(role: string, key: SimKey = newKey(this.kind)): SimKey {
    this.root.keys[key.id] = key.wire;
    this.root.roles[role]?.keyids.push(key.id);
    this.signers.set(role, [...(this.signers.get(role) ?? []), key]);
    return key;
  }

  rotate(role: string): void {
    const wire = this.root.roles[role];
    if (wire !== undefined) wire.keyids = [];
    this.signers.set(role, []);
    this.addKey(role);
  }

  /** A delegation with a key of its own, last in its delegator's order. */
  delegate(delegator: string, role: Omit<WireDelegation, 'keyids'>, key: SimKey = newKey(this.kind)): SimKey {
    const from = this.targetsOf(delegator);
    from.delegations ??= { keys: {}, roles: [] };
    from.delegations.keys[key.id] = key.wire;
    from.delegations.roles.push({ ...role, keyids: [key.id] });
    if (!this.roles.has(role.name)) this.roles.set(role.name, this.words('targets', { targets: {} }));
    this.signers.set(role.name, [...(this.signers.get(role.name) ?? []), key]);
    return key;
  }

  addTarget(role: string, path: string, content: string, algorithms: string[] = ['sha256']): void {
    const bytes = Buffer.from(content);
    const hashes = Object.fromEntries(algorithms.map((name) => [name, digest(name, bytes)]));
    this.targetsOf(role).targets[path] = { length: bytes.length, hashes };
    this.artifacts.set(path, bytes);
  }

  /** Signs and serves the next version of each; lists it where it is listed. */
  publish(...names: string[]): void {
    for (const name of names) {
      const signed = this.role(name);
      const before = this.published.get(name);
      if (before !== undefined) signed.version += 1;
      const bytes = encode(signed, this.signers.get(name) ?? []);
      this.published.set(name, [...(before ?? []), bytes]);
      const listing = {
        version: signed.version,
        ...(this.listsHashes ? { length: bytes.length, hashes: { sha256: digest('sha256', bytes) } } : {}),
      };
      if (name === 'snapshot') this.timestamp.meta['snapshot.json'] = listing;
      else if (name !== 'root' && name !== 'timestamp') this.snapshot.meta[`${name}.json`] = listing;
    }
  }

  /** Everything but the root. */
  publishAll(...delegated: string[]): void {
    this.publish(...delegated, 'targets', 'snapshot', 'timestamp');
  }

  latest(name: string): Buffer {
    const bytes = this.published.get(name)?.at(-1);
    if (bytes === undefined) throw new Error(`${name} was not published`);
    return bytes;
  }

  /** Replaces the last published bytes of a role. */
  replace(name: string, change: (bytes: Buffer) => Buffer): void {
    const all = this.published.get(name) ?? [];
    this.published.set(name, [...all.slice(0, -1), change(this.latest(name))]);
  }

  /** The file of a name as it is asked for, decoded. */
  file(name: string): Buffer | null {
    const isVersioned = this.root.consistent_snapshot || /^\d+\.root\.json$/.test(name);
    if (name === 'timestamp.json') return this.published.get('timestamp')?.at(-1) ?? null;
    if (!isVersioned) return this.published.get(name.replace(/\.json$/, ''))?.at(-1) ?? null;
    const match = /^(\d+)\.(.*)\.json$/s.exec(name);
    return this.published.get(match?.[2] ?? '')?.[Number(match?.[1]) - 1] ?? null;
  }

  target(path: string): Buffer | null {
    const parts = path.split('/');
    const name = parts.pop() ?? '';
    if (!this.root.consistent_snapshot) return this.artifacts.get(path) ?? null;
    return this.artifacts.get([...parts, name.slice(name.indexOf('.') + 1)].join('/')) ?? null;
  }
}

export interface Served {
  metadataUrl: string;
  targetsUrl: string;
  close(): Promise<void>;
}

export type Answer = (path: string, response: ServerResponse) => boolean;

/** Serves a repository on 127.0.0.1. `answer` may take a request over. */
export async function serve(repository: TufSimulator, answer: Answer = () => false): Promise<Served> {
  const server: Server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const path = (request.url ?? '').replace(/^\/repo%20a\//, '');
    repository.requests.push(path);
    if (answer(path, response)) return;
    const [kind = '', ...rest] = path.split('/');
    const decoded = rest.map(decodeURIComponent).join('/');
    const bytes = kind === 'metadata' ? repository.file(decoded) : repository.target(decoded);
    response.writeHead(bytes === null ? 404 : 200, { connection: 'close' });
    response.end(bytes ?? 'none');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/repo%20a`;
  return {
    metadataUrl: `${base}/metadata/`,
    targetsUrl: `${base}/targets/`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
