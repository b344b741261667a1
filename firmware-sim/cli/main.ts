#!/usr/bin/env node
// Why: `lepton-sim`: explore seeds of the simulated world from a shell or a nightly job, the demo, and scenarios
// of data with sensors that feed an agent.
// Trusts: its flags after the checks here. Must never: exit 0 when a seed broke an invariant.

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { spokenHelp, spokenHelpText } from '../../shared/host/help-language.ts';
import { speaker } from '../../shared/host/speech.ts';
import { startSpeaking } from '../../shared/host/start-speaking.ts';
import { FleetError, refusalError } from '../../shared/kernel/errors.ts';
import { formatError } from '../../shared/wire/cli-output.ts';
import { chooseLanguage, languageOfEnvironment } from '../../shared/wire/languages.ts';
import { durationSchema } from '../../shared/wire/rollout-file.ts';
import { type DemoFlags, demo } from './demo.ts';
import { coverageCommand, type ExploreFlags, exploreCommand, type RunFlags } from './explore.ts';
import { type DataFlags, listScenarios, scenarioData, scenarioRecipe } from './scenario.ts';
import { type SensorFlags, sensor } from './sensor.ts';

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

/** `1s` → 1000; `0s` is no pause at all. */
function duration(text: string): number {
  const parsed = durationSchema.safeParse(text);
  if (!parsed.success) throw new InvalidArgumentError('expected a duration such as 500ms, 1s, 5m');
  return parsed.data;
}

function fail(thrown: unknown): void {
  const { line, json, exit } = formatError(thrown, speaker().say);
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(json)}\n`);
  process.stderr.write(`${line}\n`);
  process.exitCode = exit;
}

const chosen = chooseLanguage(process.argv.slice(2), process.env);
await startSpeaking(chosen.ok ? chosen.value.language : languageOfEnvironment(process.env));

const program = new Command('lepton-sim')
  .description('Simulation: a fleet of real code on simulated hardware from one seed, and one to look at.')
  .option('--lang <language>', 'en or zh, before or after the command (or LEPTON_LANG; else the locale’s)')
  .configureHelp(spokenHelp())
  .exitOverride()
  // Errors are written below, as one line with a code.
  .configureOutput({
    outputError: () => undefined,
    writeOut: (text) => process.stdout.write(spokenHelpText(text)),
  });

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

const scenario = program
  .command('scenario')
  .description('simulated data from six fields, and the recipe that learns each: for lepton train');

scenario
  .command('list')
  .description('the scenarios')
  .option('--json', 'one JSON document, with columns and recipes', false)
  .action((flags: { json: boolean }) => listScenarios(flags));

scenario
  .command('data')
  .description('a table of simulated data as CSV')
  .argument('<name>', 'a scenario')
  .requiredOption('--out <file>', 'the file; -: stdout')
  .option('--rows <number>', 'how many (default: what the scenario’s recipe needs)', positive)
  .option('--seed <number>', 'the same seed gives the same rows', wholeNumber, 1)
  .option('--force', 'write over a file that is there', false)
  .option('--json', 'one JSON document about what was written', false)
  .action((name: string, flags: DataFlags) => scenarioData(name, flags));

scenario
  .command('recipe')
  .description('the recipe as YAML')
  .argument('<name>', 'a scenario')
  .requiredOption('--out <file>', 'the file; -: stdout')
  .option('--force', 'write over a file that is there', false)
  .option('--json', 'one JSON document about what was written', false)
  .action((name: string, flags: Omit<DataFlags, 'rows' | 'seed'>) => scenarioRecipe(name, flags));

program
  .command('sensor')
  .description(
    'a scenario’s sensor beside an agent: asks its model about each row, and tells how well it answered',
  )
  .argument('<name>', 'a scenario')
  .requiredOption('--agent <url>', 'the agent')
  .requiredOption('--model <name>', 'the model that it serves, NAME or NS/NAME')
  .option('--seed <number>', 'of its rows; another than the model was trained on', wholeNumber, 2)
  .option('--every <duration>', 'from one row to the next; 0s: as fast as it is answered', duration, 1_000)
  .option('--count <number>', 'end after so many answers (default: at Ctrl-C)', positive)
  .option('--json', 'one JSON document an answer, then one with the score', false)
  .action((name: string, flags: SensorFlags) => sensor(name, flags));

try {
  if (!chosen.ok) throw refusalError(chosen.refusal);
  await program.parseAsync(chosen.value.words, { from: 'user' });
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
