// Why: a candidate answers copies of live inputs in its own child, so that its answers are known before it may give
// any. Trusts: the manifest for how answers are compared. Must never: delay or change an answer of the release that
// serves, hold more than one input, or use more than its share of the processor.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, ShadowEvidence, ShadowPolicy, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  agreementOf,
  comparedOutputs,
  differences,
  observeDifferences,
} from '../../shared/stats/agreement.ts';
import type { Histogram } from '../../shared/stats/histogram.ts';
import { addToSketch, createSketch, sketchQuantile } from '../../shared/stats/sketch.ts';
import type { Compare } from '../../shared/wire/manifest.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { checkRequest, type ModelSignature } from './signature.ts';
import type { Slot } from './slot.ts';

/** A live request as the release that serves answered it. */
export interface LiveRequest {
  inputs: Tensor[];
  outputs: Tensor[];
  runMs: number;
}

export interface Shadow {
  /**
   * A request was answered. Returns at once: null where it is not taken, else how much the candidate's answer agrees,
   * 0 where it has none, null where it is not known.
   */
  offer(live: LiveRequest): Promise<number | null> | null;
  /** Resolves once, with what was seen. */
  done: Promise<Result<ShadowEvidence>>;
  /** Ends it with this refusal; nothing where it has ended. */
  cancel(refusal: Refusal): void;
}

export interface ShadowOptions {
  clock: Clock;
  policy: ShadowPolicy;
  candidate: { signature: ModelSignature; slot: Slot; compare: Compare | undefined };
}

export function startShadow({ clock, policy, candidate }: ShadowOptions): Shadow {
  const { signature, slot, compare } = candidate;
  const [own, active] = [createSketch(), createSketch()];
  const histograms = new Map<string, Histogram>();
  let [requests, compared, skipped, failed, sum] = [0, 0, 0, 0, 0];
  let firstFailure: string | null = null;
  let busy = false;
  /** Monotonic: before this the candidate's share of the processor is used up. */
  let restUntilMs = 0;
  let ended = false;
  let settle: (outcome: Result<ShadowEvidence>) => void = () => undefined;
  const done = new Promise<Result<ShadowEvidence>>((resolve) => {
    settle = resolve;
  });
  const timeout: Timer = clock.timer(policy.timeoutMs);

  const evidence = (): ShadowEvidence => ({
    requests,
    compared,
    skipped,
    failed,
    agreement: compared + failed === 0 ? null : sum / (compared + failed),
    firstFailure,
    latencyP95Ms: sketchQuantile(own, 0.95),
    activeLatencyP95Ms: sketchQuantile(active, 0.95),
    differences: [...histograms].map(([output, { counts }]) => ({ output, counts: [...counts] })),
  });
  const end = (outcome: Result<ShadowEvidence>): void => {
    if (ended) return;
    ended = true;
    timeout.cancel();
    settle(outcome);
  };
  const fault = (detail: string): number => {
    failed += 1;
    firstFailure ??= detail;
    return 0;
  };

  const compareOne = async (live: LiveRequest, outputs: string[]): Promise<number | null> => {
    const startedAtMs = clock.mono();
    const ran = await slot.run(live.inputs, outputs, 'probe');
    if (ended) return null;
    const spentMs = clock.mono() - startedAtMs;
    restUntilMs = startedAtMs + spentMs / (policy.cpuPercent / 100);
    if (!ran.ok) {
      const { code, detail } = ran.refusal;
      // Its process died or hung on an input that the other release answers: enough is known.
      if (code === 'model-crashed' || code === 'infer-deadline') {
        end(ran);
        return 0;
      }
      return fault(`${code}: ${detail}`);
    }
    const found = agreementOf(live.outputs, ran.value.outputs, compare, live.inputs);
    if (found.score === null) return fault(found.fault ?? 'not comparable');
    compared += 1;
    sum += found.score;
    if (found.score < 1) firstFailure ??= `first difference: agreement ${found.score.toFixed(3)}`;
    addToSketch(own, ran.value.runMs);
    addToSketch(active, live.runMs);
    observeDifferences(histograms, differences(live.outputs, ran.value.outputs));
    return found.score;
  };

  const take = async (live: LiveRequest): Promise<number | null> => {
    const given = new Set(live.outputs.map(({ name }) => name));
    const wanted = comparedOutputs(compare, [...given]);
    // The client did not ask for what would have to be compared.
    if (!wanted.every((name) => given.has(name))) {
      skipped += 1;
      return null;
    }
    const checked = checkRequest(signature, live.inputs, wanted);
    const agreement = checked.ok
      ? await compareOne(live, checked.value)
      : fault(`${checked.refusal.code}: ${checked.refusal.detail}`);
    if (compared + failed >= policy.requests) end(ok(evidence()));
    return agreement;
  };

  void timeout.done.then(() => end(ok(evidence())));
  return {
    done,
    cancel: (refusal) => end(refuse(refusal.code, refusal.detail)),
    offer: (live) => {
      if (ended) return null;
      requests += 1;
      if (busy || clock.mono() < restUntilMs) {
        skipped += 1;
        return null;
      }
      busy = true;
      return take(live)
        .catch((thrown: unknown) => {
          // A comparison that fails is the candidate's end, never the agent's.
          end(refuse('internal', asFleetError(thrown).message));
          return null;
        })
        .finally(() => {
          busy = false;
        });
    },
  };
}
