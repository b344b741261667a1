// Why: a device that is offline for a month and records once a second, in virtual time through the real outbox on a real
// file, whole or scaled down. Trusts: a clock of its own. Must never: look away while the file grows.

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import type { Outbox, OutboxCounters, OutboxLimits } from '../../agent/telemetry/outbox-port.ts';
import type { OutboxOwner } from '../../agent/telemetry/outbox-tables.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock, Store } from '../../shared/kernel/ports.ts';
import type { TelemetryClass, TelemetryRecord } from '../../shared/wire/telemetry.ts';

export interface MonthParts {
  store: Store;
  /** The database's file, whose size is watched. */
  file: string;
  owner: OutboxOwner;
  records: number;
  limits?: Partial<OutboxLimits>;
  startMs: number;
  /** Records that share one append, as an application that sends once a minute has them. */
  recordsPerAppend: number;
  /** The record of this second. */
  make(second: number): { className: TelemetryClass; record: TelemetryRecord };
  /** Points of the curve of sizes. */
  points?: number;
}

export interface Month {
  outbox: Outbox;
  counters: OutboxCounters;
  /** Size of file and log when so many records were made. */
  sizes: { records: number; fileBytes: number; logBytes: number }[];
  fileBytesMax: number;
  logBytesMax: number;
  /** Records that the outbox itself refused, durably nowhere: none while the policy can make room. */
  refused: number;
  /** What the process handed to its disk, beside it what SQLite alone would have to: the records' text. */
  writtenBytes: number;
  plainBytes: number;
}

/** The real clock's timers under a wall that a second goes by for each record. */
export function secondsClock(startMs: number): Clock & { second: number } {
  const self = {
    second: 0,
    wall: () => startMs + self.second * 1_000,
    mono: () => self.second * 1_000,
    timer: (ms: number) => systemClock.timer(ms),
  };
  return self;
}

/** Bytes that this process handed to the disk's cache; a file of the kernel's, so Linux only. */
export function writtenBytes(): number {
  return Number(/^wchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? Number.NaN);
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

export async function offlineMonth(parts: MonthParts): Promise<Month> {
  const clock = secondsClock(parts.startMs);
  const outbox = await openOutbox({
    store: parts.store,
    clock,
    entropy: systemEntropy,
    deflate: systemDeflate,
    log: { emit: () => undefined },
    ...(parts.limits === undefined ? {} : { limits: parts.limits }),
  });
  unwrap(await outbox.useKey(parts.owner));
  const month: Omit<Month, 'counters' | 'outbox'> = {
    ...{ sizes: [], fileBytesMax: 0, logBytesMax: 0, refused: 0, plainBytes: 0, writtenBytes: 0 },
  };
  const before = writtenBytes();
  const pointEvery = Math.ceil(parts.records / (parts.points ?? 30));
  let pointAt = pointEvery;
  for (let made = 0; made < parts.records; ) {
    const byClass = new Map<TelemetryClass, TelemetryRecord[]>();
    const end = Math.min(parts.records, made + parts.recordsPerAppend);
    for (; made < end; made += 1) {
      const { className, record } = parts.make(made);
      const some = byClass.get(className) ?? [];
      if (some.length === 0) byClass.set(className, some);
      some.push(record);
      month.plainBytes += JSON.stringify(record).length + 1;
    }
    clock.second = made;
    for (const [className, some] of byClass) {
      const appended = await outbox.append(className, some);
      if (!appended.ok) {
        assert.equal(appended.refusal.code, 'telemetry-full');
        month.refused += some.length;
      }
    }
    const fileBytes = sizeOf(parts.file);
    const logBytes = sizeOf(`${parts.file}-wal`);
    month.fileBytesMax = Math.max(month.fileBytesMax, fileBytes);
    month.logBytesMax = Math.max(month.logBytesMax, logBytes);
    if (made >= pointAt || made === parts.records) {
      month.sizes.push({ records: made, fileBytes, logBytes });
      pointAt += pointEvery;
    }
  }
  month.writtenBytes = writtenBytes() - before;
  return { ...month, outbox, counters: outbox.counters() };
}
