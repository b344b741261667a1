// Why: what `lepton-agent tuf` keeps between two runs: metadata byte for byte as it was received, each file
// written whole or not at all, and beside it the numbers that bind where a file is torn.
// Trusts: its callers to have verified what they save. Must never: give a file of ours a name that ends in
// .json; those are the repository's.

import { z } from 'zod';
import { openDisk } from '../../../shared/host/disk.ts';
import type { Disk } from '../../../shared/kernel/ports.ts';
import type { VersionFloors } from '../../../shared/trust/tuf/floors.ts';
import { trustRoot } from '../../../shared/trust/tuf/trusted-set.ts';
import type { HeldFiles, KeptRole } from '../../../shared/trust/tuf/update.ts';
import { roleFileName } from './names.ts';
import { openPolicy } from './open-policy.ts';

/** The root that `init` was given: where the chain starts again when root.json is torn. */
const pinnedFile = 'pinned-root';
const floorsFile = 'version-floors';

const numberSchema = z.number().int().nonnegative();
const floorsSchema = z.object({
  root: numberSchema,
  onlineKeys: z.string(),
  timestamp: numberSchema,
  snapshot: numberSchema,
  files: z.array(z.tuple([z.string(), numberSchema])),
});

export interface MetadataFolder {
  /**
   * Starts from this root. The one it was started from already changes nothing, so that doing it again does not
   * undo the protection against rollback; another one starts anew.
   */
  pin(root: Uint8Array): Promise<void>;
  /** Null before `pin`. */
  load(): Promise<HeldFiles | null>;
  save(role: KeptRole, bytes: Uint8Array): Promise<void>;
  saveFloors(floors: VersionFloors): Promise<void>;
  delegated(role: string): Promise<Uint8Array | null>;
  saveDelegated(role: string, bytes: Uint8Array): Promise<void>;
}

/** Replaces a file durably: whoever reads finds the old one or the new one, also after a power cut. */
async function replaceFile(disk: Disk, name: string, bytes: Uint8Array): Promise<void> {
  const partial = `${name}.partial`;
  await disk.create(partial);
  await disk.append(partial, bytes);
  await disk.fsync(partial);
  await disk.rename(partial, name);
  await disk.fsyncDir('.');
}

function sameBytes(a: Uint8Array | null, b: Uint8Array): boolean {
  return a !== null && Buffer.compare(a, b) === 0;
}

/** Faults: `disk-full`, `disk-io`. */
export function openMetadataFolder(path: string): MetadataFolder {
  const disk = openDisk(path);
  const isRoot = (bytes: Uint8Array | null): bytes is Uint8Array =>
    bytes !== null && trustRoot(openPolicy, bytes).ok;

  async function loadFloors(): Promise<VersionFloors | null> {
    const bytes = await disk.read(floorsFile);
    if (bytes === null) return null;
    let body: unknown;
    try {
      body = JSON.parse(Buffer.from(bytes).toString('utf8'));
    } catch {
      // Torn: the files themselves bind then, as they did before there were floors.
      return null;
    }
    const parsed = floorsSchema.safeParse(body);
    return parsed.success ? { ...parsed.data, files: new Map(parsed.data.files) } : null;
  }

  return {
    async pin(root) {
      if (sameBytes(await disk.read(pinnedFile), root)) {
        if (!isRoot(await disk.read('root.json'))) await replaceFile(disk, 'root.json', root);
        return;
      }
      for (const name of [floorsFile, 'timestamp.json', 'snapshot.json', 'targets.json'])
        await disk.unlink(name);
      await replaceFile(disk, 'root.json', root);
      await replaceFile(disk, pinnedFile, root);
    },

    async load() {
      const inForce = await disk.read('root.json');
      const pinned = await disk.read(pinnedFile);
      const root = [inForce, pinned].find(isRoot) ?? inForce ?? pinned;
      if (root === null) return null;
      return {
        root,
        timestamp: await disk.read('timestamp.json'),
        snapshot: await disk.read('snapshot.json'),
        targets: await disk.read('targets.json'),
        floors: await loadFloors(),
      };
    },

    save: (role, bytes) => replaceFile(disk, `${role}.json`, bytes),

    async saveFloors(floors) {
      const text = JSON.stringify({ ...floors, files: [...floors.files] });
      await replaceFile(disk, floorsFile, new TextEncoder().encode(text));
    },

    delegated: (role) => disk.read(roleFileName(role)),
    saveDelegated: (role, bytes) => replaceFile(disk, roleFileName(role), bytes),
  };
}
