#!/usr/bin/env node
// Why: `lepton-sim`: explore seeds of the simulated world from a shell or a nightly job, and the demo.
// Trusts: its flags after the checks here. Must never: exit 0 when a seed broke an invariant.

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { FleetError } from '../../shared/kernel/errors.ts';
import { formatError } from '../../shared/wire/cli-output.ts';
import { type DemoFlags, demo } from './demo.ts';
import { coverageCommand, type ExploreFlags, exploreCommand, type RunFlags } from './explore.ts';

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

function jobs(text: string): number {
  const value = positive(text);
  if (value > 256) throw new InvalidArgumentError('expected at most 256');
  return value;
}

function fail(thrown: unknown): void {
  const { line, json, exit } = formatError(thrown);
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(json)}\n`);
  process.stderr.write(`${line}\n`);
  process.exitCode = exit;
}

const program = new Command('lepton-sim')
  .description('Simulation: a fleet of real code on simulated hardware from one seed, and one to look at.')
  .exitOverride()
  // Errors are written below, as one line with a code.
  .configureOutput({ outputError: () => undefined });

program
  .command('explore')
  .description('run seeds; exit 1 where one breaks an invariant')
  .option('--seed <number>', 'the first seed', wholeNumber)
  .option('--from <number>', 'the first seed, where --seeds says how many', wholeNumber)
  .option('--seeds <number>', 'how many, counting up', positive)
  .option('--jobs <number>', 'processes at once; 1: in this one (default: one for each core)', jobs)
  .option('--json', 'one JSON document a seed; the trace with a single seed or a failure', false)
  .option('--no-shrink', 'do not look for the shortest list of faults of a seed that fails')
  .option('--until-failure', 'end at the first seed that fails', false)
  .option('--svg <file>', 'a timeline of the first seed that fails, else of the first')
  .option('--only <file>', 'exactly the faults and steps that this file lists')
  .addOption(new Option('--world <file>', 'a module that exports runSeed').hideHelp())
  .action(async (flags: ExploreFlags) => {
    if (!(await exploreCommand(flags))) process.exitCode = 1;
  });

program
  .command('coverage')
  .description('run seeds; exit 1 where they never reached something that is not explained')
  .option('--from <number>', 'the first seed', wholeNumber)
  .option('--seeds <number>', 'how many, counting up', positive, 1_000)
  .option('--jobs <number>', 'processes at once; 1: in this one (default: one for each core)', jobs)
  .option('--json', 'one JSON document', false)
  .addOption(new Option('--world <file>', 'a module that exports runSeed').hideHelp())
  .action(async (flags: RunFlags) => {
    if (!(await coverageCommand(flags))) process.exitCode = 1;
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
