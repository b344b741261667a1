#!/usr/bin/env node
// Why: `lepton`, the operator's and publisher's program, and the registry's own entry point.
// Trusts: the user's flags only after they were parsed. Must never: end with 0 after a failure.

import { Command, CommanderError } from 'commander';
import { spokenHelp, spokenHelpText } from '../../shared/host/help-language.ts';
import { speaker } from '../../shared/host/speech.ts';
import { startSpeaking } from '../../shared/host/start-speaking.ts';
import { asFleetError, refusalError } from '../../shared/kernel/errors.ts';
import { formatError } from '../../shared/wire/cli-output.ts';
import { chooseLanguage, languageOfEnvironment } from '../../shared/wire/languages.ts';
import { addCommands } from './command-groups.ts';
import { addPassphraseFlags, usePassphraseFlag } from './passphrase.ts';
import { programVersion } from './version.ts';

/** Commander's own messages in our one-line form; help and version are no errors. */
function fromCommander(error: CommanderError): number {
  if (error.exitCode === 0) return 0;
  const words = error.message.replace(/^error: /, '').replace(/\n/g, ' ');
  // Asked for nothing: commander has printed the help already.
  if (error.code !== 'commander.help')
    fail('config-invalid', words, 'lepton --help lists commands and flags');
  return 2;
}

function fail(code: string, text: string, next: string): void {
  const message = speaker().say(text);
  const hint = speaker().say(next);
  if (process.argv.includes('--json'))
    process.stdout.write(`${JSON.stringify({ error: { code, message, hint } })}\n`);
  process.stderr.write(`lepton: ${code}: ${message}; ${hint}\n`);
}

/** Every command of a tree throws instead of ending the process, and prints no error text of its own. */
function quiet(command: Command): void {
  command.exitOverride().configureOutput({
    outputError: () => undefined,
    writeOut: (text) => process.stdout.write(spokenHelpText(text)),
  });
  for (const one of command.commands) quiet(one);
}

/** What was thrown, in one line; the exit code. */
function tell(thrown: unknown): number {
  const fault = formatError(asFleetError(thrown), speaker().say);
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(fault.json)}\n`);
  process.stderr.write(`${fault.line}\n`);
  return fault.exit;
}

async function main(): Promise<number> {
  const chosen = chooseLanguage(process.argv.slice(2), process.env);
  await startSpeaking(chosen.ok ? chosen.value.language : languageOfEnvironment(process.env));
  if (!chosen.ok) return tell(refusalError(chosen.refusal));
  const program = new Command('lepton')
    .description('Machine-learning releases for fleets of edge devices: push, roll out, watch.')
    .version(programVersion(), '-V, --version')
    .option('--lang <language>', 'en or zh, before or after the command (or LEPTON_LANG; else the locale’s)')
    .configureHelp(spokenHelp())
    // `models push --version` is the release's: the program's own flags stand before the command.
    .enablePositionalOptions()
    .showHelpAfterError(false);
  await addCommands(program, chosen.value.words);
  addPassphraseFlags(program);
  program.hook('preAction', (_program, command) => usePassphraseFlag(command));
  quiet(program);
  try {
    await program.parseAsync(chosen.value.words, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return fromCommander(error);
    return tell(error);
  }
}

// Nobody reads on (`… | head`): there is nothing left to do, and nothing went wrong.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
process.exitCode = await main();
