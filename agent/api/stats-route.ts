// Why: the statistics extension: what each model did since it was loaded, under the names that clients of Triton know.
// Trusts: the counters of the inference host. Must never: count a request that the host did not count.

import type { ModelStatistics } from '../../shared/wire/oip.ts';
import type { ServedModel } from '../inference/host.ts';
import { type Answer, json } from './answer.ts';

const ns = (ms: number): number => Math.round(ms * 1e6);
const nothing = { count: 0, ns: 0 };

export function statistics(models: readonly ServedModel[]): Answer {
  return json({ model_stats: models.map(statisticsOf) });
}

function statisticsOf({ as, version, counters, memory }: ServedModel): ModelStatistics {
  const { total, queue, input, run, output } = counters;
  const sum = (part: { count: number; sum: number }) => ({ count: part.count, ns: ns(part.sum) });
  const rowsInAll = [...counters.batches].reduce(
    (rows, [size, { executions }]) => rows + size * executions,
    0,
  );
  return {
    name: as,
    version,
    last_inference: Math.round(counters.lastInferenceAtMs ?? 0),
    inference_count: counters.inferences,
    execution_count: counters.executions,
    inference_stats: {
      success: sum(total),
      fail: { count: counters.failed, ns: ns(counters.failedMs) },
      queue: sum(queue),
      compute_input: sum(input),
      compute_infer: sum(run),
      compute_output: sum(output),
      // Answers are not kept: there is nothing to hit or to miss.
      cache_hit: nothing,
      cache_miss: nothing,
    },
    batch_stats: [...counters.batches]
      .sort(([a], [b]) => a - b)
      .map(([size, { executions, runMs }]) => {
        // Both ways are measured for a request, not for a batch: each size has its rows' share of them.
        const share = rowsInAll === 0 ? 0 : (size * executions) / rowsInAll;
        return {
          batch_size: size,
          compute_input: { count: executions, ns: ns(input.sum * share) },
          compute_infer: { count: executions, ns: ns(runMs) },
          compute_output: { count: executions, ns: ns(output.sum * share) },
        };
      }),
    memory_usage: memory.rssBytes === null ? [] : [{ type: 'CPU', id: 0, byte_size: memory.rssBytes }],
  };
}
