// Why: people verify what the registry says about releases as devices do: from a pinned root, by TUF.
// Trusts: the root pinned at the first contact (or given by --root). Must never: show or sign what did not verify.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sha256Hex, sha256Stream } from '../../shared/crypto/digests.ts';
import { makeFolders } from '../../shared/host/folders.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { formatReleaseId, type ReleaseFile, type ReleaseName } from '../../shared/kernel/releases.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import {
  type CatalogueRelease,
  findRelease,
  refreshCatalogue,
  type TrustState,
} from '../../shared/trust/tuf/client.ts';
import { type Manifest, manifestSchema } from '../../shared/wire/manifest.ts';
import { parseMessage } from '../../shared/wire/messages.ts';
import type { RegistryClient } from './client.ts';
import { note } from './output.ts';
import { configFolder } from './settings.ts';

function rootFile(baseUrl: string): string {
  return join(configFolder(), 'trust', `${baseUrl.replace(/[^A-Za-z0-9.-]+/g, '_')}.root.json`);
}

function writePinned(path: string, bytes: Uint8Array): void {
  makeFolders(dirname(path), 0o700);
  writeFileSync(`${path}.new`, bytes, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

async function pinnedRoot(
  client: RegistryClient,
  given: string | undefined,
): Promise<{ bytes: Uint8Array; path: string }> {
  const path = rootFile(client.baseUrl);
  if (given !== undefined) {
    try {
      return { bytes: new Uint8Array(readFileSync(given)), path };
    } catch (cause) {
      throw new FleetError('input-invalid', `cannot read the root ${given}: ${String(cause)}`, { cause });
    }
  }
  try {
    return { bytes: new Uint8Array(readFileSync(path)), path };
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')) throw cause;
  }
  const bytes = await client.bytes('/api/v1/metadata/1.root.json');
  if (bytes === null) throw new FleetError('metadata-missing', `${client.baseUrl} has no root metadata`);
  writePinned(path, bytes);
  note(`first contact with ${client.baseUrl}: its catalogue root ${sha256Hex(bytes)} is pinned in ${path}\n`);
  return { bytes, path };
}

/** The verified catalogue with these namespaces. Throws every code of `refreshCatalogue`. */
export async function verifiedCatalogue(
  client: RegistryClient,
  namespaces: string[],
  rootGiven?: string,
): Promise<TrustState> {
  const { bytes: root, path } = await pinnedRoot(client, rootGiven);
  const refreshed = await refreshCatalogue({
    state: { root, timestamp: null, snapshot: null, targets: null, delegated: {} },
    fetcher: {
      async fetch(name, bytesMax) {
        const bytes = await client.bytes(`/api/v1/metadata/${name}`);
        if (bytes === null) return refuse('metadata-missing', `the registry has no ${name}`);
        return bytes.length > bytesMax
          ? refuse('metadata-too-large', `${name} has ${bytes.length} bytes`)
          : ok(bytes);
      },
    },
    nowMs: Date.now(),
    namespaces,
    saveRoot: async (bytes) => writePinned(path, bytes),
  });
  if (!refreshed.ok && refreshed.refusal.code === 'metadata-signature-invalid') {
    throw new FleetError(refreshed.refusal.code, refreshed.refusal.detail, {
      hint: `this is not the registry that was pinned in ${path}; remove that file only if you know why`,
    });
  }
  return unwrap(refreshed);
}

export interface VerifiedRelease {
  target: CatalogueRelease;
  manifest: Manifest;
  manifestBytes: Uint8Array;
}

/** The release's manifest, as its publisher signed it. */
export async function verifiedRelease(
  client: RegistryClient,
  release: ReleaseName,
  rootGiven?: string,
): Promise<VerifiedRelease> {
  const state = await verifiedCatalogue(client, [release.namespace], rootGiven);
  const target = unwrap(findRelease(state, release));
  const manifestBytes = await client.bytes(`/api/v1/blobs/${target.sha256}`);
  if (manifestBytes === null)
    throw new FleetError('not-found', `the registry lost the manifest of ${formatReleaseId(release)}`);
  if (manifestBytes.length !== target.bytes || sha256Hex(manifestBytes) !== target.sha256) {
    throw new FleetError('blob-digest-mismatch', 'manifest.json is not the one that was signed');
  }
  const manifest = unwrap(parseMessage(manifestSchema, manifestBytes));
  return { target, manifest, manifestBytes };
}

/** One file of a release, piece by piece; throws at its end where length or digest are not what was signed. */
export async function* verifiedChunks(client: RegistryClient, file: ReleaseFile): AsyncGenerator<Uint8Array> {
  const hash = sha256Stream();
  let bytes = 0;
  for await (const chunk of client.stream(`/api/v1/blobs/${file.sha256}`)) {
    bytes += chunk.length;
    if (bytes > file.bytes) break;
    hash.update(chunk);
    yield chunk;
  }
  if (bytes !== file.bytes)
    throw new FleetError('blob-size-mismatch', `${file.path}: ${bytes} bytes instead of ${file.bytes}`);
  if (hash.hex() !== file.sha256)
    throw new FleetError('blob-digest-mismatch', `${file.path} is not what was signed`);
}
