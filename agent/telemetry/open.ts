// Why: the outbox's own database file, so that telemetry that is written often cannot slow down or fill what
// the device trusts (`state.sqlite`). Trusts: the state folder, locked for this process.
// Must never: open it with less than `synchronous = FULL`; an answered record outlives a power cut.

import { systemDeflate } from '../../shared/host/deflate.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { outboxMigrations } from './outbox-tables.ts';
import { startTelemetry, type Telemetry, type TelemetryParts } from './telemetry.ts';

export const outboxFile = 'outbox.sqlite';

/** Telemetry on a file of its own; `stop` closes it. Faults: those of `openStore`. */
export async function openTelemetry(
  path: string,
  parts: Omit<TelemetryParts, 'store' | 'deflate'>,
): Promise<Telemetry> {
  const store = await openStore(path, { synchronous: 'FULL', reclaim: true, migrations: outboxMigrations });
  const telemetry = await startTelemetry({ ...parts, store, deflate: systemDeflate });
  return {
    ...telemetry,
    stop: async () => {
      await telemetry.stop();
      await store.close();
    },
  };
}
