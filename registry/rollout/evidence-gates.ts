// Why: gates on what devices measured while the release served: latency, memory, errors, drift of what it saw and said.
// Trusts: sums of the wave's own devices. Must never: decide on a handful of requests, or pass what cannot be computed.
//
// Each says `fail` only where the measure is above its limit beyond what chance explains, `pass` only where enough was
// counted, and else waits and says for what.

import { type Sketch, type SketchJson, sketchFromJson, sketchQuantile } from '../../shared/stats/sketch.ts';
import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import type { GateView } from './facts.ts';

export interface RequestSums {
  /** From which something was counted. */
  devices: number;
  requests: number;
  /** For which the release or its process is to blame (`blamed`). */
  errors: number;
  /** Of answered requests, milliseconds; null where none was. */
  latency: SketchJson | null;
}

/** Of the wave's devices about the release. */
export interface WaveEvidence extends RequestSums {
  /** Of the same devices about what each ran before; null where no gate compares with it. */
  active: RequestSums | null;
  /** Peak of each device's own probe, bytes. */
  memoryBytes: readonly number[];
  /** Peak of each device's own probe over that of what it ran before; of devices that measured both. */
  memoryRatios: readonly number[];
  /** Null where the release has no reference profile. */
  drift: { devices: number; rows: number; features: readonly FeaturePsi[] } | null;
}

export interface FeaturePsi {
  name: string;
  /** Values on the live side. */
  count: number;
  /** Null where there are too few of them for a word. */
  psi: number | null;
}

export const evidenceGates = [
  'latencyP95Ms',
  'latencyP95Ratio',
  'memoryMiB',
  'memoryRatio',
  'errorRate',
  'errorRateIncrease',
  'driftPsi',
] as const;
export type EvidenceGate = (typeof evidenceGates)[number];

export const comparesWithActive = ({ gates }: RolloutSpec): boolean =>
  gates.latencyP95Ratio !== undefined || gates.errorRateIncrease !== undefined;

export const asksForEvidence = ({ gates }: RolloutSpec): boolean =>
  evidenceGates.some((gate) => gates[gate] !== undefined);

/** What a client did wrong says nothing about the release. */
export const blamed = (code: string): boolean =>
  code.startsWith('model-') ||
  code === 'infer-failed' ||
  code === 'infer-deadline' ||
  code === 'infer-not-ready';

/** Two-sided 95 %. */
const z = 1.96;
const bytesPerMiB = 1_048_576;

/** Wilson’s score interval of `hits` of `count` (Wilson 1927). */
export function wilson(hits: number, count: number): { low: number; high: number } {
  if (count === 0) return { low: 0, high: 1 };
  const share = hits / count;
  const middle = share + z ** 2 / (2 * count);
  const spread = z * Math.sqrt((share * (1 - share)) / count + z ** 2 / (4 * count ** 2));
  const whole = 1 + z ** 2 / count;
  return { low: Math.max(0, (middle - spread) / whole), high: Math.min(1, (middle + spread) / whole) };
}

/** How much greater the first share is than the second, with Newcombe’s bounds (Newcombe 1998, method 10). */
export function increase(
  now: { hits: number; count: number },
  before: { hits: number; count: number },
): { value: number; low: number; high: number } {
  const [p, q] = [now.hits / now.count, before.hits / before.count];
  const [a, b] = [wilson(now.hits, now.count), wilson(before.hits, before.count)];
  return {
    value: p - q,
    low: p - q - Math.hypot(p - a.low, b.high - q),
    high: p - q + Math.hypot(a.high - p, q - b.low),
  };
}

/**
 * A quantile with the bounds that order statistics give it: ranks that a binomial count leaves with 95 %
 * (Hahn and Meeker 1991, §5.2). Null where nothing was measured.
 */
export function quantileBounds(
  sketch: Sketch,
  fraction: number,
): { value: number; low: number; high: number } | null {
  const spread = z * Math.sqrt((fraction * (1 - fraction)) / Math.max(1, sketch.count));
  const at = (share: number): number | null => sketchQuantile(sketch, Math.min(1, Math.max(0, share)));
  const [value, low, high] = [at(fraction), at(fraction - spread), at(fraction + spread)];
  return value === null || low === null || high === null ? null : { value, low, high };
}

