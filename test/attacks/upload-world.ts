// Why: a real registry over real HTTP that every upload attack shares, and an honest publisher to start from.
// Trusts: nothing that is under attack. Must never: sign by the code whose refusals are tested, where an attacker would not.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Registry, startRegistry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { addSignature, makeTargets, type TargetEntry } from '../../shared/trust/tuf/repository.ts';
import { problemSchema, type Role, tokenCreatedSchema } from '../../shared/wire/http.ts';
import { dayMs, hexOf, identityModel, publisherKey } from '../registry-core/support.ts';

/** What a push consists of before it is sent; an attack changes one of them. */
export interface Upload {
  releaseId: string;
  metadata: Uint8Array;
  manifest: Uint8Array;
}

export interface UploadWorld {
  registry: Registry;
  ask(method: string, path: string, body?: object | Uint8Array, token?: string): Promise<Response>;
  /** The code of a refusal; the status of what was taken. */
  code(response: Response): Promise<string>;
  token(role: Role, namespace?: string, ttlMs?: number): Promise<{ id: string; token: string }>;
  /** A namespace of its own with `echo` 1.0.0 (counter 1) and 1.1.0 (counter 2) in it. */
  publisher(threshold?: number): Promise<Publisher>;
  close(): Promise<void>;
}

export interface Publisher {
  namespace: string;
  key: Signer;
  second: Signer;
  /** The targets in force. */
  targets: ReadonlyMap<string, TargetEntry>;
  version: number;
  /** A manifest of the release with these fields changed. */
  manifest(version: string, model: Uint8Array, change?: object): Uint8Array;
  /** The next metadata as these parts say, right or wrong; unchanged parts are honest. */
  next(change?: Partial<Parameters<typeof makeTargets>[0]>): Uint8Array;
  /** An honest push of the next release (1.2.0, counter 3), its model uploaded. */
  honest(change?: { counter?: number; manifest?: object; signers?: Signer[] }): Promise<Upload>;
  push(upload: Upload, token?: string): Promise<string>;
  step(metadata: Uint8Array, token?: string): Promise<string>;
  upload(model: Uint8Array): Promise<void>;
}

export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const utf8 = (words: string): Uint8Array => new TextEncoder().encode(words);

/** The file changed as text, into what no JSON writer would write. */
export function rewritten(metadata: Uint8Array, change: (text: string) => string): Uint8Array {
  return utf8(change(text(metadata)));
}

/** The file with more in its `signed` part, signed again. */
export function withSigned(metadata: Uint8Array, more: object, key: Signer): Uint8Array {
  const file = JSON.parse(text(metadata));
  Object.assign(file.signed, more);
  return addSignature(utf8(JSON.stringify(file)), key);
}

