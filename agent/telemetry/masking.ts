// Why: rules of the region applied to a record before it is sealed. Pure.
// Trusts: the assignment that the rules came in. Must never: let a value through that a rule was meant for and does not fit.

import { hmacSha256Hex } from '../../shared/crypto/digests.ts';
import type { MaskedClass, Masking, MaskingRule } from '../../shared/wire/masking.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';

/** Of 64 hex digits; enough that no two values of a fleet share one by chance. */
const digestDigits = 32;

type Fields = Record<string, unknown>;

/** The record as it may leave the device; the given one is not changed. */
export function masked(record: TelemetryRecord, of: MaskedClass, masking: Masking | null): TelemetryRecord {
  if (masking === null) return record;
  const rules = masking.rules.filter((rule) => ruleApplies(rule, of, record.release));
  if (rules.length === 0) return record;
  let data: unknown = record.data;
  for (const rule of rules) data = along(data, rule.field, (value) => changed(value, rule, masking.key));
  return { ...record, data: data as Fields };
}

export function ruleApplies(rule: MaskingRule, of: MaskedClass, release: string | null): boolean {
  if (rule.classes !== undefined && !rule.classes.includes(of)) return false;
  // A record that names no release might be about any.
  return rule.model === undefined || release === null || release.startsWith(`${rule.model}@`);
}

/** What `change` makes of each value that the path leads to; undefined: it goes. */
function along(value: unknown, path: readonly string[], change: (value: unknown) => unknown): unknown {
  const [part, ...rest] = path;
  if (part === undefined) return change(value);
  if (Array.isArray(value)) {
    // An array in the middle of a path is looked through, so that one object and a list of them are masked alike.
    const inside = part === '*' ? rest : path;
    return value.map((one: unknown) => along(one, inside, change)).filter((one) => one !== undefined);
  }
  if (typeof value !== 'object' || value === null) return value;
  const fields = value as Fields;
  const out: Fields = {};
  for (const [name, one] of Object.entries(fields)) {
    const made = part === '*' || part === name ? along(one, rest, change) : one;
    // Not by assignment: `__proto__` is a name like any other here.
    if (made !== undefined)
      Object.defineProperty(out, name, { value: made, enumerable: true, writable: true });
  }
  return out;
}

/** Undefined: the value goes. */
export function changed(value: unknown, rule: MaskingRule, keyHex: string): unknown {
  switch (rule.do) {
    case 'drop':
      return undefined;
    case 'hash':
      return hashed(value, keyHex);
    case 'round':
      return typeof value === 'number' ? Math.round(value / rule.to) * rule.to : kept(value);
    case 'clip':
      return typeof value === 'number'
        ? Math.min(rule.max ?? Infinity, Math.max(rule.min ?? -Infinity, value))
        : kept(value);
  }
}

/** Null says nothing, and may stay. */
const kept = (value: unknown): null | undefined => (value === null ? null : undefined);

/** With its type, so that 1 and "1" do not look the same. What has fields of its own is no value. */
function hashed(value: unknown, keyHex: string): unknown {
  if (value === null) return null;
  if (Array.isArray(value))
    return value.map((one: unknown) => hashed(one, keyHex)).filter((one) => one !== undefined);
  if (typeof value === 'object') return undefined;
  const text = `${typeof value} ${String(value)}`;
  return `h:${hmacSha256Hex(Buffer.from(keyHex, 'hex'), new TextEncoder().encode(text)).slice(0, digestDigits)}`;
}