export interface JudgedEvidence {
  gate: GateView;
  /** Why it failed, or what it waits for; empty where it passed. */
  reason: string;
}

interface Terms {
  wave: number;
  limit: number;
  /** Devices and requests without which nothing passes. */
  devicesMin: number;
  requestsMin: number;
}

type Judge = (
  terms: Terms,
  evidence: WaveEvidence,
) => Omit<GateView, 'wave' | 'gate' | 'limit'> & { why: string };

const enough = (
  terms: Terms,
  devices: number,
  count: number,
  what: string,
  of: '' | ' of the release before' = '',
): string | null => {
  if (devices < terms.devicesMin)
    return `${devices} of ${terms.devicesMin} devices needed have told anything${of}`;
  if (count >= terms.requestsMin) return null;
  return `${count} of ${terms.requestsMin} ${what}${of} needed were counted`;
};

const sketchOf = (json: SketchJson | null): Sketch | null => (json === null ? null : sketchFromJson(json));
const rounded = (value: number, parts: number): number => Math.round(value * parts) / parts;

const judges: Record<EvidenceGate, Judge> = {
  latencyP95Ms(terms, { devices, latency }) {
    const sketch = sketchOf(latency);
    const found = sketch === null ? null : quantileBounds(sketch, 0.95);
    const value = found === null ? null : Math.round(found.value * 1_000) / 1_000;
    const few = enough(terms, devices, sketch?.count ?? 0, 'answers');
    if (few !== null || found === null)
      return { value, devices, verdict: 'waiting', why: few ?? 'no answer was counted' };
    if (found.low > terms.limit)
      return {
        value,
        devices,
        verdict: 'fail',
        why: `p95 ${value} ms of ${sketch?.count} answers, the limit is ${terms.limit} ms`,
      };
    if (found.value <= terms.limit) return { value, devices, verdict: 'pass', why: '' };
    return {
      value,
      devices,
      verdict: 'waiting',
      why: `p95 ${value} ms is too near the limit of ${terms.limit} ms for so few answers`,
    };
  },

  latencyP95Ratio(terms, { devices, latency, active }) {
    const [now, before] = [sketchOf(latency), sketchOf(active?.latency ?? null)];
    const [own, other] = [now, before].map((sketch) =>
      sketch === null ? null : quantileBounds(sketch, 0.95),
    );
    const value = own && other ? rounded(own.value / other.value, 1_000) : null;
    const few =
      enough(terms, devices, now?.count ?? 0, 'answers') ??
      enough(terms, active?.devices ?? 0, before?.count ?? 0, 'answers', ' of the release before');
    if (few !== null || !own || !other || value === null)
      return { value, devices, verdict: 'waiting', why: few ?? 'no answer was counted' };
    const said = `p95 ${rounded(own.value, 1_000)} ms, ${value} times that of the release before, the limit is ${terms.limit}`;
    if (own.low > terms.limit * other.high) return { value, devices, verdict: 'fail', why: said };
    if (own.value <= terms.limit * other.value) return { value, devices, verdict: 'pass', why: '' };
    return { value, devices, verdict: 'waiting', why: `${said}: too near it for so few answers` };
  },

  errorRateIncrease(terms, { devices, requests, errors, active }) {
    const before = active ?? { devices: 0, requests: 0, errors: 0 };
    const known = requests > 0 && before.requests > 0;
    const found = known
      ? increase({ hits: errors, count: requests }, { hits: before.errors, count: before.requests })
      : null;
    const value = found === null ? null : rounded(found.value, 1e6);
    const few =
      enough(terms, devices, requests, 'requests') ??
      enough(terms, before.devices, before.requests, 'requests', ' of the release before');
    if (few !== null || found === null || value === null)
      return { value, devices, verdict: 'waiting', why: few ?? 'no request was counted' };
    const said = `${errors} of ${requests} requests failed, ${before.errors} of ${before.requests} before: ${value} more, the limit is ${terms.limit}`;
    if (found.low > terms.limit) return { value, devices, verdict: 'fail', why: said };
    if (found.value <= terms.limit) return { value, devices, verdict: 'pass', why: '' };
    return { value, devices, verdict: 'waiting', why: `${said}: too near it for so few requests` };
  },

  memoryMiB(terms, { memoryBytes }) {
    const devices = memoryBytes.length;
    const value = devices === 0 ? null : Math.round((Math.max(...memoryBytes) / bytesPerMiB) * 10) / 10;
    if (devices < terms.devicesMin || value === null)
      return {
        value,
        devices,
        verdict: 'waiting',
        why: `${devices} of ${terms.devicesMin} devices needed have told anything`,
      };
    if (value > terms.limit)
      return {
        value,
        devices,
        verdict: 'fail',
        why: `a device took ${value} MiB, the limit is ${terms.limit} MiB`,
      };
    return { value, devices, verdict: 'pass', why: '' };
  },

  memoryRatio(terms, { memoryRatios }) {
    const devices = memoryRatios.length;
    const middle = [...memoryRatios].sort((a, b) => a - b)[Math.floor(devices / 2)];
    const value = middle === undefined ? null : rounded(middle, 1_000);
    if (devices < terms.devicesMin || value === null)
      return {
        value,
        devices,
        verdict: 'waiting',
        why: `${devices} of ${terms.devicesMin} devices needed have measured it and the release before`,
      };
    if (value > terms.limit)
      return {
        value,
        devices,
        verdict: 'fail',
        why: `it takes ${value} times the memory of the release before, the limit is ${terms.limit}`,
      };
    return { value, devices, verdict: 'pass', why: '' };
  },

  errorRate(terms, { devices, requests, errors }) {
    const value = requests === 0 ? null : Math.round((errors / requests) * 1e6) / 1e6;
    const { low } = wilson(errors, requests);
    const said = `${errors} of ${requests} requests failed, the limit is ${terms.limit}`;
    // Bad beyond doubt needs no full count.
    if (low > terms.limit) return { value, devices, verdict: 'fail', why: said };
    const few = enough(terms, devices, requests, 'requests');
    if (few !== null || value === null)
      return { value, devices, verdict: 'waiting', why: few ?? 'no request was counted' };
    if (value <= terms.limit) return { value, devices, verdict: 'pass', why: '' };
    return { value, devices, verdict: 'waiting', why: `${said}: too near it for so few requests` };
  },

  driftPsi(terms, { drift }) {
    if (drift === null)
      return {
        value: null,
        devices: 0,
        verdict: 'waiting',
        why: 'the release has no reference profile (push it with --profile)',
      };
    const known = drift.features.filter((one) => one.psi !== null);
    const worst = known.reduce<FeaturePsi | null>(
      (top, one) => ((one.psi ?? 0) > (top?.psi ?? -1) ? one : top),
      null,
    );
    const value = worst === null ? null : Math.round((worst.psi ?? 0) * 1_000) / 1_000;
    const { devices, rows } = drift;
    const few = enough(terms, devices, rows, 'rows');
    if (few !== null || worst === null || value === null)
      return { value, devices, verdict: 'waiting', why: few ?? 'no feature has enough values yet' };
    if (value > terms.limit)
      return {
        value,
        devices,
        verdict: 'fail',
        why: `PSI ${value} of ${worst.name} over ${rows} rows, the limit is ${terms.limit}`,
      };
    return { value, devices, verdict: 'pass', why: '' };
  },
};

/** Those that the file asks for. `counted`: devices of the wave that count at all; where there are none, nothing can be asked. */
export function judgeEvidence(
  spec: RolloutSpec,
  wave: number,
  evidence: WaveEvidence,
  counted: number,
): JudgedEvidence[] {
  const { gates } = spec;
  return evidenceGates.flatMap((gate): JudgedEvidence[] => {
    const limit = gates[gate];
    if (limit === undefined) return [];
    if (counted === 0)
      return [{ gate: { wave, gate, limit, value: null, devices: 0, verdict: 'pass' }, reason: '' }];
    const terms = {
      ...{ wave, limit, requestsMin: gates.minRequests },
      devicesMin: Math.min(gates.minDevices ?? 1, counted),
    };
    const { why, ...judged } = judges[gate](terms, evidence);
    const reason = why === '' ? '' : `gate ${gate} of wave ${wave}: ${why}`;
    return [{ gate: { wave, gate, limit, ...judged }, reason }];
  });
}
