// Why: a TUF repository whose every byte an attacker may choose: all keys are at hand, and a file may say anything.
// Trusts: its own spelling of canonical JSON, written apart from the one that is tested.
// Must never: refuse to make a file; what is wrong with it is for the device to find.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed, tufKeyObject } from '../../shared/crypto/ed25519.ts';
import type { AssignedRelease } from '../../shared/wire/messages.ts';

export type Json = Record<string, unknown>;

export const dayMs = 86_400_000;

/** Time of the tests: the broker's certificates are real, so it is the present. Whole seconds, as TUF writes them. */
export const nowMs = Math.floor(Date.now() / 1_000) * 1_000;

const signers = new Map<string, Signer>();

/** A signer whose key is made of its name. */
export function signerNamed(name: string): Signer {
  const known = signers.get(name);
  if (known !== undefined) return known;
  const seed = new Uint8Array(Buffer.from(sha256Hex(new TextEncoder().encode(name)), 'hex'));
  const signer = signerFromSeed(seed, 'node');
  signers.set(name, signer);
  return signer;
}

export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
export const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const dateOf = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z');

/** The member of that name as an object. The caller knows the shape: it made it. */
export function inside(value: Json, ...path: (string | number)[]): Json {
  let at: unknown = value;
  for (const step of path) at = (at as Json)[step];
  return at as Json;
}

const spell = (value: string): string => `"${value.replace(/[\\"]/g, '\\$&')}"`;

