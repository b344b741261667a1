// Why: forty devices, three releases and three days of what they did, as ingest adds it up, and the days closed.
// Trusts: registry/telemetry/rollups.ts for the sums. Must never: write a cell by itself.

import { createCellPublishing } from '../../registry/cells/publishing.ts';
import type { RegistryCore } from '../../registry/core.ts';
import { createRollups } from '../../registry/telemetry/rollups.ts';
import { addToSketch, createSketch, sketchToJson } from '../../shared/stats/sketch.ts';

export const dayMs = 86_400_000;
export const releases = ['acme/pump@1.0.0', 'acme/pump@1.1.0', 'acme/pump@2.0.0'] as const;

/** In the order of their names, like real ones. */
export const deviceName = (at: number): string => at.toString(16).padStart(32, '0');

export interface Did {
  release: string;
  device: string;
  day: number;
  answered?: number;
  latencyMs?: number;
  failed?: Record<string, number>;
  profileSha256?: string;
  /** Ten bins between under and over. */
  x?: number[];
  joules?: number;
  /** So many features with the counts of `x`. */
  features?: number;
}

function statsOf({
  answered = 24,
  latencyMs = 20,
  failed = {},
  profileSha256,
  x,
  joules,
  features = 1,
}: Did): object[] {
  const sketch = createSketch();
  for (let one = 0; one < answered; one += 1) addToSketch(sketch, latencyMs);
  const errors = Object.values(failed).reduce((sum, one) => sum + one, 0);
  const about = { model: 'pump', windowMs: 60_000 };
  const rows = x?.reduce((sum, one) => sum + one, 0) ?? 0;
  const feature = { role: 'input', tensor: 'x', of: 'value', counts: x, missing: 0 };
  const all = Array.from({ length: features }, (_, index) => ({ ...feature, index }));
  return [
    {
      ...{ kind: 'requests', ...about, requests: answered + errors, errors: failed },
      latencySketch: answered === 0 ? null : sketchToJson(sketch),
    },
    ...(x === undefined
      ? []
      : [{ kind: 'features', ...about, profileSha256, rows, seenRows: rows, features: all }]),
    ...(joules === undefined
      ? []
      : [
          {
            ...{ kind: 'energy', ...about, requests: answered, source: 'measured', method: 'rapl' },
            ...{ joules, cpuMs: null },
          },
        ]),
  ];
}

export async function tell(core: Pick<RegistryCore, 'store'>, did: readonly Did[]): Promise<void> {
  const rollups = createRollups(core.store);
  await core.store.tx((db) => {
    for (const one of did) {
      const timeMs = one.day * dayMs + 9 * 3_600_000;
      const records = statsOf(one).map((data) => ({
        timeMs,
        release: one.release,
        data: JSON.stringify(data),
      }));
      rollups.addIn(db, one.device, records);
    }
  });
}

/** Twenty run the first, seventeen the second, three the third. */
export function threeDays(firstDay: number, profileSha256?: string): Did[] {
  const did: Did[] = [];
  for (let day = firstDay; day < firstDay + 3; day += 1)
    for (let at = 0; at < 40; at += 1) {
      const release = releases[at < 20 ? 0 : at < 37 ? 1 : 2];
      const device = deviceName(at);
      const latencyMs = at % 10 === 0 ? 40 : 20;
      const failed: Record<string, number> = at % 2 === 0 ? { 'bad-input': 1 } : {};
      const x = [0, ...Array<number>(10).fill(2), 0, 0];
      const features = profileSha256 === undefined ? {} : { profileSha256, x: x.slice(0, 12) };
      did.push({ ...{ release, device, day, latencyMs, failed, answered: 20, joules: 0.5 }, ...features });
    }
  return did;
}

export function publishing(
  core: Pick<RegistryCore, 'region' | 'store' | 'keyring' | 'clock' | 'log'>,
  devicesMin = 5,
) {
  return createCellPublishing({ ...core, signer: core.keyring.signer('ack'), devicesMin: () => devicesMin });
}
