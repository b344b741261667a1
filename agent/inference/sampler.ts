// Why: keeps some of the answered requests for a person to look at, as the rules of the assignment say.
// Trusts: the assignment for the rules. Must never: hold an answer up, copy a tensor of a request that is not kept, or
// keep more than the cap of the hour.

import type { Clock, Entropy, Timer } from '../../shared/kernel/ports.ts';
import { modelOfRelease } from '../../shared/kernel/releases.ts';
import type { AssignedSampling, SampleReason } from '../../shared/wire/sample-rules.ts';
import type { SampleTensor } from '../../shared/wire/samples.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { joinParts, tensorParts } from '../../shared/wire/tensor-json.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { type Confidence, confidenceOf } from './confidence.ts';
import { type HourCount, oneMore, reasonsFor } from './sampling.ts';
import type { Tally } from './tally.ts';

/** What a candidate made of a copy of the request. */
export interface Comparison {
  candidate: string;
  /** 0 … 1; 0 where it failed. */
  agreement: number;
}

export interface AnsweredRequest {
  as: string;
  releaseId: string;
  requestId: string | null;
  inputs: readonly Tensor[];
  outputs: readonly Tensor[];
  /** Of the release; null where it has no reference profile. */
  tally: Tally | null;
  /** Of candidates that took a copy. */
  compared: readonly Promise<Comparison | null>[];
}

export interface CapturedSample {
  timeMs: number;
  release: string;
  /** Name under which it is served. */
  model: string;
  requestId: string | null;
  reasons: SampleReason[];
  confidence: Confidence | null;
  comparison: Comparison | null;
  inputs: SampleTensor[];
  outputs: SampleTensor[];
}

export interface Sampler {
  /** From the next request on. */
  use(rules: readonly AssignedSampling[]): void;
  /** Whether there is a rule for this release: everybody else's requests cost a look into a map. */
  wants(releaseId: string): boolean;
  /** Returns at once; what follows comes after the answer is on its way. */
  answered(request: AnsweredRequest): void;
  /** What was decided since the last call, as records of class `stats`. */
  take(): TelemetryRecord[];
  /** What was not decided yet is let go. */
  stop(): void;
}

interface Asked {
  rules: AssignedSampling;
  count: HourCount;
}

interface Window {
  as: string;
  releaseId: string;
  kept: number;
  over: number;
  tooLarge: number;
  reasons: Map<SampleReason, number>;
}

/** A digit and a comma: no element's text is shorter. */
const elementBytesMin = 2;

function bytesAtLeast(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { data }) => sum + elementBytesMin * data.length, 0);
}

/** As it stands in a record; JSON readers would round 64-bit integers beyond 2^53, so those are text. */
function sampleTensor(tensor: Tensor): SampleTensor {
  const { name, datatype, shape, data } = tensor;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array)
    return {
      ...{ name, datatype, shape: [...shape] },
      data: Array.from(data, (value) =>
        Number.isSafeInteger(Number(value)) ? Number(value) : String(value),
      ),
    };
  // Through its text: floats of single precision with as many digits as they have.
  const text = new TextDecoder().decode(joinParts(tensorParts(tensor, null)));
  return JSON.parse(text) as SampleTensor;
}

/** Null where their text is longer than a sample may be. */
function kept(
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  bytesMax: number,
): Pick<CapturedSample, 'inputs' | 'outputs'> | null {
  if (bytesAtLeast(inputs) + bytesAtLeast(outputs) > bytesMax) return null;
  const tensors = { inputs: inputs.map(sampleTensor), outputs: outputs.map(sampleTensor) };
  return Buffer.byteLength(JSON.stringify(tensors)) > bytesMax ? null : tensors;
}

export function createSampler(parts: {
  clock: Clock;
  entropy: Entropy;
  /** Must not block, nor throw. */
  onSample(sample: CapturedSample): void;
}): Sampler {
  const { clock, entropy, onSample } = parts;
  const asked = new Map<string, Asked>();
  const windows = new Map<string, Window>();
  let waiting: AnsweredRequest[] = [];
  let timer: Timer | null = null;
  let stopped = false;
  let sinceMs = clock.mono();

  function windowOf({ as, releaseId }: AnsweredRequest): Window {
    const key = `${as} ${releaseId}`;
    let window = windows.get(key);
    if (window === undefined) {
      window = { as, releaseId, kept: 0, over: 0, tooLarge: 0, reasons: new Map() };
      windows.set(key, window);
    }
    return window;
  }

  function decide(request: AnsweredRequest, comparison: Comparison | null): void {
    const { releaseId, inputs, outputs, tally } = request;
    const one = asked.get(modelOfRelease(releaseId));
    if (stopped || one === undefined) return;
    const { rules } = one;
    const confidence = (): Confidence | null => confidenceOf(outputs, tally?.surest ?? null);
    const facts = {
      confidence: () => confidence()?.value ?? null,
      isOutside: () => tally?.isOutside(inputs) ?? false,
      agreement: comparison?.agreement ?? null,
    };
    const reasons = reasonsFor(rules, facts, rules.randomShare === undefined ? 1 : entropy.u32() / 2 ** 32);
    if (reasons.length === 0) return;
    const window = windowOf(request);
    for (const reason of reasons) window.reasons.set(reason, (window.reasons.get(reason) ?? 0) + 1);
    const count = oneMore(one.count, clock.mono(), rules.perHourMax);
    const tensors = count === null ? null : kept(inputs, outputs, rules.bytesMax);
    if (count === null) window.over += 1;
    else if (tensors === null) window.tooLarge += 1;
    else {
      one.count = count;
      window.kept += 1;
      onSample({
        timeMs: Math.max(0, Math.floor(clock.wall())),
        release: releaseId,
        model: request.as,
        requestId: request.requestId,
        reasons,
        confidence: confidence(),
        comparison,
        ...tensors,
      });
    }
  }

  function decideWaiting(): void {
    timer = null;
    const now = waiting;
    waiting = [];
    for (const request of now) {
      if (request.compared.length === 0) {
        decide(request, null);
        continue;
      }
      // One request is decided once: the candidate that agrees least is the one to tell of.
      void Promise.all(request.compared).then((all) => {
        const found = all.filter((one) => one !== null).sort((a, b) => a.agreement - b.agreement);
        decide(request, found[0] ?? null);
      });
    }
  }

  return {
    use(rules) {
      const before = new Map(asked);
      asked.clear();
      for (const one of rules)
        asked.set(one.model, { rules: one, count: before.get(one.model)?.count ?? { hour: -1, kept: 0 } });
    },
    wants: (releaseId) => asked.size > 0 && asked.has(modelOfRelease(releaseId)),
    answered(request) {
      if (stopped) return;
      waiting.push(request);
      if (timer !== null) return;
      timer = clock.timer(0);
      void timer.done.then(decideWaiting);
    },
    take() {
      const nowMs = clock.mono();
      const windowMs = Math.round(nowMs - sinceMs);
      sinceMs = nowMs;
      const timeMs = Math.max(0, Math.floor(clock.wall()));
      const records = [...windows.values()].map(({ as, releaseId, reasons, ...counts }) => ({
        ...{ timeMs, release: releaseId },
        data: { kind: 'samples', model: as, windowMs, ...counts, reasons: Object.fromEntries(reasons) },
      }));
      windows.clear();
      return records;
    },
    stop() {
      stopped = true;
      waiting = [];
      timer?.cancel();
    },
  };
}
