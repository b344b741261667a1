// node --import ./scripts/planted-hook.mjs scripts/planted-seeds.mjs SEEDS JOBS WORLD [until-failure]: runs these seeds,
// in their order, and writes one JSON line each: seed, violation, marks that were passed. A part of planted-bugs.mjs.
import { createPool } from '../dist/firmware-sim/explore/workers.js';
import { systemClock } from '../dist/shared/host/clock.js';

const [, , list, jobs, world, until] = process.argv;
const seeds = list.split(',').map(Number);
const pool = createPool({ world, jobs: Number(jobs), seedLimitMs: 180_000, clock: systemClock });
const running = new Set();
let failed = false;
for (const seed of seeds) {
  while (running.size >= Number(jobs)) await Promise.race(running);
  if (failed && until === 'until-failure') break;
  const run = pool.run({ seed }).then(({ violation, coverage }) => {
    running.delete(run);
    failed ||= violation !== null;
    const marks = Object.keys(coverage).filter((name) => name.startsWith('reached '));
    console.log(JSON.stringify({ seed, violation, marks: marks.map((name) => Number(name.slice(8))) }));
  });
  running.add(run);
}
await Promise.all(running);
pool.close();
