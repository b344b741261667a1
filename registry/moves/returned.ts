// Why: telemetry that was sealed for this region and came through another one: taken in as any batch is, and answered by the
// way that it came.
// Trusts: the ingest for what a batch is worth; nothing of the region that carried it.
// Must never: lose what it took from the other region's list before it is stored or refused.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { carriedItemSchema } from '../../shared/wire/carried.ts';
import type { RegistryCore } from '../core.ts';
import { toColumn } from '../fleet/columns.ts';
import type { IncomingStream, OutgoingStream } from '../regions/streams.ts';
import type { CarriedInboxTable } from '../store/move-tables.ts';
import type { CarryOutcome, Ingest } from '../telemetry/ingest.ts';

export interface Returned {
  outgoing: OutgoingStream;
  incoming: IncomingStream;
  /** Goes on with what an end left. */
  start(): void;
  stop(): Promise<void>;
  idle(): Promise<void>;
}

/** What no region fetched for so long is of no use to its device any more: it has sent the batch again since. */
const answersKeptMs = 30 * 86_400_000;
const againMs = 1_000;
const lostMs = 60_000;

export function createReturned(core: RegistryCore, parts: { ingest: Pick<Ingest, 'carry'> }): Returned {
  const { store, clock, log } = core;
  const { qb } = store;
  let working: Promise<void> | null = null;
  let wanted = false;
  let stopped = false;
  let wake: () => void = () => undefined;
  const stopping = new Promise<void>((resolve) => {
    wake = resolve;
  });

  const nextRow = () =>
    store.tx((db) => db.first(qb.selectFrom('carried_inbox').selectAll().orderBy('id').limit(1)));

  async function carry(row: { device_id: string; epoch: number; bytes: Uint8Array }): Promise<CarryOutcome> {
    // A fault while it was judged takes it with it, as it takes what a device would send again.
    const timer = clock.timer(lostMs);
    const lost = Promise.race([timer.done, stopping]).then((): CarryOutcome => ({ kind: 'again' }));
    const done = new Promise<CarryOutcome>((resolve) => {
      const payload = new Uint8Array(row.bytes);
      parts.ingest.carry({ deviceId: row.device_id, epoch: row.epoch, payload, done: resolve });
    });
    const outcome = await Promise.race([done, lost]);
    timer.cancel();
    return outcome;
  }

  /** Answered and gone in one commit; cut off before it, the batch is found stored and answered again. */
  async function settle(
    row: Pick<CarriedInboxTable, 'peer' | 'device_id' | 'epoch' | 'sequence' | 'head_sha256'> & {
      id: number;
    },
    outcome: Exclude<CarryOutcome, { kind: 'again' }>,
  ): Promise<void> {
    const { id, peer, device_id, epoch, sequence, head_sha256 } = row;
    const nowMs = clock.wall();
    await store.tx((db) => {
      db.run(
        qb.insertInto('carried_answers').values({
          ...{ peer, device_id, epoch, sequence, head_sha256, at_ms: nowMs },
          answer: outcome.kind === 'answer' ? toColumn(outcome.envelope) : null,
          code: outcome.kind === 'unusable' ? outcome.code : null,
        }),
      );
      db.run(qb.deleteFrom('carried_inbox').where('id', '=', id));
      db.run(qb.deleteFrom('carried_answers').where('at_ms', '<', nowMs - answersKeptMs));
    });
  }

  async function pause(): Promise<void> {
    const timer = clock.timer(againMs);
    await Promise.race([timer.done, stopping]);
    timer.cancel();
  }

  async function work(): Promise<void> {
    while (!stopped) {
      wanted = false;
      try {
        const row = await nextRow();
        if (row === undefined) {
          if (!wanted) return;
          continue;
        }
        const outcome = await carry(row);
        if (outcome.kind === 'again') await pause();
        else await settle(row, outcome);
      } catch (thrown) {
        const fault = asFleetError(thrown);
        log.emit('error', 'carried.failed', { code: fault.code, detail: fault.message });
        await pause();
      }
    }
  }

  function begin(): void {
    wanted = true;
    if (stopped) return;
    working ??= work().finally(() => {
      working = null;
    });
  }

  return {
    start: begin,
    async stop() {
      stopped = true;
      wake();
      await working;
    },
    async idle() {
      while (working !== null) await working;
    },

    incoming: {
      name: 'carried',
      takeIn(db, peer, items) {
        for (const { body } of items) {
          const item = carriedItemSchema.safeParse(body);
          if (!item.success) {
            log.emit('warn', 'carried.refused', { peer, code: 'carried-malformed' });
            continue;
          }
          const { deviceId, epoch, sequence, headSha256, batch } = item.data;
          db.run(
            qb.insertInto('carried_inbox').values({
              ...{ peer, device_id: deviceId, epoch, sequence, head_sha256: headSha256 },
              bytes: new Uint8Array(Buffer.from(batch, 'base64')),
            }),
          );
        }
      },
      taken: begin,
    },

    outgoing: {
      name: 'carried-answers',
      flow: 'carried',
      readIn: (db, peer, after, limit) =>
        db
          .all(
            qb
              .selectFrom('carried_answers')
              .selectAll()
              .where('peer', '=', peer)
              .where('id', '>', after)
              .orderBy('id')
              .limit(limit),
          )
          .map((row) => ({
            id: row.id,
            body: {
              ...{ deviceId: row.device_id, epoch: row.epoch, sequence: row.sequence },
              headSha256: row.head_sha256,
              envelope: row.answer === null ? null : (JSON.parse(row.answer) as object),
              code: row.code,
            },
          })),
    },
  };
}
