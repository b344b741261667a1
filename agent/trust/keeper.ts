// Why: everything that a device may never forget is changed here, in one order: the second copy first, then the
// main store. Trusts: callers to have verified what they give. Must never: change the main store of these before
// the copy is durable; after a loss of the store the copy is all there is.

import type { Migration } from '../../shared/host/sqlite.ts';
import type { SqlTx, Store } from '../../shared/kernel/ports.ts';
import type { TrustState } from '../../shared/trust/tuf/client.ts';
import { type ClockFloor, readFloors, writeFloors } from './clock.ts';
import type { Held } from './held.ts';
import {
  begun,
  completeEnrolment,
  type Identity,
  type NewIdentity,
  readIdentity,
  settleIdentity,
  writeIdentity,
} from './identity.ts';
import { type Moves, neverMoved, readMoves, writeMoves } from './moves.ts';
import type { SecondCopy } from './second-copy.ts';
import {
  fileBytes,
  type HeldAssignment,
  pinRegion,
  putAssignment,
  putFile,
  saveAssignment,
  saveCatalogue,
  saveRegionRoot,
  saveRoot,
} from './trust-store.ts';

export const keeperMigrations: readonly Migration[] = [
  {
    name: 'agent-keeper-001',
    sql: `
      CREATE TABLE agent_numbers (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        -- Starts of the agent so far.
        boot INTEGER NOT NULL,
        -- The enrolment whose telemetry chain was begun here; -1 where none.
        outbox_device TEXT NOT NULL,
        outbox_epoch INTEGER NOT NULL
      ) STRICT;
      INSERT INTO agent_numbers (id, boot, outbox_device, outbox_epoch) VALUES (1, 0, '', -1);
    `,
  },
];

/** Numbers that are used once each are reserved in the copy so many at a time. */
const reserveBlock = 1_000;

/** What a move makes of the device. */
export interface NextRegion {
  identity: Identity;
  regionRoot: Uint8Array;
  moves(present: Moves): Moves;
}

export interface Keeper {
  store: Store;
  held(): Held;
  enrolled(identity: NewIdentity, roots: { catalogue: Uint8Array; region: Uint8Array }): Promise<Identity>;
  /** Another state of the identity that is held: renewed credentials, proven ones, settled. */
  identity(identity: Identity): Promise<void>;
  settled(): Promise<void>;
  root(bytes: Uint8Array): Promise<void>;
  regionRoot(bytes: Uint8Array): Promise<void>;
  catalogue(state: TrustState): Promise<void>;
  assignment(assignment: HeldAssignment): Promise<void>;
  floors(floors: readonly ClockFloor[]): Promise<void>;
  /** Number of this start, durable. */
  booted(): Promise<number>;
  /** Makes sure that a number that is used once (report counter, id of a refusal) survives a loss of the store. */
  reserve(number: number): Promise<void>;
  /** The telemetry chain of this enrolment is begun, and with it the only one that it can have. */
  outboxBegun(deviceId: string, epoch: number): Promise<void>;
  /** Changes what is remembered of moves, given what that is when its turn comes: several parts change some of it. */
  moves(change: (present: Moves) => Moves): Promise<void>;
  /**
   * The device is of another region from here on: identity, region root and moves change in one commit. What was verified of
   * the catalogue stays; the region's assignment and the begun telemetry chain do not.
   */
  moved(next: NextRegion): Promise<void>;
}

