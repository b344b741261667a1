// Why: what must hold in one region at every commit: numbers of the catalogue and of the list of regions never fall, and a
// release is seen only when its publisher signed it and all of its bytes are there. Trusts: the place as committed.
// Must never: judge by what the region says of itself.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { onlineKeysOf } from '../../shared/trust/tuf/floors.ts';
import { parseRoot, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { checkThreshold } from '../../shared/trust/tuf/signatures.ts';
import type { Reached } from '../fleet-world/node-log.ts';
import type { Publisher } from '../fleet-world/publisher.ts';
import type { SimPlace } from '../machine/place.ts';
import type { World } from '../world.ts';

export interface RegionOracle {
  committed(db: SqlTx): void;
  /** Its power failed: what is checked begins with what is durable. */
  afterCut(): void;
  /** Whether a root of this content (digest of what was signed) was ever in force here. */
  hadRoot(sha256: string): boolean;
  /** It was set back to an older disk: its numbers may fall, once. */
  restored(): void;
}

interface Numbers {
  root: number;
  onlineKeys: string;
  timestamp: number;
}

interface List {
  version: number;
  takenAtMs: number;
  /** The online keys of the root that was in force when it was taken. */
  onlineKeys: string;
}

export function createRegionOracle(parts: {
  world: World;
  node: string;
  place: SimPlace;
  publisher: Publisher;
  reached: Reached;
}): RegionOracle {
  const { world, node, place, publisher, reached } = parts;
  let numbers: Numbers | null = null;
  let seen = new Set<string>();
  let lastTimestamp = '';
  let list: List | null = null;
  const roots = new Set<string>();

  const fileOf = (db: SqlTx, role: string): Uint8Array | null =>
    db.get<{ bytes: Uint8Array }>(
      `SELECT bytes FROM metadata_files JOIN metadata_roles ON name = file WHERE role = ?`,
      role,
    )?.bytes ?? null;

  function checkCatalogue(db: SqlTx): void {
    const bytes = fileOf(db, 'timestamp');
    const rootBytes = fileOf(db, 'root');
    if (bytes === null || rootBytes === null) return;
    const both = sha256Hex(Buffer.concat([rootBytes, bytes]));
    if (both === lastTimestamp) return;
    lastTimestamp = both;
    const root = parseRoot(new Uint8Array(rootBytes), []);
    const timestamp = parseTimestamp(new Uint8Array(bytes));
    if (!root.ok || !timestamp.ok) {
      world.violate(`${node} holds a root or timestamp that is none`);
      return;
    }
    roots.add(sha256Hex(root.value.signedBytes));
    const signed = checkThreshold(timestamp.value, root.value.roles.get('timestamp'), 'timestamp');
    if (!signed.ok)
      world.violate(`${node} holds a timestamp that its root does not bear: ${signed.refusal.detail}`);
    const next: Numbers = {
      root: root.value.version,
      onlineKeys: onlineKeysOf(root.value),
      timestamp: timestamp.value.version,
    };
    if (numbers !== null) {
      if (next.root < numbers.root) world.violate(`${node}: root ${next.root} after ${numbers.root}`);
      if (next.onlineKeys === numbers.onlineKeys && next.timestamp < numbers.timestamp)
        world.violate(`${node}: timestamp ${next.timestamp} after ${numbers.timestamp}`);
      if (next.root > numbers.root) reached.count('region', 'root taken');
    }
    numbers = next;
  }

  /** Another home's numbers begin where it stood; those of one home only rise. */
  function checkList(db: SqlTx): void {
    const row = db.get<{ version: number; takenAtMs: number }>(
      'SELECT version, taken_at_ms AS takenAtMs FROM region_list',
    );
    if (row === undefined || numbers === null) return;
    if (row.version === list?.version && row.takenAtMs === list.takenAtMs) return;
    const { onlineKeys } = numbers;
    if (list !== null && list.onlineKeys === onlineKeys && row.version < list.version)
      world.violate(`${node}: list ${row.version} of the regions after ${list.version}`);
    list = { ...row, onlineKeys };
  }

  function checkReleases(db: SqlTx): void {
    const rows = db.all<{ release_id: string; manifest_sha256: string; counter: number }>(
      'SELECT release_id, manifest_sha256, counter FROM releases WHERE admitted = 1',
    );
    const now = new Set<string>();
    for (const { release_id: releaseId, manifest_sha256: sha256, counter } of rows) {
      const key = `${releaseId} ${sha256}`;
      now.add(key);
      if (seen.has(key)) continue;
      const release = publisher.ofManifest(sha256);
      if (release === undefined || release.releaseId !== releaseId || release.counter !== counter) {
        world.violate(`${node} shows ${releaseId} as its publisher never signed it`);
        continue;
      }
      for (const digest of release.digests) {
        const bytes = place.files.peek(`blobs/${digest}`);
        if (bytes === null) world.violate(`${node} shows ${releaseId}, and its file ${digest} is not there`);
        else if (sha256Hex(bytes) !== digest)
          world.violate(`${node} shows ${releaseId}, and its file ${digest} has other bytes`);
      }
      reached.count('region', 'release shown');
    }
    seen = now;
  }

  return {
    committed(db) {
      checkCatalogue(db);
      checkList(db);
      checkReleases(db);
    },
    afterCut() {
      seen = new Set();
      lastTimestamp = '';
    },
    hadRoot: (sha256) => roots.has(sha256),
    restored() {
      numbers = null;
      list = null;
    },
  };
}
