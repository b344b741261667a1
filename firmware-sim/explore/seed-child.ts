// Why: one of the processes that run seeds; the seed comes as a message and so does its result.
// Trusts: the process that started it. Must never: be imported (it is a program), nor outlive its parent.

import { failedRun } from './runner.ts';
import type { RunSeed, SeedOptions } from './seed-run.ts';
import type { Reply } from './workers.ts';

const [, , world = ''] = process.argv;
// Ctrl-C reaches the whole group: the parent decides what is given up.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(0));

const loaded: Promise<RunSeed> = import(world).then((module: { runSeed: RunSeed }) => module.runSeed);
// Each question is told; before the first there is nobody to tell.
loaded.catch(() => undefined);

process.on('message', (options: SeedOptions) => {
  const reply = (one: Reply) => process.send?.(one);
  loaded.then(
    (runSeed) =>
      runSeed(options).then(
        (result) => reply({ result }),
        (thrown: unknown) => reply({ result: failedRun(options.seed, thrown) }),
      ),
    (thrown: unknown) => reply({ failed: `the world cannot be loaded: ${String(thrown)}` }),
  );
});