export function createKeeper(store: Store, copy: SecondCopy): Keeper {
  return {
    store,
    held: copy.held,

    enrolled: async (identity, roots) => {
      const next = begun(identity);
      const { root } = copy.held();
      // The outbox stays in use for the new key; what is left of earlier regions the old key alone could send.
      const moves = { ...neverMoved, outbox: copy.held().moves.outbox };
      // What was verified under the same root is kept, as `pinRoots` does.
      const same = root !== null && Buffer.compare(root, roots.catalogue) === 0;
      await copy.save({
        identity: next,
        root: roots.catalogue,
        regionRoot: roots.region,
        assignment: null,
        moves,
        ...(same ? {} : { timestamp: null, snapshot: null }),
      });
      await completeEnrolment(store, identity, roots, (db) => writeMoves(db, moves));
      return next;
    },
    identity: async (identity) => {
      await copy.save({ identity });
      await store.tx((db) => writeIdentity(db, identity));
    },
    settled: async () => {
      const { identity } = copy.held();
      if (identity === null || identity.settled) return;
      await copy.save({ identity: { ...identity, settled: true } });
      await settleIdentity(store);
    },

    root: async (bytes) => {
      await copy.save({ root: bytes });
      await saveRoot(store, bytes);
    },
    regionRoot: async (bytes) => {
      await copy.save({ regionRoot: bytes });
      await saveRegionRoot(store, bytes);
    },
    catalogue: async (state) => {
      const { root, timestamp, snapshot } = state;
      await copy.save({ root, timestamp, snapshot });
      await saveCatalogue(store, state);
    },
    assignment: async (assignment) => {
      await copy.save({ assignment });
      await saveAssignment(store, assignment);
    },
    floors: async (floors) => {
      await copy.save({ floors: [...floors] });
      await store.tx((db) => writeFloors(db, floors));
    },

    booted: async () => {
      const boot = copy.held().boot + 1;
      await copy.save({ boot });
      await store.tx((db) => db.run('UPDATE agent_numbers SET boot = ? WHERE id = 1', boot));
      return boot;
    },
    reserve: async (number) => {
      if (number <= copy.held().reserved) return;
      await copy.save({ reserved: number + reserveBlock });
    },
    outboxBegun: async (deviceId, epoch) => {
      const { outbox } = copy.held();
      if (outbox?.deviceId === deviceId && outbox.epoch === epoch) return;
      await copy.save({ outbox: { deviceId, epoch } });
      await store.tx((db) => writeOutbox(db, { deviceId, epoch }));
    },

    moves: async (change) => {
      await copy.save((present) => ({ moves: change(present.moves) }));
      // What the copy holds by now: of two changes the store must not end with the first.
      await store.tx((db) => writeMoves(db, copy.held().moves));
    },
    moved: async ({ identity, regionRoot, moves }) => {
      await copy.save((present) => ({
        ...{ identity, regionRoot, assignment: null, outbox: null },
        moves: moves(present.moves),
      }));
      await store.tx((db) => {
        writeIdentity(db, identity);
        pinRegion(db, regionRoot);
        writeOutbox(db, null);
        writeMoves(db, copy.held().moves);
      });
    },
  };
}

function writeOutbox(db: SqlTx, outbox: Held['outbox']): void {
  db.run(
    'UPDATE agent_numbers SET outbox_device = ?, outbox_epoch = ? WHERE id = 1',
    outbox?.deviceId ?? '',
    outbox?.epoch ?? -1,
  );
}

/** What the main store holds of it. */
export function readHeld(db: SqlTx): Held {
  const numbers = db.get<{ boot: number; outbox_device: string; outbox_epoch: number }>(
    'SELECT boot, outbox_device, outbox_epoch FROM agent_numbers WHERE id = 1',
  );
  const assignment = db.get<{ epoch: number; payload_sha256: string; envelope: string }>(
    'SELECT epoch, payload_sha256, envelope FROM trust_assignment WHERE id = 1',
  );
  const used = db.get<{ used: number | null }>(
    `SELECT max((SELECT counter FROM report_counter WHERE id = 1),
       coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'refusals'), 0)) AS used`,
  );
  return {
    identity: readIdentity(db),
    root: fileBytes(db, 'root'),
    regionRoot: fileBytes(db, 'region-root'),
    timestamp: fileBytes(db, 'timestamp'),
    snapshot: fileBytes(db, 'snapshot'),
    assignment:
      assignment === undefined
        ? null
        : {
            epoch: assignment.epoch,
            payloadSha256: assignment.payload_sha256,
            envelope: assignment.envelope,
          },
    floors: readFloors(db),
    boot: numbers?.boot ?? 0,
    reserved: used?.used ?? 0,
    outbox:
      numbers === undefined || numbers.outbox_epoch < 0
        ? null
        : { deviceId: numbers.outbox_device, epoch: numbers.outbox_epoch },
    moves: readMoves(db),
  };
}

/**
 * Makes the main store hold it, in one transaction. Files that only the main store keeps stay where they were.
 * `behind`: the store does not know which numbers it used; only then are all that were reserved passed over, for a
 * device that passes over numbers at each start cannot be told from its copy that is one start ahead.
 */
export function writeHeld(db: SqlTx, held: Held, behind: boolean): void {
  const before = readIdentity(db);
  if (before !== null && before.deviceId !== held.identity?.deviceId) db.run('DELETE FROM trust_files');
  if (held.identity === null) db.run('DELETE FROM identity');
  else writeIdentity(db, held.identity);
  const files = {
    root: held.root,
    'region-root': held.regionRoot,
    timestamp: held.timestamp,
    snapshot: held.snapshot,
  };
  for (const [name, bytes] of Object.entries(files)) if (bytes !== null) putFile(db, name, bytes);
  db.run('DELETE FROM trust_assignment');
  if (held.assignment !== null) putAssignment(db, held.assignment);
  writeFloors(db, held.floors);
  db.run('UPDATE agent_numbers SET boot = ? WHERE id = 1', held.boot);
  writeOutbox(db, held.outbox);
  writeMoves(db, held.moves);
  if (!behind) return;
  db.run('UPDATE report_counter SET counter = max(counter, ?) WHERE id = 1', held.reserved);
  const known = db.run("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'refusals'", held.reserved);
  if (known.changes === 0)
    db.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('refusals', ?)", held.reserved);
}
