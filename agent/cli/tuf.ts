// Why: the TUF client alone, with the command line of the public conformance suite (contract, section 11).
// Trusts: the root that `init` was given. Must never: leave by another exit code than 1 where something failed,
// nor keep a file that was not verified.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { diskFault } from '../../shared/host/disk-fault.ts';
import { codes } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { type Result, refuse } from '../../shared/kernel/result.ts';
import { type ListedTargets, listedDigest } from '../../shared/trust/tuf/format.ts';
import { acceptTargets, trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import {
  fetchListed,
  type MetadataFetcher,
  type Updated,
  updateTopLevel,
} from '../../shared/trust/tuf/update.ts';
import { findTarget } from '../../shared/trust/tuf/walk.ts';
import { downloadBytes } from './tuf/http.ts';
import { type MetadataFolder, openMetadataFolder } from './tuf/metadata-folder.ts';
import { metadataUrl, targetUrl } from './tuf/names.ts';
import { openPolicy } from './tuf/open-policy.ts';
import { openTargetFolder } from './tuf/target-folder.ts';

export interface TufFlags {
  metadataDir?: string;
  metadataUrl?: string;
  targetName?: string[];
  targetBaseUrl?: string;
  targetDir?: string;
  json?: boolean;
}

interface Versions {
  root: number;
  timestamp: number;
  snapshot: number;
  targets: number;
}

/** What the command did, as its `--json` prints it. */
export interface TufDone {
  /** What is in force; absent after `init`. */
  versions?: Versions;
  targets?: { name: string; role: string; cached: boolean }[];
}

/** One run. Faults: `config-invalid` for the command line; everything else ends with exit code 1. */
export async function tuf(
  action: string,
  rootFile: string | undefined,
  flags: TufFlags,
  clock: Clock,
): Promise<TufDone> {
  const work = readCommandLine(action, rootFile, flags, clock);
  try {
    return await work();
  } catch (error) {
    const fault = asFleetError(error);
    if (codes[fault.code].exit === 1) throw fault;
    throw new FleetError('internal', fault.message, { cause: fault });
  }
}

/** Checks every flag before anything is done. */
function readCommandLine(
  action: string,
  rootFile: string | undefined,
  flags: TufFlags,
  clock: Clock,
): () => Promise<TufDone> {
  const folder = given('--metadata-dir', flags.metadataDir);
  if (action === 'init') {
    const path = given('ROOT', rootFile);
    return () => init(folder, path);
  }
  if (rootFile !== undefined) throw new FleetError('config-invalid', `${action} takes no argument`);
  if (action === 'refresh') {
    const base = givenUrl('--metadata-url', flags.metadataUrl);
    return async () => ({ versions: versionsOf((await refresh(folder, base, clock)).updated) });
  }
  if (action === 'download') {
    const base = givenUrl('--metadata-url', flags.metadataUrl);
    const names = flags.targetName ?? [];
    if (names.length === 0) throw new FleetError('config-invalid', '--target-name is missing');
    const targetBase = givenUrl('--target-base-url', flags.targetBaseUrl);
    const targetFolder = given('--target-dir', flags.targetDir);
    return () => downloadTargets({ folder, base, names, targetBase, targetFolder, clock });
  }
  throw new FleetError('config-invalid', `${JSON.stringify(action)} is not init, refresh or download`);
}

function given(name: string, value: string | undefined): string {
  if (value !== undefined && value !== '') return value;
  throw new FleetError('config-invalid', `${name} is missing`);
}

function givenUrl(name: string, value: string | undefined): URL {
  const text = given(name, value);
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url;
  throw new FleetError('config-invalid', `${name} ${JSON.stringify(text)} is no http or https URL`);
}

async function init(folder: string, path: string): Promise<TufDone> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw diskFault(error, `read ${path}`);
  });
  const root = new Uint8Array(bytes);
  // Nothing is asked of the repository; but what is no root now will be none later.
  unwrap(trustRoot(openPolicy, root));
  await openMetadataFolder(folder).pin(root);
  return {};
}

