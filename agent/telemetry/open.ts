// Why: the outbox's own database file, so that telemetry that is written often cannot slow down or fill what
// the device trusts (`state.sqlite`). Trusts: the state folder, locked for this process.
// Must never: open it with less than `synchronous = FULL`; an answered record outlives a power cut. Nor keep the
// device from starting because it is broken, or throw a broken one away without a word.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Place, Store } from '../../shared/kernel/ports.ts';
import { outboxFileOf } from '../trust/moves.ts';
import { setAside } from '../trust/whole-file.ts';
import { outboxMigrations } from './outbox-tables.ts';
import { type NextRegion, startTelemetry, type Telemetry, type TelemetryParts } from './telemetry.ts';

/** The first one's; a move begins another (agent/trust/moves.ts). */
export const outboxFile = outboxFileOf(0);

/** A larger one is not read through at start: a device that was offline for weeks must still serve soon. */
const checkBytesMax = 16 * 1024 * 1024;

async function openStore(place: Place, file: string): Promise<Store> {
  const store = await place.openStore(file, {
    synchronous: 'FULL',
    reclaim: true,
    migrations: outboxMigrations,
  });
  try {
    if (((await place.disk('.').size(file)) ?? 0) > checkBytesMax) return store;
    const checked = await store.tx((db) => db.get<{ quick_check: string }>('PRAGMA quick_check(1)'));
    if (checked?.quick_check !== 'ok') throw new Error(checked?.quick_check ?? 'no answer');
    return store;
  } catch (error) {
    await store.close();
    throw error;
  }
}

/**
 * Opens the store of an outbox and hands it to `use`; a broken file is set aside, told, and begun anew.
 * Faults: those of `openStore`, but never a broken file.
 */
export async function withOutboxStore<T>(
  place: Place,
  outbox: number,
  parts: Pick<TelemetryParts, 'log' | 'onRefused'>,
  use: (store: Store) => Promise<T>,
): Promise<T> {
  const file = outboxFileOf(outbox);
  const once = async (): Promise<T> => {
    const store = await openStore(place, file);
    try {
      return await use(store);
    } catch (error) {
      await store.close();
      throw error;
    }
  };
  try {
    return await once();
  } catch (thrown) {
    const fault = asFleetError(thrown);
    if (fault.code !== 'state-corrupt' && fault.code !== 'internal') throw fault;
    const aside = await setAside(place.disk('.'), file);
    const bytes = aside?.bytes ?? 0;
    const detail = `${file} was broken (${fault.message}); ${bytes} bytes were set aside as ${aside?.path}`;
    parts.log.emit('error', 'outbox.failed', { while: 'opening', code: 'telemetry-lost', detail, bytes });
    parts.onRefused({ code: 'telemetry-lost', detail }, `outbox ${aside?.path}`);
    return once();
  }
}

type OpenParts = Omit<TelemetryParts, 'store'> & {
  /** Which outbox is in use. */
  outbox: number;
};

export interface OpenedTelemetry extends Omit<Telemetry, 'moveOn'> {
  /** Another region, and another outbox; the one before is closed when it resolves, and is the carried one from then on. Idempotent. */
  moveOn(next: NextRegion & { outbox: number }): Promise<void>;
}

/** Telemetry on a file of its own; `stop` closes it. Faults: those of `withOutboxStore`. */
export async function openTelemetry(place: Place, parts: OpenParts): Promise<OpenedTelemetry> {
  const opened = await withOutboxStore(place, parts.outbox, parts, async (store) => ({
    telemetry: await startTelemetry({ ...parts, store }),
    store,
  }));
  const { telemetry } = opened;
  let { store } = opened;
  let inUse = parts.outbox;
  return {
    ...telemetry,
    moveOn: async ({ outbox, ...owner }) => {
      if (outbox === inUse) return;
      const left = store;
      await withOutboxStore(place, outbox, parts, async (fresh) => {
        await telemetry.moveOn({ ...owner, store: fresh });
        store = fresh;
        inUse = outbox;
      });
      await left.close();
    },
    stop: async () => {
      await telemetry.stop();
      await store.close();
    },
  };
}
