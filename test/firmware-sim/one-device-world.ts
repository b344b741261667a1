// Why: the reboot harness behind the explorer's interface: a world that is small, quick and easy to break, to try the
// explorer on. Trusts: the harness. Must never: ignore `only`, by which the shrinker takes faults out.

import type { Coverage, RunSeed, SeedResult } from '../../firmware-sim/explore/seed-run.ts';
import { createFaults, faultKinds } from '../../firmware-sim/faults.ts';
import { type Plant, runWorld } from '../../firmware-sim/harness.ts';
import { drawScenario } from '../../firmware-sim/scenario.ts';
import type { Cut, Mark, Operation } from '../../firmware-sim/world.ts';

const node = 'device';
const cutsMax = 12;

/** A line of the trace that tells of a change of state. */
const transition = /^(\d+) device info update\.transition (\{.*\})$/;

const issue = /^(\d+) registry issues (epoch \d+) (.*)$/;

function told(trace: readonly string[]): { phases: Mark[]; coverage: Coverage } {
  const phases: Mark[] = [];
  const coverage: Coverage = {};
  const count = (name: string) => {
    coverage[name] = (coverage[name] ?? 0) + 1;
  };
  for (const line of trace) {
    const [, issuedAt, epoch, wanted = '{}'] = issue.exec(line) ?? [];
    if (epoch !== undefined) {
      const keys = Object.values(JSON.parse(wanted) as Record<string, { key: string }>).map(({ key }) => key);
      phases.push({
        atMs: Number(issuedAt),
        node: 'world',
        kind: 'step',
        text: `${epoch}: ${keys.join(', ') || 'nothing'}`,
      });
    }
    const [, at, fields] = transition.exec(line) ?? [];
    if (at === undefined || fields === undefined) continue;
    const { model, from, to } = JSON.parse(fields) as { model: string; from: string; to: string };
    phases.push({ atMs: Number(at), node, kind: 'phase', text: `${model} ${to}` });
    count(`state device ${to}`);
    count(`transition ${from} ${to}`);
  }
  return { phases, coverage };
}

export function oneDeviceWorld(plant: Plant = {}): RunSeed {
  return async ({ seed, only, trace }): Promise<SeedResult> => {
    const faults = createFaults(seed, only);
    const steps = drawScenario(seed).filter((_, index) => faults.takesPlace(index));
    let cuts = 0;
    const cutAt = ({ total }: Operation): Cut | null => {
      const before = faults.happens('cut.before', node, 0);
      const after = faults.happens('cut.after', node, 0);
      // Asked at every operation, or the numbers would move; `total` is among them.
      if (total < 0 || cuts >= cutsMax || !(before || after)) return null;
      cuts += 1;
      return before ? 'before' : 'after';
    };
    const result = await runWorld({ seed, steps, cuts: cutAt, plant });
    const { phases, coverage } = told(result.trace);
    for (const kind of faultKinds) {
      const times = faults.fired().filter((id) => id.startsWith(`${kind} `)).length;
      if (times > 0) coverage[`fault ${kind}`] = times;
    }
    const marks = [...result.marks, ...phases].sort((a, b) => a.atMs - b.atMs);
    return {
      seed,
      violation: result.violation,
      endedAtMs: result.virtualMs,
      faults: [...faults.fired()],
      operations: result.operations,
      devices: 1,
      traceSha256: result.traceSha256,
      trace: trace === true ? result.trace : [],
      marks: trace === true ? marks : [],
      coverage,
    };
  };
}

export const runSeed: RunSeed = oneDeviceWorld();