interface Refreshed {
  store: MetadataFolder;
  fetcher: MetadataFetcher;
  /** §5.1: the one time by which this run judges every expiry. */
  nowMs: number;
  updated: Updated<ListedTargets>;
}

async function refresh(folder: string, base: URL, clock: Clock): Promise<Refreshed> {
  const nowMs = clock.wall();
  // Opening a folder makes it, and a mistyped one should not appear.
  const store = existsSync(folder) ? openMetadataFolder(folder) : null;
  const held = (await store?.load()) ?? null;
  if (store === null || held === null) {
    throw new FleetError('metadata-missing', `${folder} holds no root`, { hint: 'run init first' });
  }
  const fetcher: MetadataFetcher = {
    fetch: (name, bytesMax) =>
      downloadBytes(
        metadataUrl(base, name),
        { bytesMax, timeoutMs: limits.tufMetadataTimeoutMs },
        { missing: 'metadata-missing', tooLarge: 'metadata-too-large' },
      ),
  };
  const updated = await updateTopLevel({
    policy: openPolicy,
    held,
    fetcher,
    nowMs,
    saveRoot: (bytes) => store.save('root', bytes),
    async save(role, bytes, floors) {
      // Numbers first: what was verified binds even if the power fails before its file is there.
      await store.saveFloors(floors);
      await store.save(role, bytes);
    },
  });
  return { store, fetcher, nowMs, updated: unwrap(updated) };
}

function versionsOf({ root, timestamp, snapshot, targets }: Updated<ListedTargets>): Versions {
  return {
    root: root.version,
    timestamp: timestamp.version,
    snapshot: snapshot.version,
    targets: targets.version,
  };
}

async function downloadTargets(parts: {
  folder: string;
  base: URL;
  names: readonly string[];
  targetBase: URL;
  targetFolder: string;
  clock: Clock;
}): Promise<TufDone> {
  const refreshed = await refresh(parts.folder, parts.base, parts.clock);
  const { root } = refreshed.updated;
  const targets: NonNullable<TufDone['targets']> = [];
  for (const name of parts.names) {
    const { target, role } = unwrap(
      await findTarget({
        path: name,
        topTargets: refreshed.updated.targets,
        targetIn: (file, path) => file.targets.get(path),
        load: (delegated) => loadRole(refreshed, delegated),
      }),
    );
    const digest = listedDigest(target, 'sha256') ?? listedDigest(target, 'sha512');
    const url = targetUrl(parts.targetBase, name, root.consistentSnapshots ? digest : null);
    if (url === null) throw new FleetError('target-unknown', `${name} is no path that can be fetched`);
    const store = openTargetFolder(parts.targetFolder);
    const cached = await store.holds(name, target);
    if (!cached) unwrap(await store.fetch(name, target, url));
    targets.push({ name, role, cached });
  }
  return { versions: versionsOf(refreshed.updated), targets };
}

/** §5.6 for a delegated role, by the keys of the delegator on the way to it. */
async function loadRole(
  { store, fetcher, nowMs, updated }: Refreshed,
  role: ListedTargets['delegations'][number],
): Promise<Result<ListedTargets>> {
  const { root, snapshot } = updated;
  const meta = snapshot.files.get(`${role.name}.json`);
  if (meta === undefined) return refuse('metadata-missing', `snapshot does not list role ${role.name}`);
  const held = await store.delegated(role.name);
  const file = { name: role.name, meta, bytesMax: limits.targetsBytesMax };
  const loaded = await fetchListed({ fetcher, nowMs }, root, file, held, (bytes) =>
    acceptTargets(openPolicy, snapshot, role.name, role, bytes),
  );
  const isNew = loaded.ok && (held === null || Buffer.compare(held, loaded.value.bytes) !== 0);
  if (isNew) await store.saveDelegated(role.name, loaded.value.bytes);
  return loaded;
}
