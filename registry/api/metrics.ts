// Why: a few gauges and counters in the Prometheus text format, so that an alarm can watch the registry.
// Trusts: the registry's parts. Must never: carry a label of unbounded values (device ids, paths).

import type { DownloadCounters } from '../delivery/downloads.ts';
import type { EncodingCounters } from '../delivery/encoding.ts';
import type { RegistryParts } from './context.ts';

export interface Metrics {
  request(status: number): void;
  text(parts: RegistryParts): Promise<string>;
}

function deliveryLines(
  downloads: DownloadCounters,
  encoding: EncodingCounters,
  kept: { files: number; bytes: number },
): string[] {
  return [
    '# TYPE lepton_downloads gauge',
    `lepton_downloads{state="running"} ${downloads.downloading}`,
    `lepton_downloads{state="waiting"} ${downloads.waiting}`,
    '# TYPE lepton_download_turns_ended_total counter',
    ...(['slow', 'over', 'inVain'] as const).map(
      (why) => `lepton_download_turns_ended_total{reason="${why}"} ${downloads[why]}`,
    ),
    '# TYPE lepton_encodings_total counter',
    ...(['made', 'noSmaller', 'failed'] as const).map(
      (outcome) => `lepton_encodings_total{outcome="${outcome}"} ${encoding[outcome]}`,
    ),
    '# TYPE lepton_encodings_queued gauge',
    `lepton_encodings_queued ${encoding.queued}`,
    '# TYPE lepton_encodings_bytes gauge',
    `lepton_encodings_bytes ${kept.bytes}`,
    '# TYPE lepton_encodings_saved_bytes_total counter',
    `lepton_encodings_saved_bytes_total ${downloads.savedBytes}`,
  ];
}

export function createMetrics(): Metrics {
  const requests = new Map<string, number>();
  return {
    request(status) {
      const group = `${Math.floor(status / 100)}xx`;
      requests.set(group, (requests.get(group) ?? 0) + 1);
    },
    async text(parts) {
      const { store } = parts;
      const { qb } = store;
      const facts = await store.tx((db) => ({
        releases:
          db.first(qb.selectFrom('releases').select((eb) => eb.fn.countAll<number>().as('n')))?.n ?? 0,
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
      const lines = [
        '# TYPE lepton_registry_info gauge',
        `lepton_registry_info{region="${parts.region}",version="${parts.version}"} 1`,
        '# TYPE lepton_releases gauge',
        `lepton_releases ${facts.releases}`,
        '# TYPE lepton_devices gauge',
        ...facts.devices.map(
          (row) => `lepton_devices{status="${row.status}",presence="${row.presence}"} ${row.n}`,
        ),
        '# TYPE lepton_http_requests_total counter',
        ...[...requests].map(([group, count]) => `lepton_http_requests_total{status="${group}"} ${count}`),
      ];
      const brokerConnected = parts.brokerConnected ?? null;
      if (brokerConnected !== null)
        lines.push(
          '# TYPE lepton_broker_connected gauge',
          `lepton_broker_connected ${Number(brokerConnected())}`,
        );
      const { fetches, downloads, telemetry, eventsDropped, attacks } = parts.fleet.counters();
      lines.push(
        '# TYPE lepton_fetch_requests_total counter',
        `lepton_fetch_requests_total ${fetches.requests}`,
        '# TYPE lepton_fetch_bytes_total counter',
        `lepton_fetch_bytes_total ${fetches.bytes}`,
        '# TYPE lepton_fetch_refused_total counter',
        ...(['denied', 'notFound', 'busy', 'invalid', 'abandoned'] as const).map(
          (reason) => `lepton_fetch_refused_total{reason="${reason}"} ${fetches[reason]}`,
        ),
        ...deliveryLines(downloads, parts.encoding.counters(), await parts.encodings.kept()),
        '# TYPE lepton_telemetry_batches_total counter',
        ...(['repeated', 'refused', 'overflowed'] as const).map(
          (outcome) => `lepton_telemetry_batches_total{outcome="${outcome}"} ${telemetry[outcome]}`,
        ),
        `lepton_telemetry_batches_total{outcome="stored"} ${telemetry.batches}`,
        '# TYPE lepton_telemetry_records_total counter',
        `lepton_telemetry_records_total ${telemetry.records}`,
        '# TYPE lepton_fleet_events_dropped_total counter',
        `lepton_fleet_events_dropped_total ${eventsDropped}`,
        '# TYPE lepton_attacks_total counter',
        // By codes of our own table: their number is bounded.
        ...[...attacks].map(([code, count]) => `lepton_attacks_total{code="${code}"} ${count}`),
      );
      if (facts.expiresAtMs !== undefined) {
        lines.push(
          '# TYPE lepton_metadata_expires_seconds gauge',
          `lepton_metadata_expires_seconds ${Math.round(facts.expiresAtMs / 1000)}`,
        );
      }
      return `${lines.join('\n')}\n`;
    },
  };
}
