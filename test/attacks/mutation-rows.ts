// Why: the rows of the suite in one process, in memory, until the first that is red: what a mutant is judged by.
// Trusts: scripts/mutation-hook.mjs for what was removed. Must never: run a row that needs a broker.

/** Rows to try first, by id, separated by commas: those that killed this mutant the last time. */
const first = (process.argv[2] ?? '').split(',');

/** Rows that take much longer than the others come last. */
const slow = ['root-chain-endless', 'delegations-10001'];

interface Verdict {
  /** The row that turned red, or null where all are green. */
  red: string | null;
  observed: string;
  rows: number;
}

function say(verdict: Verdict): never {
  process.stdout.write(`${JSON.stringify(verdict)}\n`);
  process.exit(0);
}

async function judge(): Promise<never> {
  const { allCases } = await import('./all-cases.ts');
  const { directBench } = await import('./direct-bench.ts');
  const runnable = allCases.filter((one) => one.needs === undefined && one.wireOnly !== true);
  const rank = (id: string): number => (first.includes(id) ? 0 : slow.includes(id) ? 2 : 1);
  const ordered = runnable.toSorted((a, b) => rank(a.id) - rank(b.id));
  for (const one of ordered) {
    let observed: string;
    try {
      observed = await one.run(directBench);
    } catch (error) {
      observed = `threw ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
    }
    if (observed !== one.code) say({ red: one.id, observed, rows: ordered.length });
  }
  return say({ red: null, observed: '', rows: ordered.length });
}

try {
  await judge();
} catch (error) {
  // The mutant does not even load: that is a red row only where it is no fault of the scanner.
  if (error instanceof SyntaxError) throw error;
  say({ red: 'loading', observed: error instanceof Error ? error.message : String(error), rows: 0 });
}
