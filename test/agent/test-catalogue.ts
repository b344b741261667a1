// Why: the catalogue and the region of the stand-in: one key a role, signed anew at every change.
// Trusts: shared/trust. Must never: be used outside tests; its keys live in memory.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { parseReleaseId, targetPath } from '../../shared/kernel/releases.ts';
import { makeRegionRoot } from '../../shared/trust/region.ts';
import {
  describeFile,
  makeRoot,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  type TargetEntry,
} from '../../shared/trust/tuf/repository.ts';
import { type AssignedRelease, encodeMessage, type HeldVersions } from '../../shared/wire/messages.ts';

export interface TestCatalogue {
  /** Exact bytes by the name they are fetched under. */
  files: Map<string, Uint8Array>;
  blobs: Map<string, Uint8Array>;
  expiresAtMs: number;
  rootFile: Uint8Array;
  regionFile: Uint8Array;
  director(): Signer;
  /** The region's keys for time and for lists of authorities. */
  time(): Signer;
  command(): Signer;
  /** What is offered now. */
  versions(): HeldVersions & { namespaces: Record<string, number> };
  /** Adds a release with these files; returns what a director would assign. */
  release(id: string, files: { role: string; path: string; bytes: Uint8Array }[]): AssignedRelease;
  raiseFloor(model: string, counter: number): void;
  /** From now on another key has this role; the region's next root says so. */
  rotate(role: 'director' | 'time'): void;
}

export const newSigner = (): Signer => signerFromSeed(systemEntropy.bytes(32), 'node');
const roleOf = (signer: Signer) => ({ keys: [signer.publicKey], threshold: 1 });

export function testCatalogue(region: string, expiresAtMs: number): TestCatalogue {
  const keys = {
    root: newSigner(),
    online: newSigner(),
    publisher: newSigner(),
    director: newSigner(),
    time: newSigner(),
    command: newSigner(),
  };
  let regionVersion = 1;
  const rootFile = makeRoot({
    version: 1,
    expiresAtMs,
    roles: {
      root: roleOf(keys.root),
      targets: roleOf(keys.root),
      snapshot: roleOf(keys.online),
      timestamp: roleOf(keys.online),
    },
    signers: [keys.root],
  });
  const makeRegion = (version: number): Uint8Array =>
    makeRegionRoot({
      region,
      version,
      expiresAtMs,
      roles: {
        root: roleOf(keys.root),
        director: roleOf(keys.director),
        time: roleOf(keys.time),
        ack: roleOf(keys.online),
        command: roleOf(keys.command),
      },
      signers: [keys.root],
    });
  const regionFile = makeRegion(1);
  const targetsFile = makeTargets({
    version: 1,
    expiresAtMs,
    delegations: [{ namespace: 'acme', ...roleOf(keys.publisher) }],
    signers: [keys.root],
  });

  const files = new Map<string, Uint8Array>([
    ['1.root.json', rootFile],
    ['1.targets.json', targetsFile],
  ]);
  const blobs = new Map<string, Uint8Array>();
  const releases = new Map<string, TargetEntry>();
  const floors = new Map<string, number>();
  let catalogueVersion = 0;
  const signCatalogue = (): void => {
    catalogueVersion += 1;
    const version = catalogueVersion;
    const acme = makeTargets({ version, expiresAtMs, targets: releases, floors, signers: [keys.publisher] });
    const listed = new Map([
      ['targets.json', describeFile(targetsFile)],
      ['acme.json', describeFile(acme)],
    ]);
    const snapshot = makeSnapshot({ version, expiresAtMs, files: listed, signers: [keys.online] });
    const timestamp = makeTimestamp({
      version,
      expiresAtMs,
      snapshot: describeFile(snapshot),
      signers: [keys.online],
    });
    files.set(`${version}.acme.json`, acme);
    files.set(`${version}.snapshot.json`, snapshot);
    files.set('timestamp.json', timestamp);
  };
  let counter = 0;
  signCatalogue();

  return {
    files,
    blobs,
    expiresAtMs,
    rootFile,
    regionFile,
    director: () => keys.director,
    time: () => keys.time,
    command: () => keys.command,
    versions: () => ({
      root: 1,
      regionRoot: regionVersion,
      timestamp: catalogueVersion,
      snapshot: catalogueVersion,
      targets: 1,
      namespaces: { acme: catalogueVersion },
    }),
    release: (id, parts) => {
      const name = parseReleaseId(id);
      if (name === null) throw new Error(id);
      counter += 1;
      const listed = parts.map(({ role, path, bytes }) => {
        blobs.set(sha256Hex(bytes), bytes);
        return { path, role, sha256: sha256Hex(bytes), bytes: bytes.length };
      });
      const manifest = encodeMessage({
        schemaVersion: 1,
        name: `${name.namespace}/${name.name}`,
        version: name.version,
        files: listed,
      });
      const manifestSha256 = sha256Hex(manifest);
      blobs.set(manifestSha256, manifest);
      releases.set(targetPath(name), {
        bytes: manifest.length,
        sha256: manifestSha256,
        counter,
        requires: null,
      });
      signCatalogue();
      return {
        as: name.name,
        releaseId: id,
        manifestSha256,
        manifestBytes: manifest.length,
        counter,
        requires: null,
        rolloutId: `rollout-${counter}`,
        policy: { deadlinesMs: { fetching: 60_000, probing: 60_000, soaking: 60_000 }, soakMs: 0 },
      };
    },

    raiseFloor: (model, to) => {
      floors.set(model, to);
      signCatalogue();
    },

    rotate: (role) => {
      keys[role] = newSigner();
      regionVersion += 1;
      files.set(`region/${regionVersion}.root.json`, makeRegion(regionVersion));
    },
  };
}
