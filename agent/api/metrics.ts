// Why: what this device does, in the Prometheus text format, for whoever scrapes it.
// Trusts: the host's counters and the status. Must never: carry a label whose values have no bound.

import { createMetricsText, type Labels } from '../../shared/wire/prometheus.ts';
import type { ServedModel } from '../inference/host.ts';
import type { AgentStatus } from '../status.ts';

export interface AgentFacts {
  models: ServedModel[];
  status: AgentStatus;
  /** Bytes of the agent's own process. */
  rssBytes: number;
  loopDelay: { quantiles: Record<string, number>; max: number; sum: number; count: number };
}

const seconds = 0.001;

/** One family over all models. */
function each<Value>(
  models: readonly ServedModel[],
  value: (model: ServedModel) => Value,
): (readonly [Labels, Value])[] {
  return models.map((model) => [{ model: model.as, release: model.releaseId }, value(model)] as const);
}

export function agentMetrics({ models, status, rssBytes, loopDelay }: AgentFacts): string {
  const text = createMetricsText();
  const { version, runtime, arch } = status.agent;
  text.gauge('lepton_agent_info', 'The agent and its runtime.', [[{ version, runtime, arch }, 1]]);
  if (status.startedAtMs !== null)
    text.gauge('lepton_agent_start_time_seconds', 'Unix time of the start.', [
      [{}, status.startedAtMs / 1_000],
    ]);
  text.gauge('lepton_agent_connected', '1 while the device is connected to its broker.', [
    [{}, status.connected ? 1 : 0],
  ]);
  text.gauge('lepton_agent_resident_bytes', 'Resident memory of the agent, without its children.', [
    [{}, rssBytes],
  ]);
  text.summary('lepton_agent_loop_delay_seconds', 'How long the event loop was held up.', [[{}, loopDelay]]);
  text.gauge('lepton_agent_loop_delay_max_seconds', 'Longest hold-up since the start.', [
    [{}, loopDelay.max],
  ]);
  text.counter('lepton_agent_refusals_total', 'Refusals that are kept, attacks among them.', [
    [{ attack: 'true' }, status.attacks.count],
    [{ attack: 'false' }, status.refusals.length - status.attacks.count],
  ]);
  modelFamilies(text, models);
  text.gauge(
    'lepton_model_state',
    '1 for the state of the update machine in which the model is.',
    status.models.map(({ name, state }) => [{ model: name, state }, 1] as const),
  );
  if (status.outbox !== null) {
    const { producedRecords, acknowledgedRecords, droppedRecords, pendingBatches, bytes } = status.outbox;
    text.counter('lepton_outbox_records_total', 'Telemetry records by what became of them.', [
      [{ outcome: 'produced' }, producedRecords],
      [{ outcome: 'acknowledged' }, acknowledgedRecords],
      [{ outcome: 'dropped' }, droppedRecords],
    ]);
    text.counter(
      'lepton_outbox_dropped_records_total',
      'Telemetry records that were let go unacknowledged, by class and reason.',
      (status.outbox.dropped ?? []).map(
        ({ class: name, reason, records }) => [{ class: name, reason }, records] as const,
      ),
    );
    text.gauge('lepton_outbox_pending_batches', 'Batches that wait for an acknowledgement.', [
      [{}, pendingBatches],
    ]);
    text.gauge('lepton_outbox_bytes', 'Bytes of the outbox on the disk.', [[{}, bytes]]);
  }
  if (status.delivery !== null) {
    const { arrivedBytes, fileBytes, rebuiltFiles, failedWays } = status.delivery;
    text.counter(
      'lepton_fetch_bytes_total',
      'Bytes that came for files of releases, and bytes of those files.',
      [
        [{ of: 'network' }, arrivedBytes],
        [{ of: 'files' }, fileBytes],
      ],
    );
    text.counter('lepton_fetch_ways_total', 'Smaller ways to files, by what became of them.', [
      [{ outcome: 'rebuilt' }, rebuiltFiles],
      [{ outcome: 'failed' }, failedWays],
    ]);
  }
  return text.text();
}

function modelFamilies(text: ReturnType<typeof createMetricsText>, models: readonly ServedModel[]): void {
  text.gauge(
    'lepton_model_info',
    'The release that serves a model, and the execution provider that runs it.',
    models.map(
      ({ as, releaseId, version, provider }) =>
        [{ model: as, release: releaseId, version, provider }, 1] as const,
    ),
  );
  text.gauge(
    'lepton_model_ready',
    '1 while requests are answered.',
    each(models, ({ ready }) => (ready ? 1 : 0)),
  );
  text.counter(
    'lepton_infer_requests_total',
    'Inference requests by outcome.',
    models.flatMap(({ as, releaseId, counters }) =>
      (['answered', 'failed', 'cancelled'] as const).map(
        (outcome) => [{ model: as, release: releaseId, outcome }, counters[outcome]] as const,
      ),
    ),
  );
  text.counter(
    'lepton_infer_failures_total',
    'Inference requests that were refused or failed, by code.',
    models.flatMap(({ as, releaseId, counters }) =>
      [...counters.failures].map(
        ([code, count]) => [{ model: as, release: releaseId, code }, count] as const,
      ),
    ),
  );
  text.counter(
    'lepton_infer_inferences_total',
    'Rows answered.',
    each(models, ({ counters }) => counters.inferences),
  );
  text.counter(
    'lepton_infer_executions_total',
    'Runs of the session; fewer than requests where they are batched.',
    each(models, ({ counters }) => counters.executions),
  );
  const phases = [
    ['queue', 'Time a request waited for its turn.'],
    ['input', 'Time into the child and the runtime’s tensors.'],
    ['run', 'Time inside the runtime.'],
    ['output', 'Time out of the runtime and back.'],
    ['total', 'Time from arrival to answer.'],
  ] as const;
  for (const [phase, help] of phases) {
    text.histogram(
      `lepton_infer_${phase}_seconds`,
      help,
      each(models, ({ counters }) => counters[phase]),
      seconds,
    );
  }
  text.gauge(
    'lepton_model_waiting_requests',
    'Requests that wait now.',
    each(models, ({ waiting }) => waiting),
  );
  text.counter(
    'lepton_model_restarts_total',
    'How often the model’s process was started again, by cause.',
    models.flatMap(({ as, releaseId, restarts }) =>
      Object.entries(restarts).map(
        ([cause, count]) =>
          [{ model: as, release: releaseId, cause: causeNames[cause] ?? cause }, count] as const,
      ),
    ),
  );
  const known = models.filter(({ memory }) => memory.rssBytes !== null);
  text.gauge(
    'lepton_model_resident_bytes',
    'Resident memory of the model’s process.',
    each(known, ({ memory }) => memory.rssBytes ?? 0),
  );
  const limited = models.filter(({ memory }) => memory.limitBytes !== null);
  text.gauge(
    'lepton_model_memory_limit_bytes',
    'What the model’s process may take.',
    each(limited, ({ memory }) => memory.limitBytes ?? 0),
  );
}

const causeNames: Record<string, string> = { overMemory: 'over-memory' };
