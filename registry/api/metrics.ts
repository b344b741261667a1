// Why: a few gauges and counters in the Prometheus text format, so that an alarm can watch the registry.
// Trusts: the registry's parts. Must never: carry a label of unbounded values (device ids, paths).

import { createMetricsText, type Labels, type MetricsText } from '../../shared/wire/prometheus.ts';
import type { DownloadCounters } from '../delivery/downloads.ts';
import type { EncodingCounters } from '../delivery/encoding.ts';
import type { IngestCounters } from '../telemetry/ingest.ts';
import type { RegistryParts } from './context.ts';

export interface Metrics {
  request(status: number): void;
  text(parts: RegistryParts): Promise<string>;
}

type Samples = (readonly [Labels, number])[];

const alone = (value: number): Samples => [[{}, value]];

/** One sample for each of some counters, which have names of ours. */
function each<Name extends string>(
  label: string,
  names: readonly Name[],
  counts: Readonly<Record<Name, number>>,
): Samples {
  return names.map((name) => [{ [label]: name }, counts[name]]);
}

function writeDelivery(
  to: MetricsText,
  downloads: DownloadCounters,
  encoding: EncodingCounters,
  kept: { files: number; bytes: number },
): void {
  to.gauge('lepton_downloads', 'Devices that download, and that wait for their turn.', [
    [{ state: 'running' }, downloads.downloading],
    [{ state: 'waiting' }, downloads.waiting],
  ]);
  to.counter(
    'lepton_download_turns_ended_total',
    'Turns that ended before the file did.',
    each('reason', ['slow', 'over', 'inVain'], downloads),
  );
  to.counter(
    'lepton_encodings_total',
    'Smaller files that were tried to make.',
    each('outcome', ['made', 'noSmaller', 'failed'], encoding),
  );
  to.gauge('lepton_encodings_queued', 'Smaller files that are to be made.', alone(encoding.queued));
  to.gauge('lepton_encodings_bytes', 'Smaller files that are kept.', alone(kept.bytes));
  to.counter(
    'lepton_encodings_saved_bytes_total',
    'Bytes that devices did not fetch.',
    alone(downloads.savedBytes),
  );
}

function writeTelemetry(to: MetricsText, telemetry: IngestCounters): void {
  const { batches: stored } = telemetry;
  to.counter(
    'lepton_telemetry_batches_total',
    'Batches of devices by what became of them.',
    each('outcome', ['repeated', 'refused', 'overflowed', 'stored'], { ...telemetry, stored }),
  );
  to.counter('lepton_telemetry_records_total', 'Records that were stored.', alone(telemetry.records));
}

async function writeEvidence(to: MetricsText, { fleet }: RegistryParts): Promise<void> {
  const { rollups, watch } = fleet.evidence;
  to.counter(
    'lepton_rollup_records_total',
    'Records of class stats by what they add to; unknown ones add to nothing.',
    each('kind', ['requests', 'features', 'energy', 'samples', 'unknown'], rollups.counters()),
  );
  const { judged, began, ended } = watch.counters();
  to.counter('lepton_drift_windows_total', 'Windows of counts that were judged.', alone(judged));
  to.counter(
    'lepton_drift_changes_total',
    'Features that began or ceased to drift.',
    each('change', ['began', 'ended'], { began, ended }),
  );
  // By models of the catalogue: their number is bounded.
  to.gauge(
    'lepton_drift_alarms',
    'Features in alarm: of the fleet, and of single devices added up.',
    (await watch.alarms()).map(({ scope, model, features }) => [{ scope, model }, features]),
  );
}

function factsOf({ store }: RegistryParts) {
  const { qb } = store;
  return store.tx((db) => ({
    releases: db.first(qb.selectFrom('releases').select((eb) => eb.fn.countAll<number>().as('n')))?.n ?? 0,
    expiresAtMs: db.first(
      qb.selectFrom('metadata_roles').select('expires_at_ms').where('role', '=', 'timestamp'),
    )?.expires_at_ms,
    devices: db.all(
      qb
        .selectFrom('devices')
        .select(['status', 'presence', (eb) => eb.fn.countAll<number>().as('n')])
        .groupBy(['status', 'presence']),
    ),
  }));
}

async function writeRegistry(
  to: MetricsText,
  parts: RegistryParts,
  requests: ReadonlyMap<string, number>,
): Promise<void> {
  const { region, version } = parts;
  const { releases, devices, expiresAtMs } = await factsOf(parts);
  to.gauge('lepton_registry_info', 'This registry.', [[{ region, version }, 1]]);
  to.gauge('lepton_releases', 'Releases of the catalogue.', alone(releases));
  to.gauge(
    'lepton_devices',
    'Devices that ever enrolled, by standing and presence.',
    devices.map(({ status, presence, n }) => [{ status, presence }, n]),
  );
  to.counter(
    'lepton_http_requests_total',
    'Answers of the HTTP API by group of status.',
    [...requests].map(([status, count]) => [{ status }, count]),
  );
  const brokerConnected = parts.brokerConnected ?? null;
  if (brokerConnected !== null)
    to.gauge(
      'lepton_broker_connected',
      'Whether the broker of another maker is there.',
      alone(Number(brokerConnected())),
    );
  if (expiresAtMs !== undefined)
    to.gauge(
      'lepton_metadata_expires_seconds',
      'When the signed timestamp ends, Unix seconds.',
      alone(Math.round(expiresAtMs / 1_000)),
    );
}

export function createMetrics(): Metrics {
  const requests = new Map<string, number>();
  return {
    request(status) {
      const group = `${Math.floor(status / 100)}xx`;
      requests.set(group, (requests.get(group) ?? 0) + 1);
    },
    async text(parts) {
      const to = createMetricsText();
      await writeRegistry(to, parts, requests);
      const { fetches, downloads, telemetry, eventsDropped, attacks } = parts.fleet.counters();
      to.counter(
        'lepton_fetch_requests_total',
        'Ranges of files that devices asked for.',
        alone(fetches.requests),
      );
      to.counter('lepton_fetch_bytes_total', 'Bytes of files that devices were sent.', alone(fetches.bytes));
      to.counter(
        'lepton_fetch_refused_total',
        'Ranges of files that were not sent.',
        each('reason', ['denied', 'notFound', 'busy', 'invalid', 'abandoned'], fetches),
      );
      writeDelivery(to, downloads, parts.encoding.counters(), await parts.encodings.kept());
      writeTelemetry(to, telemetry);
      await writeEvidence(to, parts);
      to.counter(
        'lepton_fleet_events_dropped_total',
        'Events of strangers that were counted and not stored.',
        alone(eventsDropped),
      );
      to.counter(
        'lepton_audit_refusals_omitted_total',
        'Refused requests that were counted and not written into the audit record.',
        alone(parts.audit.omitted()),
      );
      to.counter(
        'lepton_attacks_total',
        'Attacks since the start, by code.',
        // By codes of our own table: their number is bounded.
        [...attacks].map(([code, count]) => [{ code }, count]),
      );
      return to.text();
    },
  };
}
