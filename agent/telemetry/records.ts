// Why: what an application posts becomes records, line by line, all of them or none.
// Trusts: nothing in the body. Must never: change a number; what JSON readers would round is refused.

import { type JsonValue, parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { type TelemetryRecord, telemetryRecordSchema } from '../../shared/wire/telemetry.ts';

const newline = 0x0a;

/**
 * NDJSON: one object a line, empty lines are skipped. `timeMs` (default: now) and `release` (default: null)
 * are the record's own; everything else is its data, or `data` is, where that is an object and nothing
 * else is there. Refusal: `input-invalid`, naming the line.
 */
export function parseRecords(body: Uint8Array, nowMs: number): Result<TelemetryRecord[]> {
  const records: TelemetryRecord[] = [];
  let number = 0;
  for (let at = 0; at < body.length; ) {
    const found = body.indexOf(newline, at);
    const end = found === -1 ? body.length : found;
    const line = body.subarray(at, end);
    at = end + 1;
    number += 1;
    if (isBlank(line)) continue;
    const record = parseLine(line, nowMs);
    if (!record.ok) return refuse('input-invalid', `line ${number}: ${record.refusal.detail}`);
    records.push(record.value);
  }
  return ok(records);
}

function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}

function parseLine(line: Uint8Array, nowMs: number): Result<TelemetryRecord> {
  const parsed = parseStrictJson(line);
  if (!parsed.ok) return parsed;
  const { value } = parsed;
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    return refuse('input-invalid', 'a JSON object is expected');
  }
  const rounded = roundedInteger(Buffer.from(line.buffer, line.byteOffset, line.length));
  if (rounded !== null) {
    return refuse('input-invalid', `${rounded} has no exact double; send it as a string`);
  }
  const { timeMs, release, ...rest } = value;
  const record = telemetryRecordSchema.safeParse({
    timeMs: timeMs ?? nowMs,
    release: release ?? null,
    data: ownData(rest),
  });
  return record.success ? ok(record.data) : refuse('input-invalid', describeIssues(record.error));
}

function ownData(rest: { [key: string]: JsonValue }): { [key: string]: JsonValue } {
  const { data } = rest;
  const isObject = data !== null && typeof data === 'object' && !Array.isArray(data);
  return isObject && Object.keys(rest).length === 1 ? data : rest;
}

/** The first integer that JSON readers with doubles would change, as it was written. */
function roundedInteger(line: Buffer): string | null {
  const text = line.toString('utf8');
  // Below 16 digits every integer is exact.
  if (!/\d{16}/.test(text)) return null;
  const withoutStrings = text.replace(/"(?:[^"\\]|\\.)*"/g, '""');
  for (const [literal] of withoutStrings.matchAll(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g)) {
    if (/^-?\d{16,}$/.test(literal) && BigInt(literal) !== BigInt(Number(literal))) return literal;
  }
  return null;
}
