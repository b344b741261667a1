// Why: the outbox's own database file, so that telemetry that is written often cannot slow down or fill what
// the device trusts (`state.sqlite`). Trusts: the state folder, locked for this process.
// Must never: open it with less than `synchronous = FULL`; an answered record outlives a power cut. Nor keep the
// device from starting because it is broken, or throw a broken one away without a word.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Place, Store } from '../../shared/kernel/ports.ts';
import { setAside } from '../trust/whole-file.ts';
import { outboxMigrations } from './outbox-tables.ts';
import { startTelemetry, type Telemetry, type TelemetryParts } from './telemetry.ts';

export const outboxFile = 'outbox.sqlite';

/** A larger one is not read through at start: a device that was offline for weeks must still serve soon. */
const checkBytesMax = 16 * 1024 * 1024;

type Opened = Telemetry & { store: Store };

async function openOnce(place: Place, parts: OpenParts): Promise<Opened> {
  const store = await place.openStore(outboxFile, {
    synchronous: 'FULL',
    reclaim: true,
    migrations: outboxMigrations,
  });
  try {
    if (((await place.disk('.').size(outboxFile)) ?? 0) <= checkBytesMax) {
      const checked = await store.tx((db) => db.get<{ quick_check: string }>('PRAGMA quick_check(1)'));
      if (checked?.quick_check !== 'ok') throw new Error(checked?.quick_check ?? 'no answer');
    }
    return { ...(await startTelemetry({ ...parts, store })), store };
  } catch (error) {
    await store.close();
    throw error;
  }
}

type OpenParts = Omit<TelemetryParts, 'store'>;

/** Telemetry on a file of its own; `stop` closes it. Faults: those of `openStore`, but never a broken file. */
export async function openTelemetry(place: Place, parts: OpenParts): Promise<Telemetry> {
  let opened: Opened;
  try {
    opened = await openOnce(place, parts);
  } catch (thrown) {
    const fault = asFleetError(thrown);
    if (fault.code !== 'state-corrupt' && fault.code !== 'internal') throw fault;
    const aside = await setAside(place.disk('.'), outboxFile);
    const bytes = aside?.bytes ?? 0;
    const detail = `${outboxFile} was broken (${fault.message}); ${bytes} bytes were set aside as ${aside?.path}`;
    parts.log.emit('error', 'outbox.failed', { while: 'opening', code: 'telemetry-lost', detail, bytes });
    parts.onRefused({ code: 'telemetry-lost', detail }, `outbox ${aside?.path}`);
    opened = await openOnce(place, parts);
  }
  const { store, ...telemetry } = opened;
  return {
    ...telemetry,
    stop: async () => {
      await telemetry.stop();
      await store.close();
    },
  };
}
