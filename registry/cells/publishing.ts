// Why: closes days: makes their cells, signs them and stores them in one commit, each day once.
// Trusts: shared/stats/cells.ts for what may be told. Must never: publish a day again, whatever is known of it later: the
// difference would be about those who were late.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { modelOfRelease } from '../../shared/kernel/releases.ts';
import { type MadeCell, makeModelCell, makeReleaseCell } from '../../shared/stats/cells.ts';
import { type Members, neighbourDays } from '../../shared/stats/cohort.ts';
import { type DisclosureTerms, disclosurePercent } from '../../shared/stats/disclosure.ts';
import { signCell } from '../../shared/trust/cells.ts';
import { type CellStatement, cellStatementSchema } from '../../shared/wire/cells.ts';
import { encodeMessage, schemaVersion } from '../../shared/wire/messages.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { createDayRows } from './day-rows.ts';

export const cellDayMs = 86_400_000;
/** A day is closed so long after its end: devices that were off for an evening are in it, and it is known the day after next. */
export const cellGraceMs = 24 * 3_600_000;
/** Days before that were never closed are not told of any more: a new registry on old sums would publish for hours. */
const daysBack = 31;
/** As an envelope may have, less the base64. */
const bodyBytesMax = 740_000;

export interface CellPublishing {
  /** Closes every day that is due, the oldest first; how many. A failure leaves the day open. */
  closeDue(): Promise<number>;
}

interface NamedCell {
  kind: CellStatement['kind'];
  subject: string;
  model: string;
  made: MadeCell;
}

export function createCellPublishing(parts: {
  region: string;
  store: RegistryStore;
  /** The region's `ack` key. */
  signer: Signer;
  /** k, as the policy says at publication. */
  devicesMin(): number;
  clock: Clock;
  log: Log;
}): CellPublishing {
  const { region, store, signer, clock, log } = parts;
  const { qb } = store;
  const rows = createDayRows(store);

  function nextDayIn(db: RegistryDb, nowMs: number): number | null {
    const newest = Math.floor((nowMs - cellGraceMs) / cellDayMs) - 1;
    const closed = db.first(qb.selectFrom('cell_days').select('day').orderBy('day', 'desc').limit(1));
    const from = Math.max(newest - daysBack + 1, closed === undefined ? 0 : closed.day + 1);
    if (from > newest) return null;
    const found = rows.firstDayIn(db, from);
    // A day of which nothing is there is closed as well: what comes now is late.
    return found === null ? newest : Math.min(found, newest);
  }

  /** Erasures that ended or began: who is in one is in no cell, and one that comes in between starts the day anew. */
  function erasuresIn(db: RegistryDb): { open: Set<string>; mark: string } {
    const open = db.all(qb.selectFrom('erasures').select('device_id').where('certificate', 'is', null));
    const all = db.first(qb.selectFrom('erasures').select((eb) => eb.fn.countAll<number>().as('count')));
    return { open: new Set(open.map((row) => row.device_id)), mark: `${all?.count ?? 0} ${open.length}` };
  }

  function membersIn(db: RegistryDb, kind: CellStatement['kind'], subject: string, day: number): Members[] {
    return db
      .all(
        qb
          .selectFrom('cell_members')
          .select('members')
          .where('kind', '=', kind)
          .where('subject', '=', subject)
          .where('day', '>=', day - neighbourDays)
          .where('day', '<', day)
          .orderBy('day', 'desc'),
      )
      .map(({ members }) => new Set(fromColumn<string[]>(members)));
  }

  async function makeDay(
    day: number,
    leaveOut: ReadonlySet<string>,
    terms: DisclosureTerms,
  ): Promise<NamedCell[]> {
    const cells: NamedCell[] = [];
    for (const release of await store.tx((db) => rows.releasesIn(db, day))) {
      const devices = await rows.read(release, day, leaveOut);
      const before = await store.tx((db) => membersIn(db, 'release', release, day));
      const made = makeReleaseCell(devices, before, terms);
      if (made.members.size > 0)
        cells.push({ kind: 'release', subject: release, model: modelOfRelease(release), made });
    }
    for (const model of new Set(cells.map((cell) => cell.model))) {
      const releases = cells.filter((cell) => cell.model === model && cell.kind === 'release');
      // Of one release alone it would say the same again.
      if (releases.length < 2) continue;
      const before = await store.tx((db) => membersIn(db, 'model', model, day));
      const made = makeModelCell(
        releases.map((one) => one.made),
        before,
        terms,
      );
      cells.push({ kind: 'model', subject: model, model, made });
    }
    return cells;
  }

  /** The statement as bytes that fit an envelope: where they do not, the features stay here. */
  function statementOf(cell: NamedCell, body: NonNullable<MadeCell['body']>, day: number): CellStatement {
    const { kind, subject, made } = cell;
    // Through the schema, so that keys have one order and nothing is published that a peer would refuse.
    const whole = cellStatementSchema.parse({ schemaVersion, region, day, kind, subject, ...body });
    if (whole.features === null || encodeMessage(whole).length <= bodyBytesMax) return whole;
    made.withheld.push({ part: 'features', rule: 'cells/size' });
    return { ...whole, features: null };
  }

  function storeIn(
    db: RegistryDb,
    day: number,
    cells: readonly NamedCell[],
  ): { published: number; withheld: number } {
    const signed = cells.flatMap((cell) => {
      const { body } = cell.made;
      return body === null ? [] : [{ ...cell, statement: statementOf(cell, body, day) }];
    });
    const published = signed.length;
    const withheld = cells.reduce((sum, { made }) => sum + made.withheld.length, 0);
    const counts = { published, withheld, late_records: 0 };
    db.run(qb.insertInto('cell_days').values({ day, closed_at_ms: clock.wall(), ...counts }));
    for (const { kind, subject, model, made, statement } of signed) {
      const { payload, signatures } = signCell(statement, signer);
      const body = new Uint8Array(Buffer.from(payload, 'base64'));
      const row = { day, kind, subject, model, body, signatures: JSON.stringify(signatures) };
      db.run(qb.insertInto('cells').values(row));
      const members = JSON.stringify([...made.members].sort());
      db.run(qb.insertInto('cell_members').values({ kind, subject, day, members }));
    }
    for (const { kind, subject, model, made } of cells)
      for (const { part, rule } of made.withheld)
        db.run(qb.insertInto('cells_withheld').values({ day, kind, subject, model, part, rule }));
    db.run(qb.deleteFrom('cell_members').where('day', '<', day - neighbourDays));
    return { published, withheld };
  }

  /** False where something came in between. */
  async function close(day: number): Promise<boolean> {
    const before = await store.tx((db) => erasuresIn(db));
    const terms = { devicesMin: parts.devicesMin(), percent: disclosurePercent };
    const cells = await makeDay(day, before.open, terms);
    const stored = await store.tx((db) =>
      erasuresIn(db).mark === before.mark ? storeIn(db, day, cells) : null,
    );
    if (stored !== null) log.emit('info', 'cells.published', { day, ...stored });
    return stored !== null;
  }

  return {
    async closeDue() {
      let closed = 0;
      for (;;) {
        const day = await store.tx((db) => nextDayIn(db, clock.wall()));
        if (day === null || !(await close(day))) return closed;
        closed += 1;
      }
    },
  };
}
