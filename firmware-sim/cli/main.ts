#!/usr/bin/env node
// Why: `lepton-sim`: explore seeds of the simulated world from a shell or a nightly job.
// Trusts: its flags after the checks here. Must never: exit 0 when a seed broke an invariant.

import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { progress } from '../../shared/host/terminal.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { formatError } from '../../shared/wire/cli-output.ts';
import { exploreSeed } from '../harness.ts';
import { type DemoFlags, demo } from './demo.ts';
import { type ExploreOptions, explore } from './explore.ts';

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 0');
  return value;
}

function positive(text: string): number {
  const value = wholeNumber(text);
  if (value < 1) throw new InvalidArgumentError('expected a whole number from 1');
  return value;
}

function fail(thrown: unknown): void {
  const { line, json, exit } = formatError(thrown);
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(json)}\n`);
  process.stderr.write(`${line}\n`);
  process.exitCode = exit;
}

const program = new Command('lepton-sim')
  .description('Simulation: the real update code under power cuts from a seed, and a fleet to look at.')
  .exitOverride()
  // Errors are written below, as one line with a code.
  .configureOutput({ outputError: () => undefined });

program
  .command('explore')
  .description('run seeds; exit 1 where one breaks an invariant')
  .requiredOption('--seed <number>', 'the first seed', wholeNumber)
  .option('--seeds <number>', 'how many, counting up', positive, 1)
  .option('--json', 'one JSON document a seed; the trace with a single seed or a failure', false)
  .action(async (options: ExploreOptions) => {
    const bar = progress('seeds', options.seeds);
    const held = await explore(options, {
      run: exploreSeed,
      write: (line) => process.stdout.write(`${line}\n`),
      advance: () => bar.advance(1),
    });
    bar.stop();
    if (!held) process.exitCode = 1;
  });

program
  .command('demo')
  .description('a registry and three agents as real processes, simulated machines, three releases')
  .option('--once', 'end after the summary; exit 1 where it is not as promised', false)
  .option('--json', 'the summary as the last line of stdout, everything else on stderr', false)
  .action(async (flags: DemoFlags) => {
    if (!(await demo(flags))) process.exitCode = 1;
  });

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) {
    // Help ends here too, with 0; everything else is a flag that is wrong.
    if (thrown.exitCode === 0 || thrown.code === 'commander.help')
      process.exitCode = thrown.exitCode === 0 ? 0 : 2;
    else fail(new FleetError('config-invalid', thrown.message.replace(/^error: /, '')));
  } else {
    fail(thrown);
  }
}
