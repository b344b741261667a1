// Why: opens what the device must not forget, from its database and the copy beside it, whatever became of one of
// them. Trusts: the state folder, locked for this process. Must never: start from the older of the two, throw
// either away, or keep a device from starting while one of them is whole.

import { asFleetError, type FleetError } from '../shared/kernel/errors.ts';
import type { Log, Place, Store } from '../shared/kernel/ports.ts';
import { refusalMigrations } from './bus/refusals.ts';
import { reportMigrations } from './bus/reports.ts';
import { clockMigrations } from './trust/clock.ts';
import { type Held, higherOf, isWhole, nothingHeld } from './trust/held.ts';
import { identityMigrations } from './trust/identity.ts';
import { createKeeper, type Keeper, keeperMigrations, readHeld, writeHeld } from './trust/keeper.ts';
import { movesMigrations } from './trust/moves.ts';
import { copyFile, createSecondCopy, readCopy } from './trust/second-copy.ts';
import { loadTrust, trustMigrations } from './trust/trust-store.ts';
import { setAside } from './trust/whole-file.ts';
import { deferralMigrations } from './update/deferral.ts';
import { readMachines, updateMigrations } from './update/journal.ts';

/** Of all rooms that keep something in `state.sqlite`; the order never changes, new ones go last. */
export const agentMigrations = [
  ...identityMigrations,
  ...trustMigrations,
  ...refusalMigrations,
  ...reportMigrations,
  ...updateMigrations,
  ...clockMigrations,
  ...keeperMigrations,
  ...deferralMigrations,
  ...movesMigrations,
];

export const stateFile = 'state.sqlite';

export interface OpenedState {
  keeper: Keeper;
  /** The update machine's memory is gone: what lies on the disk may still be what it needs. */
  journalLost: boolean;
  close(): Promise<void>;
}

/** Faults of which the database itself is not the reason, or that another start may not have. */
function isBroken(fault: FleetError): boolean {
  if (fault.code === 'state-corrupt' || fault.code === 'internal') return true;
  return fault.code === 'disk-io' && /SQLITE_IOERR_(SHORT_READ|READ|CORRUPTFS)/.test(fault.message);
}

/** Opens the database and reads all of it once; a fault that says `broken` where something is torn. */
async function openWhole(place: Place): Promise<{ store: Store; held: Held } | FleetError> {
  let store: Store | null = null;
  try {
    store = await place.openStore(stateFile, { synchronous: 'FULL', migrations: agentMigrations });
    const checked = await store.tx((db) => db.get<{ quick_check: string }>('PRAGMA quick_check(1)'));
    const held = await store.tx(readHeld);
    await loadTrust(store);
    await store.tx(readMachines);
    if (checked?.quick_check === 'ok' && isWhole(held)) return { store, held };
    await store.close();
    return asFleetError(new Error(checked?.quick_check ?? 'no answer'));
  } catch (thrown) {
    await store?.close();
    return asFleetError(thrown);
  }
}

/** Faults: those of `openStore` that another program or version can cure; never a broken database. */
export async function openState(place: Place, log: Log): Promise<OpenedState> {
  const disk = place.disk('.');
  // A journal without its database would be played into the new one.
  if ((await disk.size(stateFile)) === null) await setAside(disk, stateFile);
  const copy = await readCopy(disk);
  let opened = await openWhole(place);
  let lost = false;
  if ('code' in opened) {
    if (!isBroken(opened)) throw opened;
    const aside = await setAside(disk, stateFile);
    log.emit('error', 'state.restored', {
      from: typeof copy === 'string' ? 'nothing' : copyFile,
      because: opened.message,
      ...aside,
    });
    lost = true;
    opened = await openWhole(place);
    if ('code' in opened) throw opened;
  }
  const { store, held } = opened;
  try {
    if (typeof copy === 'string') {
      if (copy === 'broken')
        log.emit('warn', 'state.restored', { from: stateFile, because: `${copyFile} is broken` });
    } else if (held.identity === null && copy.identity !== null && !lost) {
      log.emit('error', 'state.restored', { from: copyFile, because: `${stateFile} was empty` });
      lost = true;
    }
    const merged = typeof copy === 'string' ? { ...nothingHeld, ...held } : higherOf(held, copy);
    const second = createSecondCopy(disk, merged);
    // The copy first, also here.
    await second.save({});
    // A start is written to the copy and then to the store, so a store of an older start has lost some.
    const behind = lost || held.boot + 1 < merged.boot;
    await store.tx((db) => writeHeld(db, merged, behind));
    const close = async (): Promise<void> => {
      await second.close();
      await store.close();
    };
    return { keeper: createKeeper(store, second), journalLost: lost, close };
  } catch (error) {
    await store.close();
    throw error;
  }
}
