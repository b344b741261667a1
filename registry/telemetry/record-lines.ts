// Why: a batch's records as they lie in the registry, made into lines of NDJSON without becoming strings on the way:
// a question after a million records is answered as fast as bytes are copied.
// Trusts: `plainOf`, which wrote the bytes. Must never: cut a record, or hand on one that was not asked for.

import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { type BatchPlace, noRelease } from './sealed-records.ts';

export interface LinesWanted {
  /** The first record of the batch that is wanted, and how many at most. */
  first: number;
  limit: number;
  /** By the device's clock: from `sinceMs` on, before `untilMs`. */
  sinceMs: number;
  untilMs: number;
  /** `NS/NAME@VERSION`; null for any and none. */
  release: string | null;
}

const [lineFeed, space, zero, nine] = [0x0a, 0x20, 0x30, 0x39];
const encoder = new TextEncoder();
const lineEnd = encoder.encode('}\n');
/** A release's name with its key, and what else stands between the fields. */
const aroundRelease = 80;
/** Of an index or a time. */
const digitsMax = 20;

/** Bytes with room for more. */
class Lines {
  bytes: Uint8Array;
  length = 0;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
  }

  makeRoom(count: number): void {
    if (this.length + count <= this.bytes.length) return;
    const wider = new Uint8Array(Math.max(2 * this.bytes.length, this.length + count));
    wider.set(this.bytes.subarray(0, this.length));
    this.bytes = wider;
  }

  add(part: Uint8Array): void {
    this.bytes.set(part, this.length);
    this.length += part.length;
  }

  /** A few bytes: cheaper one by one than as a view. */
  addRange(from: Uint8Array, first: number, end: number): void {
    const { bytes } = this;
    let at = this.length;
    for (let index = first; index < end; index += 1) bytes[at++] = from[index] as number;
    this.length = at;
  }

  /** A whole number from 0 on, in decimal. */
  addCount(value: number): void {
    let places = 1;
    for (let rest = Math.floor(value / 10); rest > 0; rest = Math.floor(rest / 10)) places += 1;
    let rest = value;
    for (let at = this.length + places - 1; at >= this.length; at -= 1) {
      this.bytes[at] = zero + (rest % 10);
      rest = Math.floor(rest / 10);
    }
    this.length += places;
  }
}

function timeIn(plain: Uint8Array, first: number, end: number): number {
  let value = 0;
  for (let at = first; at < end; at += 1) {
    const digit = plain[at] as number;
    // A clock before 1970, or what an earlier version wrote: rare, and read the long way.
    if (digit < zero || digit > nine) return Number(new TextDecoder().decode(plain.subarray(first, end)));
    value = 10 * value + (digit - zero);
  }
  return value;
}

function isRange(plain: Uint8Array, first: number, end: number, same: Uint8Array): boolean {
  if (end - first !== same.length) return false;
  for (let at = 0; at < same.length; at += 1) if (plain[first + at] !== same[at]) return false;
  return true;
}

/** Each wanted record as a `StoredRecord` with its line feed, and how many there are. */
export function recordLines(
  plain: Uint8Array,
  batch: BatchPlace & { class: TelemetryClass },
  wanted: LinesWanted,
): { lines: Uint8Array; records: number } {
  const { deviceId, epoch, sequence, class: kind } = batch;
  const { first, limit, sinceMs, untilMs } = wanted;
  const start = encoder.encode(
    `{"device":${JSON.stringify(deviceId)},"epoch":${epoch},"sequence":${sequence},"index":`,
  );
  const middle = encoder.encode(`,"class":${JSON.stringify(kind)},"timeMs":`);
  const only = wanted.release === null ? null : encoder.encode(wanted.release);
  let release = new Uint8Array(0);
  let afterTime = new Uint8Array(0);
  // As many lines as if all were as long as the first.
  const likely = Math.ceil(plain.length / (plain.indexOf(lineFeed) + 1 || 1));
  const out = new Lines(plain.length + likely * (start.length + middle.length + aroundRelease));
  let records = 0;
  let index = -1;
  for (let from = 0; from < plain.length && records < limit; ) {
    const end = plain.indexOf(lineFeed, from);
    if (end < 0) break;
    const line = from;
    from = end + 1;
    index += 1;
    if (index < first) continue;
    const afterClock = plain.indexOf(space, line);
    const afterRelease = plain.indexOf(space, afterClock + 1);
    const timeMs = timeIn(plain, line, afterClock);
    if (timeMs < sinceMs || timeMs >= untilMs) continue;
    if (only !== null && !isRange(plain, afterClock + 1, afterRelease, only)) continue;
    if (afterTime.length === 0 || !isRange(plain, afterClock + 1, afterRelease, release)) {
      release = plain.slice(afterClock + 1, afterRelease);
      const name = new TextDecoder().decode(release);
      afterTime = encoder.encode(`,"release":${JSON.stringify(name === noRelease ? null : name)},"data":`);
    }
    out.makeRoom(start.length + middle.length + afterTime.length + 2 * digitsMax + end - line);
    out.add(start);
    out.addCount(index);
    out.add(middle);
    out.addRange(plain, line, afterClock);
    out.add(afterTime);
    out.add(plain.subarray(afterRelease + 1, end));
    out.add(lineEnd);
    records += 1;
  }
  return { lines: out.bytes.subarray(0, out.length), records };
}