export async function openUploadWorld(): Promise<UploadWorld> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-uploads-'));
  const registry = await startRegistry({
    dataFolder: folder,
    region: 'test',
    http: { host: '127.0.0.1', port: 0 },
    mqtt: { host: '127.0.0.1', port: 0 },
    version: '0.0.0-test',
    clock: systemClock,
    entropy: systemEntropy,
    log: { emit: () => undefined },
  });
  let namespaces = 0;

  const world: UploadWorld = {
    registry,

    ask(method, path, body, token = registry.adminToken) {
      const bytes = body instanceof Uint8Array;
      const type = bytes ? 'application/octet-stream' : 'application/json';
      const headers = {
        ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': type }),
      };
      const init: RequestInit = { method, headers };
      if (body !== undefined) init.body = bytes ? Buffer.from(body) : JSON.stringify(body);
      return fetch(`${registry.httpUrl}${path}`, init);
    },

    async code(response) {
      const body: unknown = await response.json();
      if (!response.ok) return problemSchema.parse(body).code;
      return body !== null && typeof body === 'object' && 'status' in body
        ? String(body.status)
        : `taken (${response.status})`;
    },

    async token(role, namespace, ttlMs) {
      const wanted = {
        user: 'mallory',
        role,
        ...(namespace === undefined ? {} : { namespace }),
        ...(ttlMs === undefined ? {} : { ttlMs }),
      };
      return tokenCreatedSchema.parse(await (await world.ask('POST', '/api/v1/tokens', wanted)).json());
    },

    async publisher(threshold = 1) {
      namespaces += 1;
      const made = publisherOf(world, `attacked-${namespaces}`);
      const keys = threshold === 1 ? [made.key] : [made.key, made.second];
      const path = `/api/v1/publishers/${made.namespace}`;
      await world.ask('PUT', path, { keys: keys.map(hexOf), threshold });
      for (const [version, counter] of [
        ['1.0.0', 1],
        ['1.1.0', 2],
      ] as const) {
        const pushed = await made.release(version, counter, keys);
        if (pushed !== 'accepted') throw new Error(`the honest publisher was refused: ${pushed}`);
      }
      return made;
    },

    async close() {
      await registry.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return world;
}

function publisherOf(
  world: UploadWorld,
  namespace: string,
): Publisher & { release(version: string, counter: number, signers: Signer[]): Promise<string> } {
  const key = publisherKey(namespace);
  const second = publisherKey(`${namespace} second`);
  let targets: ReadonlyMap<string, TargetEntry> = new Map();
  let version = 0;
  const entryOf = (manifest: Uint8Array, counter: number): TargetEntry => ({
    sha256: sha256Hex(manifest),
    bytes: manifest.length,
    counter,
    requires: null,
  });

  const made = {
    namespace,
    key,
    second,
    get targets() {
      return targets;
    },
    get version() {
      return version;
    },

    manifest(release: string, model: Uint8Array, change: object = {}) {
      const file = { path: 'model.onnx', role: 'model', sha256: sha256Hex(model), bytes: model.length };
      const honest = { schemaVersion: 1, name: `${namespace}/echo`, version: release, files: [file] };
      return utf8(JSON.stringify({ ...honest, ...change }));
    },

    next: (change: Partial<Parameters<typeof makeTargets>[0]> = {}) =>
      makeTargets({
        version: version + 1,
        expiresAtMs: Date.now() + 365 * dayMs,
        targets,
        signers: [key],
        ...change,
      }),

    async honest({ counter = 3, manifest: change = {}, signers = [key] } = {}): Promise<Upload> {
      const model = identityModel(`${namespace} 1.2.0`);
      await made.upload(model);
      const manifest = made.manifest('1.2.0', model, change);
      const added = new Map([...targets, [`${namespace}/echo/1.2.0`, entryOf(manifest, counter)]]);
      return {
        releaseId: `${namespace}/echo@1.2.0`,
        manifest,
        metadata: made.next({ targets: added, signers }),
      };
    },

    async push({ releaseId, metadata, manifest }: Upload, token?: string) {
      const body = { releaseId, metadata: base64(metadata), manifest: base64(manifest) };
      return world.code(await world.ask('POST', '/api/v1/releases', body, token));
    },

    async step(metadata: Uint8Array, token?: string) {
      const path = `/api/v1/publishers/${namespace}/metadata`;
      return world.code(await world.ask('POST', path, { metadata: base64(metadata) }, token));
    },

    async upload(model: Uint8Array) {
      const response = await world.ask('PUT', `/api/v1/blobs/${sha256Hex(model)}`, model);
      if (!response.ok) throw new Error(`the honest upload was refused: ${await world.code(response)}`);
    },

    async release(release: string, counter: number, signers: Signer[]) {
      // The same bytes in every namespace: what the registry tried once it does not try again.
      const model = identityModel(`honest ${release}`);
      await made.upload(model);
      const manifest = made.manifest(release, model);
      const added = new Map([...targets, [`${namespace}/echo/${release}`, entryOf(manifest, counter)]]);
      const releaseId = `${namespace}/echo@${release}`;
      const pushed = await made.push({
        releaseId,
        manifest,
        metadata: made.next({ targets: added, signers }),
      });
      if (pushed === 'accepted') {
        targets = added;
        version += 1;
      }
      return pushed;
    },
  };
  return made;
}
