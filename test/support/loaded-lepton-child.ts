// Why: one process that has loaded `lepton` and runs it again and again, for tests that run it a hundred times:
// loading takes ten times as long as what most commands do. Trusts: the test that started it.
// Must never: be taken for the program itself where its start, its signals or its stdin are what is tested.

import { once } from 'node:events';
import { pathToFileURL } from 'node:url';
import { programs } from './programs.ts';

export interface LoadedRun {
  number: number;
  args: string[];
  env: Record<string, string>;
}

export interface LoadedEnd {
  number: number;
  code: number;
  stdout: string;
  stderr: string;
}

const entry = pathToFileURL(programs.lepton).href;

/** What goes to a stream while `work` runs. */
async function written(stream: NodeJS.WriteStream, work: () => Promise<void>): Promise<string> {
  let text = '';
  const { write } = stream;
  const decoder = new TextDecoder();
  stream.write = (chunk: string | Uint8Array, ...rest: unknown[]): boolean => {
    text += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
    const done = rest.at(-1);
    if (typeof done === 'function') process.nextTick(done as () => void);
    return true;
  };
  try {
    await work();
  } finally {
    stream.write = write;
  }
  return text;
}

async function runOnce({ number, args, env }: LoadedRun): Promise<LoadedEnd> {
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, env);
  process.argv = [process.execPath, programs.lepton, ...args];
  process.exitCode = 0;
  let stderr = '';
  const stdout = await written(process.stdout, async () => {
    // Another address: the entry point runs anew, what it imports is there already.
    stderr = await written(process.stderr, async () => void (await import(`${entry}?run=${number}`)));
  });
  process.stdout.removeAllListeners('error');
  return { number, code: Number(process.exitCode), stdout, stderr };
}

let last: Promise<unknown> = Promise.resolve();
process.on('message', (asked: LoadedRun) => {
  last = last.then(async () => process.send?.(await runOnce(asked)));
});
await once(process, 'disconnect');
process.exit(0);
