// Why: the rows of the suite in one process, in memory: which of them turns red, or which of them passes where.
// Trusts: scripts/mutation-hook.mjs for what was removed. Must never: run a row that needs a broker.

import { readFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import type { AttackCase, Bench } from './attack-case.ts';

/** What scripts/mutations.mjs asks for. */
interface Order {
  /** Ids of the rows to run; all of them where absent. */
  only?: string[];
  /** Rows that expect this code alone. */
  code?: string;
  /** Rows to try first: those that killed this mutant the last time. */
  first?: string[];
  /** A file with places in the code (`{url, at}`): for each, the rows that came through it. */
  probes?: string;
}

/** Rows that take much longer than the others come last. */
const slow = ['root-chain-endless', 'delegations-10001'];

function say(answer: object): never {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  process.exit(0);
}

async function observe(one: AttackCase, bench: Bench): Promise<string> {
  try {
    return await one.run(bench);
  } catch (error) {
    return `threw ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
}

async function judge(rows: AttackCase[], bench: Bench, first: string[]): Promise<never> {
  const rank = (id: string): number => (first.includes(id) ? 0 : slow.includes(id) ? 2 : 1);
  for (const one of rows.toSorted((a, b) => rank(a.id) - rank(b.id))) {
    const observed = await observe(one, bench);
    if (observed !== one.code) say({ red: one.id, observed, rows: rows.length });
  }
  return say({ red: null, observed: '', rows: rows.length });
}

interface Range {
  startOffset: number;
  endOffset: number;
  count: number;
}
interface Coverage {
  result: { url: string; functions: { ranges: Range[] }[] }[];
}

/** How often the code at this place ran, by the smallest counted range around it. */
function countAt(ranges: readonly Range[], at: number): number {
  let best: Range | null = null;
  for (const range of ranges) {
    if (range.startOffset > at || range.endOffset <= at) continue;
    if (best === null || range.endOffset - range.startOffset <= best.endOffset - best.startOffset)
      best = range;
  }
  return best?.count ?? 0;
}

async function trace(rows: AttackCase[], bench: Bench, probesFile: string, session: Session): Promise<never> {
  const probes = JSON.parse(readFileSync(probesFile, 'utf8')) as { url: string; at: number }[];
  const take = (): Coverage => {
    let taken: Coverage = { result: [] };
    session.post('Profiler.takePreciseCoverage', (error, coverage) => {
      if (error !== null) throw error;
      taken = coverage;
    });
    return taken;
  };
  const through: string[][] = probes.map(() => []);
  for (const one of rows) {
    take();
    const observed = await observe(one, bench);
    if (observed !== one.code) say({ red: one.id, observed, rows: rows.length });
    const ranges = new Map<string, Range[]>();
    for (const { url, functions } of take().result) {
      ranges.set(url, [...(ranges.get(url) ?? []), ...functions.flatMap((found) => found.ranges)]);
    }
    for (const [index, { url, at }] of probes.entries())
      if (countAt(ranges.get(url) ?? [], at) > 0) through[index]?.push(one.id);
  }
  return say({ red: null, observed: '', rows: rows.length, through });
}

try {
  const order = JSON.parse(process.env['LEPTON_ROWS'] ?? '{}') as Order;
  // Coverage counts from where it is switched on: before the code under test is loaded.
  const session = new Session();
  if (order.probes !== undefined) {
    session.connect();
    session.post('Profiler.enable');
    session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }
  const { allCases } = await import('./all-cases.ts');
  const { directBench } = await import('./direct-bench.ts');
  const rows = allCases.filter(
    (one) =>
      one.needs === undefined &&
      one.wireOnly !== true &&
      (order.only === undefined || order.only.includes(one.id)) &&
      (order.code === undefined || order.code === one.code),
  );
  if (order.probes !== undefined) await trace(rows, directBench, order.probes, session);
  await judge(rows, directBench, order.first ?? []);
} catch (error) {
  // The mutant does not even load: that is a red row only where it is no fault of the scanner.
  if (error instanceof SyntaxError) throw error;
  say({ red: 'loading', observed: error instanceof Error ? error.message : String(error), rows: 0 });
}
