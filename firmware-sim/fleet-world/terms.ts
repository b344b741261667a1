// Why: how large one world is and which of production's thresholds are shrunk in it, so that rare paths are common.
// Trusts: the seed. Must never: shrink one beyond what the code promises to work with.

import type { CoreTerms } from '../../agent/core.ts';
import { type FleetLimits, fleetLimits } from '../../registry/fleet/limits.ts';
import { draw, drawInt } from '../chance.ts';
import { type Generation, latestGeneration } from '../explore/seed-run.ts';
import { originMsDefault } from '../world.ts';

const secondMs = 1_000;
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

export interface WorldTerms {
  devices: number;
  /** How long things go wrong. */
  chaosMs: number;
  /** How long a healed fleet may take to agree. */
  convergeMs: number;
  device: CoreTerms & { update: NonNullable<CoreTerms['update']> };
  registry: FleetLimits;
  /** Whether the registry makes smaller files of releases. */
  encodes: boolean;
  /** Between two records of the application on a device. */
  recordEveryMs: number;
  models: readonly string[];
  /** Rollouts may be of releases of both models. */
  bundled: boolean;
  /** Rollouts may have windows, devices stand in several zones, and people at them say "not now". */
  windowed: boolean;
  generation: Generation;
  /** In which devices stand, in turn; absent: where there are windows they are drawn, else UTC. */
  zones?: readonly string[];
  /** True time at its beginning: where there are windows, hours before some clock is changed. Unix milliseconds. */
  originMs: number;
}

/** Some hours before daylight saving begins or ends in one of the zones. */
const originsMs = [
  originMsDefault,
  Date.UTC(2026, 2, 8, 7), // Denver, 09:00
  Date.UTC(2026, 2, 28, 23), // Berlin, 01:00
  Date.UTC(2026, 3, 4, 12), // Auckland, 14:00
  Date.UTC(2026, 9, 24, 22), // Berlin, 01:00
  Date.UTC(2026, 10, 1, 6), // Denver, 08:00
];

export function drawTerms(seed: number, generation: Generation = latestGeneration): WorldTerms {
  const between = (low: number, high: number, name: string): number => drawInt(low, high, seed, name);
  const sometimes = (share: number, name: string): boolean => draw(seed, name) < share;
  const fetchSyncBytesMin = 2 ** between(7, 10, 'sync');
  const shortLived = sometimes(0.25, 'short-lived');
  const chaosMs = between(4, sometimes(0.12, 'long') ? 150 : 30, 'chaos') * minuteMs;
  // They take the longest: a world of the latest generation has them less often.
  const windowed = generation >= 2 && sometimes(generation >= 3 ? 0.12 : 0.35, 'windowed');
  const bundled = generation >= 3 && sometimes(0.35, 'bundled');
  const waysBytesMin = 2 ** between(4, 10, 'ways-min');
  return {
    devices: between(1, sometimes(0.3, 'many') ? 5 : 3, 'devices'),
    chaosMs,
    // Each wave may wait for its windows, several times where little is open.
    convergeMs: (windowed ? 96 : 8) * hourMs,
    device: {
      pollMs: between(2, 15, 'poll') * minuteMs,
      reportEveryMs: between(2, 15, 'report') * minuteMs,
      fetchTimeoutMs: between(5, 15, 'fetch-timeout') * secondMs,
      statsEveryMs: between(8, 60, 'stats') * minuteMs,
      batchAgeMs: between(1, 30, 'age') * secondMs,
      outbox: {
        batchRecordsMax: 2 ** between(1, 10, 'batch-records'),
        batchRowBytesMax: sometimes(0.5, 'rows-small') ? 2_048 : 229_376,
        outboxBytesMax: sometimes(0.3, 'outbox-small') ? between(6, 40, 'outbox') * 1_024 : 67_108_864,
      },
      update: {
        fetchRangeBytesMax: 2 ** between(8, 12, 'range'),
        fetchSyncBytesMin,
        fetchSyncBytesMax: fetchSyncBytesMin * 2,
        journalWritesMax: between(12, 40, 'journal'),
        waysBytesMin,
        waysWaitBytesMin: 2 ** between(4, 12, 'ways-wait'),
        waysWaitMsMax: between(1, 30, 'ways-wait-ms') * secondMs,
      },
    },
    registry: {
      ...fleetLimits,
      encodingTargetBytesMin: waysBytesMin,
      encodingsBytesMax: sometimes(0.3, 'encodings-small') ? between(1, 6, 'encodings') * 1_024 : 4_194_304,
      encodingQueueMax: between(1, 6, 'encoding-queue'),
      encodingDemandMax: between(1, 4, 'encoding-demand'),
      encodingRetryMs: between(2, 40, 'encoding-retry') * minuteMs,
      downloadsMax: between(1, 4, 'downloads'),
      downloadWaitMs: between(1, 4, 'download-wait') * secondMs,
      downloadTurnMs: between(2, 60, 'download-turn') * secondMs,
      rolloutStepEveryMs: between(5, 60, 'step') * secondMs,
      ...(shortLived
        ? {
            assignmentMs: 4 * hourMs,
            assignmentRenewBeforeMs: 2 * hourMs,
            renewEveryMs: 10 * minuteMs,
            deviceCertificateMs: 3 * hourMs,
          }
        : {}),
    },
    encodes: sometimes(0.6, 'encodes'),
    recordEveryMs: between(20, 240, 'record') * secondMs,
    models: bundled || sometimes(0.35, 'models') ? ['alpha', 'beta'] : ['alpha'],
    bundled,
    windowed,
    generation,
    originMs: windowed
      ? (originsMs[between(0, originsMs.length - 1, 'origin')] ?? originMsDefault)
      : originMsDefault,
  };
}
