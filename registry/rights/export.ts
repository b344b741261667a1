// Why: a person may see everything that a region holds about their device; this reads it, table by table, as lines.
// Trusts: its callers to have checked the right. Must never: hold all of it in memory, give out the secret half of a key, or
// end without saying how many entries there were.

import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type RightsSection, rightsSections } from '../../shared/wire/rights.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { TelemetryKeys } from '../telemetry/keys.ts';
import type { RecordMeter, TelemetryRecords } from '../telemetry/records.ts';
import { createSampleDesk } from '../telemetry/samples.ts';
import { exportedTables, followedTables } from './exported-tables.ts';

export interface RightsExport {
  /**
   * Lines of NDJSON (`RightsLine`), whole lines at a time; `meter` is told of records and of what is in samples. Refusals: `not-found` (nothing is here of such a device),
   * `erasures-unconfirmed`.
   */
  read(deviceId: string, meter?: RecordMeter): Promise<Result<AsyncGenerator<Uint8Array>>>;
}

export type RightsCounts = Partial<Record<RightsSection, number>>;

const rowsAtOnce = 200;
const encoder = new TextEncoder();

/** JSON in a column is shown as what it is, bytes in base64. */
function shownValue(value: unknown): unknown {
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString('base64') };
  if (typeof value !== 'string' || !/^[[{]/.test(value)) return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}

const shownRow = (row: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(row).map(([column, value]) => [column, shownValue(value)]));

export function createRightsExport(parts: {
  store: RegistryStore;
  telemetryKeys: Pick<TelemetryKeys, 'ofDevice'>;
  records: TelemetryRecords;
  clock: Clock;
  /** Entries of the audit record about a device. */
  auditOf: (deviceId: string) => AsyncIterable<Record<string, unknown>>;
  /** When it ended, whole or not. */
  ended(deviceId: string, counts: RightsCounts, whole: boolean): Promise<void>;
}): RightsExport {
  const { store, telemetryKeys, records } = parts;
  const desk = createSampleDesk(parts);

  function keyColumnsOf(db: RegistryDb, table: string): string {
    const columns = db.sql.all<{ name: string; pk: number }>(`PRAGMA table_info(${table})`);
    const key = columns.filter(({ pk }) => pk > 0).sort((one, other) => one.pk - other.pk);
    return key.map(({ name }) => name).join(', ');
  }

  async function* rows(
    table: string,
    where: string,
    deviceId: string,
  ): AsyncGenerator<Record<string, unknown>> {
    for (let offset = 0; ; offset += rowsAtOnce) {
      const some = await store.tx((db) =>
        db.sql.all<Record<string, unknown>>(
          `SELECT * FROM ${table} WHERE ${where} ORDER BY ${keyColumnsOf(db, table)} LIMIT ? OFFSET ?`,
          ...[deviceId, rowsAtOnce, offset],
        ),
      );
      for (const row of some) yield shownRow(row);
      if (some.length < rowsAtOnce) return;
    }
  }

  async function* samples(deviceId: string): AsyncGenerator<Record<string, unknown>> {
    for await (const row of rows('samples', 'device_id = ?', deviceId)) {
      const shown = await desk.show(`${row['batch_id']}.${row['record_index']}`);
      // Its record was erased: what is left of it is the row.
      yield shown.ok ? { ...shown.value } : row;
    }
  }

  async function* keys(deviceId: string): AsyncGenerator<Record<string, unknown>> {
    for (const key of await telemetryKeys.ofDevice(deviceId)) yield { ...key };
  }

  type Source = (deviceId: string) => AsyncIterable<Record<string, unknown>>;
  const sources = new Map<RightsSection, Source>([
    ...Object.entries(exportedTables).map(([table, section]): [RightsSection, Source] => [
      section,
      (deviceId) => rows(table, 'device_id = ?', deviceId),
    ]),
    ...followedTables.map(({ table, section, where }): [RightsSection, Source] => [
      section,
      (deviceId) => rows(table, where, deviceId),
    ]),
    ['samples', samples],
    ['telemetry-keys', keys],
    ['audit', parts.auditOf],
  ]);

  async function* lines(
    deviceId: string,
    stored: AsyncGenerator<Uint8Array>,
    meter: RecordMeter,
  ): AsyncGenerator<Uint8Array> {
    const counts: RightsCounts = {};
    let whole = false;
    try {
      for (const section of Object.keys(rightsSections) as RightsSection[]) {
        let count = 0;
        const head = `{"section":${JSON.stringify(section)},"data":`;
        if (section === 'records')
          for await (const block of stored) {
            // JSON as the records hold it, line by line; it is not parsed to be handed on.
            const found = new TextDecoder().decode(block).split('\n').slice(0, -1);
            count += found.length;
            yield encoder.encode(found.map((line) => `${head}${line}}\n`).join(''));
          }
        else
          for await (const data of sources.get(section)?.(deviceId) ?? []) {
            count += 1;
            const line = encoder.encode(`${head}${JSON.stringify(data)}}\n`);
            if (section === 'samples') meter('sample', 1, line.length);
            yield line;
          }
        counts[section] = count;
      }
      yield encoder.encode(`${JSON.stringify({ section: 'end', counts })}\n`);
      whole = true;
    } finally {
      await stored.return(undefined);
      await parts.ended(deviceId, counts, whole);
    }
  }

  function isKnownIn(db: RegistryDb, deviceId: string): boolean {
    return ['devices', 'erasures', 'peer_erasures'].some(
      (table) => db.sql.get(`SELECT 1 FROM ${table} WHERE device_id = ? LIMIT 1`, deviceId) !== undefined,
    );
  }

  return {
    async read(deviceId, meter = () => undefined) {
      if (!(await store.tx((db) => isKnownIn(db, deviceId))))
        return refuse('not-found', `nothing is held here of a device ${deviceId}`);
      const stored = await records.read({ device: deviceId }, { cursor: null, limit: null, meter });
      if (!stored.ok) return stored;
      return ok(lines(deviceId, stored.value, meter));
    },
  };
}
