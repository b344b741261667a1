// Why: what the agent itself has to tell: events of its update machine and refusals, and statistics.
// Trusts: its callers to give codes and ids, no payloads. Must never: hold the update machine up, nor grow
// without bound before there is a key.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import type { TelemetryClass, TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { createDoorbell } from '../bus/doorbell.ts';
import type { Outbox } from './outbox-port.ts';
import type { RequestFact } from './stats.ts';
import { createStats } from './stats.ts';

export interface Producers {
  /** Records an event; returns at once. Before there is a key the last hundred wait in memory. */
  event(kind: string, release: string | null, data: Record<string, unknown>): void;
  request(fact: RequestFact): void;
  /** Appends a record of class `sample`, masked already; nothing before there is a key. Returns at once. */
  sample(record: TelemetryRecord): void;
  /** More records for each window of statistics. Must not throw, nor wait. */
  everyWindow(records: () => TelemetryRecord[]): void;
  /** There is a key now: what waited is appended. */
  keyArrived(): void;
  /** Settles when everything that was given so far was appended; another promise once more was given. */
  pending(): Promise<void>;
  /** Appends the last statistics and waits until everything given was appended. */
  stop(): Promise<void>;
}

const eventsWaitingMax = 100;

export function startProducers(parts: {
  outbox: Pick<Outbox, 'ready' | 'append'>;
  clock: Clock;
  log: Log;
  statsEveryMs?: number;
}): Producers {
  const { outbox, clock, log } = parts;
  const everyMs = parts.statsEveryMs ?? limits.statsEveryMs;
  const stats = createStats(clock);
  const bell = createDoorbell(clock);
  let events: TelemetryRecord[] = [];
  let lost = 0;
  let pending: Promise<void> = Promise.resolve();
  let stopped = false;
  const sources: (() => TelemetryRecord[])[] = [() => stats.take()];
  const window = (): TelemetryRecord[] => sources.flatMap((take) => take());

  const now = (): number => Math.max(0, Math.floor(clock.wall()));

  function append(className: TelemetryClass, records: TelemetryRecord[]): void {
    if (records.length === 0) return;
    pending = pending.then(async () => {
      try {
        const appended = await outbox.append(className, records);
        if (appended.ok) return;
        log.emit('warn', 'outbox.failed', { while: `appending ${className}`, ...appended.refusal });
      } catch (error) {
        const fault = asFleetError(error);
        log.emit('error', 'outbox.failed', {
          while: `appending ${className}`,
          code: fault.code,
          detail: fault.message,
        });
      }
    });
  }

  function flushEvents(): void {
    if (!outbox.ready()) return;
    if (lost > 0) {
      events.unshift({ timeMs: now(), release: null, data: { kind: 'events-lost', events: lost } });
      lost = 0;
    }
    append('event', events.splice(0));
  }

  async function run(): Promise<void> {
    while (!stopped) {
      if ((await bell.wait(everyMs)) || stopped) continue;
      if (outbox.ready()) append('stats', window());
    }
  }

  const running = run();
  return {
    event: (kind, release, data) => {
      events.push({ timeMs: now(), release, data: { kind, ...data } });
      if (events.length > eventsWaitingMax) {
        events = events.slice(-eventsWaitingMax);
        lost += 1;
      }
      flushEvents();
    },
    request: (fact) => stats.add(fact),
    sample: (record) => {
      if (outbox.ready() && !stopped) append('sample', [record]);
    },
    everyWindow: (records) => void sources.push(records),
    keyArrived: flushEvents,
    pending: () => pending,
    stop: async () => {
      if (stopped) return;
      stopped = true;
      bell.ring();
      await running;
      flushEvents();
      if (outbox.ready()) append('stats', window());
      await pending;
    },
  };
}