/** Canonical JSON for the ASCII texts of these tests; what has no canonical form is spelled somehow. */
export function canonical(value: unknown): string {
  if (typeof value === 'string') return spell(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${spell(name)}:${canonical(member)}`).join(',')}}`;
}

export interface WireSignature {
  keyid: string;
  sig: string;
}

export function signatureOf(signer: Signer, signed: Json): WireSignature {
  return {
    keyid: signer.keyId,
    sig: Buffer.from(signer.sign(Buffer.from(canonical(signed), 'utf8'))).toString('hex'),
  };
}

/** How one file departs from what an honest repository would make. */
export interface Edit {
  /** Changes the signed part before it is signed. `version` and `expires` are set already. */
  change?: (signed: Json) => void;
  /** Who signs; the role's keys where absent. */
  signers?: readonly Signer[];
  /** Changes the list of signatures after signing. */
  signatures?: (list: WireSignature[], signed: Json) => void;
  /** Rewrites the text of the signed part. Signed is then what `JSON.parse` makes of it, a lenient reader's reading. */
  text?: (signedText: string) => string;
  /** Rewrites the whole file before it is listed. */
  bytes?: (file: Uint8Array) => Uint8Array;
  /** Changes how the file is listed above it. */
  listed?: (meta: Json) => void;
  /** Changes what is served under its name after it was listed. */
  served?: (file: Uint8Array) => Uint8Array;
  version?: number;
  expiresAtMs?: number;
  /** Leaves the files above it as they are. */
  alone?: boolean;
}

interface Role {
  keys: Signer[];
  threshold: number;
}

export function keyTable(...keys: Signer[]): Json {
  return Object.fromEntries(keys.map((key) => [key.keyId, tufKeyObject(key.publicKey)]));
}

const model = encode('not a model: the light host of these tests opens none');

/** An honest repository until something is changed; `fork` gives the attacker a copy with all its keys. */
export class HostileRepository {
  /** By the name under which it is fetched; blobs by their digest. */
  files = new Map<string, Uint8Array>();
  readonly roles: Record<string, Role>;
  /** The signed part of the newest file of each role. */
  signed: Record<string, Json> = {};
  /** Releases by target path, as a director would assign them. */
  assigned = new Map<string, AssignedRelease>();

  constructor(from?: HostileRepository) {
    if (from !== undefined) {
      this.files = new Map(from.files);
      this.roles = structuredCloneRoles(from.roles);
      this.signed = structuredClone(from.signed);
      this.assigned = new Map(from.assigned);
      return;
    }
    const one = (name: string): Role => ({ keys: [signerNamed(name)], threshold: 1 });
    this.roles = {
      root: { keys: ['root-1', 'root-2', 'root-3'].map(signerNamed), threshold: 2 },
      timestamp: one('timestamp'),
      snapshot: one('snapshot'),
      targets: one('targets'),
      acme: one('acme'),
      beta: { keys: ['beta-1', 'beta-2'].map(signerNamed), threshold: 2 },
    };
    const head = (type: string): Json => ({ _type: type, spec_version: '1.0.34', version: 0 });
    this.signed = {
      root: { ...head('root'), consistent_snapshot: true },
      timestamp: { ...head('timestamp'), meta: {} },
      snapshot: { ...head('snapshot'), meta: {} },
      targets: { ...head('targets'), targets: {} },
      acme: { ...head('targets'), targets: {} },
      beta: { ...head('targets'), targets: {} },
    };
    this.publishRoot();
    this.publish('targets', { change: (signed) => this.delegate(signed, 'acme', 'beta'), alone: true });
    this.addRelease('acme/detector/1.0.0');
    this.addRelease('beta/voice/1.0.0');
    this.publish('acme', { alone: true });
    this.publish('beta', { alone: true });
    this.list('targets');
    this.list('acme');
    this.list('beta');
    this.publish('snapshot');
  }

  fork(): HostileRepository {
    return new HostileRepository(this);
  }

  role(name: string): Role {
    const role = this.roles[name];
    if (role === undefined) throw new Error(`no role ${name}`);
    return role;
  }

  current(name: string): Json {
    const signed = this.signed[name];
    if (signed === undefined) throw new Error(`no ${name} was published`);
    return signed;
  }

  version(name: string): number {
    return Number(this.current(name)['version']);
  }

  fileName(name: string, version = this.version(name)): string {
    return name === 'timestamp' ? 'timestamp.json' : `${version}.${name}.json`;
  }

  bytes(name: string): Uint8Array {
    const bytes = this.files.get(this.fileName(name));
    if (bytes === undefined) throw new Error(`no file ${this.fileName(name)}`);
    return bytes;
  }

  /** Writes the delegations of these namespaces, by their present keys, into a targets file. */
  delegate(signed: Json, ...namespaces: string[]): void {
    const keys = namespaces.flatMap((namespace) => this.role(namespace).keys);
    signed['delegations'] = {
      keys: keyTable(...keys),
      roles: namespaces.map((namespace) => ({
        name: namespace,
        keyids: this.role(namespace).keys.map((key) => key.keyId),
        threshold: this.role(namespace).threshold,
        terminating: true,
        paths: [`${namespace}/*/*`],
      })),
    };
  }

  /** The next file of a role, and of those above it, so that a device is led to it. */
  publish(name: string, edit: Edit = {}): Uint8Array {
    const signed = structuredClone(this.current(name));
    signed['version'] = edit.version ?? this.version(name) + 1;
    signed['expires'] = dateOf(edit.expiresAtMs ?? nowMs + 7 * dayMs);
    edit.change?.(signed);
    const file = this.assemble(signed, edit.signers ?? this.role(name).keys, edit);
    this.signed[name] = signed;
    this.files.set(this.fileName(name), file);
    if (name !== 'root' && name !== 'timestamp' && edit.alone !== true) {
      this.list(name, edit.listed);
      this.publish(name === 'snapshot' ? 'timestamp' : 'snapshot');
    }
    if (edit.served !== undefined) this.files.set(this.fileName(name), edit.served(file));
    return file;
  }

  /** The next root, naming the present keys; signed by them and by `alsoBy`, the keys before a rotation. */
  publishRoot(edit: Edit & { alsoBy?: readonly Signer[] } = {}): Uint8Array {
    const names = ['root', 'timestamp', 'snapshot', 'targets'];
    const signers = edit.signers ?? [...new Set([...this.role('root').keys, ...(edit.alsoBy ?? [])])];
    return this.publish('root', {
      ...edit,
      signers,
      change: (signed) => {
        signed['keys'] = keyTable(...names.flatMap((name) => this.role(name).keys));
        signed['roles'] = Object.fromEntries(
          names.map((name) => [
            name,
            { keyids: this.role(name).keys.map((key) => key.keyId), threshold: this.role(name).threshold },
          ]),
        );
        edit.change?.(signed);
      },
    });
  }

  /** Lists the newest file of a role in the signed part above it, which is not published yet. */
  list(name: string, change?: (meta: Json) => void): void {
    const bytes = this.bytes(name);
    const meta: Json = {
      version: this.version(name),
      length: bytes.length,
      hashes: { sha256: sha256Hex(bytes) },
    };
    change?.(meta);
    const above = name === 'snapshot' ? 'timestamp' : 'snapshot';
    inside(this.current(above), 'meta')[`${name}.json`] = meta;
  }

  /** Adds a release to its namespace's signed part and its files to what is served. Does not publish. */
  addRelease(path: string, counter = this.assigned.size + 1): AssignedRelease {
    const [namespace = '', name = '', version = ''] = path.split('/');
    const modelSha256 = sha256Hex(model);
    const manifest = encode(
      JSON.stringify({
        schemaVersion: 1,
        name: `${namespace}/${name}`,
        version,
        files: [{ path: 'model.onnx', role: 'model', sha256: modelSha256, bytes: model.length }],
      }),
    );
    const sha256 = sha256Hex(manifest);
    this.files.set(modelSha256, model);
    this.files.set(sha256, manifest);
    const requires = { opset: 17 };
    inside(this.current(namespace), 'targets')[path] = {
      length: manifest.length,
      hashes: { sha256 },
      custom: { counter, requires },
    };
    const assigned: AssignedRelease = {
      as: name,
      releaseId: `${namespace}/${name}@${version}`,
      manifestSha256: sha256,
      manifestBytes: manifest.length,
      counter,
      requires,
      rolloutId: null,
      policy: { deadlinesMs: { fetching: 60_000, probing: 60_000, soaking: 60_000 }, soakMs: 0 },
    };
    this.assigned.set(path, assigned);
    return assigned;
  }

  /** A new release, through its namespace's file, snapshot and timestamp. */
  release(path: string, edit: Edit = {}): void {
    this.addRelease(path);
    this.publish(path.split('/')[0] ?? '', edit);
  }

  assignmentOf(path: string): AssignedRelease {
    const assigned = this.assigned.get(path);
    if (assigned === undefined) throw new Error(`no release ${path}`);
    return assigned;
  }

  private assemble(signed: Json, by: readonly Signer[], edit: Edit): Uint8Array {
    const text = edit.text?.(JSON.stringify(signed)) ?? JSON.stringify(signed);
    const read = edit.text === undefined ? signed : lenient(text, signed);
    const signatures = by.map((signer) => signatureOf(signer, read));
    edit.signatures?.(signatures, read);
    const file = encode(`{"signatures":${JSON.stringify(signatures)},"signed":${text}}`);
    return edit.bytes?.(file) ?? file;
  }
}

function lenient(text: string, otherwise: Json): Json {
  try {
    const read = JSON.parse(text) as Json;
    canonical(read);
    return read;
  } catch {
    // What no reader takes, or what is too deep to be spelled, was signed as it stood before.
    return otherwise;
  }
}

function structuredCloneRoles(roles: Record<string, Role>): Record<string, Role> {
  return Object.fromEntries(
    Object.entries(roles).map(([name, role]) => [name, { keys: [...role.keys], threshold: role.threshold }]),
  );
}
