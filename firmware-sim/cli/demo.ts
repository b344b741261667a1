// Why: what `lepton-sim demo` does with the terminal, signals and the exit code around the story.
// Trusts: demo.ts. Must never: print anything but the summary on stdout with `--json`.

import { systemClock } from '../../shared/host/clock.ts';
import { type DemoOptions, runDemo } from '../demo/demo.ts';

export interface DemoFlags {
  once: boolean;
  json: boolean;
}

/** The first signal stops the demo in order; the programs end with it. */
function stopSignal(): AbortSignal {
  const stopping = new AbortController();
  const onSignal = (): void => {
    // Asked twice, it goes at once; the processes it started are killed on the way out.
    if (stopping.signal.aborted) process.exit(1);
    stopping.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  return stopping.signal;
}

/** True where the demo showed what it promises. With `json` the last line of stdout is the summary. */
export async function demo(flags: DemoFlags): Promise<boolean> {
  const out = flags.json ? process.stderr : process.stdout;
  const stage: DemoOptions['stage'] = {
    write: (text) => out.write(text),
    terminal: out.isTTY ? () => ({ columns: out.columns, rows: out.rows }) : null,
  };
  const summary = await runDemo({
    once: flags.once,
    stage,
    clock: systemClock,
    signal: stopSignal(),
    onSummary: (known) => {
      if (flags.json) process.stdout.write(`${JSON.stringify(known)}\n`);
    },
  });
  return summary.ok;
}
