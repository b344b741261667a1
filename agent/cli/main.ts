#!/usr/bin/env node
// Why: the `lepton-agent` command. Trusts: its command line. Must never: leave by another exit code than
// the contract's: 0 success, 1 failure, 2 bad flags or an unparsable file.

import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { Command, CommanderError } from 'commander';
import { spokenHelp, spokenHelpText } from '../../shared/host/help-language.ts';
import { speaker } from '../../shared/host/speech.ts';
import { startSpeaking } from '../../shared/host/start-speaking.ts';
import { FleetError, refusalError } from '../../shared/kernel/errors.ts';
import { formatError } from '../../shared/wire/cli-output.ts';
import { chooseLanguage, languageOfEnvironment } from '../../shared/wire/languages.ts';
import type { DeferFlags } from './defer.ts';
import type { RunFlags } from './run.ts';
import type { StatusFlags } from './status.ts';
import type { TufFlags } from './tuf.ts';

// A device has little memory and the agent little garbage. Without these V8 lets the young generation grow to
// 32 MiB at start: 108 MB resident were measured, 86 MB with them, and no slower parsing of requests.
// Set before the rest is loaded; they are heuristics, read each time.
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--optimize-for-size');
// Compiled code and its compiler's memory for what runs once at start: 83 to 92 MB resident without, 78 with. What
// is hot (a request's JSON) is still compiled, seven times later.
setFlagsFromString('--interrupt-budget=1000000');

// Keys and state are for this user alone, whatever makes the files.
process.umask(0o077);

function ownVersion(): string {
  // From dist/agent/cli to the package's root.
  const body: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  const found = typeof body === 'object' && body !== null && 'version' in body ? body.version : undefined;
  return typeof found === 'string' ? found : '0.0.0';
}

const collect = (value: string, before: string[]): string[] => [...before, value];

/** Ends the process with the one line that says why. */
function fail(error: unknown): void {
  const { line, json, exit } = formatError(error, speaker().say);
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(json)}\n`);
  process.stderr.write(`${line}\n`);
  process.exitCode = exit;
}

const chosen = chooseLanguage(process.argv.slice(2), process.env);
const language = chosen.ok ? chosen.value.language : languageOfEnvironment(process.env);

/** The daemon writes JSON for programs: it carries no catalogue, until it has to say why it ends. */
function isDaemon(words: readonly string[]): boolean {
  return words[0] === 'run' && !words.includes('--help') && !words.includes('-h');
}

async function main(): Promise<void> {
  if (!chosen.ok || !isDaemon(chosen.value.words)) await startSpeaking(language);
  if (!chosen.ok) throw refusalError(chosen.refusal);
  const version = ownVersion();
  const program = new Command('lepton-agent')
    .description('Runs signed models on this device and keeps them current.')
    .version(version)
    .option('--lang <language>', 'en or zh, before or after the command (or LEPTON_LANG; else the locale’s)')
    .configureHelp(spokenHelp())
    .exitOverride()
    .configureOutput({
      writeErr: () => undefined,
      writeOut: (text) => process.stdout.write(spokenHelpText(text)),
    });
  program
    .command('run')
    .description('the daemon; prints one JSON line when it is enrolled and listening')
    .option('--claim <file>', 'enrolment claim; needed for the first start only (LEPTON_CLAIM)')
    .option('--state <folder>', 'keys, releases and journal; made 0700, one process at a time (LEPTON_STATE)')
    .option('--http <host:port>', 'where models are served; port 0 takes a free one (LEPTON_HTTP)')
    .option('--label <key=value>', 'a label of this device; repeatable', collect, [])
    .option('--re-enroll', 'make a new key and enrol again with the claim')
    .option('--token <token>', 'bearer token for the HTTP API, needed beyond loopback (LEPTON_AGENT_TOKEN)')
    .option(
      '--stream-broker <url>',
      'MQTT broker on this device for streams, mqtt://127.0.0.1:PORT (LEPTON_STREAM_BROKER)',
    )
    .option('--server-name <name>', 'name that GET /v2 tells clients (LEPTON_SERVER_NAME)')
    .option(
      '--server-extension <name>',
      'what GET /v2 lists instead of its own extensions; repeatable (LEPTON_SERVER_EXTENSIONS, with commas)',
      collect,
      [],
    )
    .option(
      '--storage-quota <size>',
      'most that files of releases may take, for instance 500MiB; all of the disk where absent (LEPTON_STORAGE_QUOTA)',
    )
    .option(
      '--transport <way>',
      'how files come: mqtt, https on the broker’s port, or auto: mqtt, and the other where one fails (LEPTON_TRANSPORT)',
    )
    .option(
      '--outbox-max <size>',
      'most that telemetry which waits may take, for instance 64MiB, the default (LEPTON_OUTBOX_MAX)',
    )
    .option(
      '--outbox-retention <days>',
      'telemetry that waited longer is dropped and counted; 365d where absent (LEPTON_OUTBOX_RETENTION)',
    )
    .option(
      '--timezone <name>',
      'IANA name of the zone in which windows are told; the machine’s own where absent (LEPTON_TIMEZONE)',
    )
    .option('--log-level <level>', 'debug, info, warn, error or silent (LEPTON_LOG_LEVEL)')
    .option('--json', 'errors as JSON on stdout too')
    .action(async (flags: RunFlags) => {
      const { run } = await import('./run.ts');
      await run(flags, version);
    });
  program
    .command('status')
    .description('what the device runs and why')
    .option('--state <folder>', 'the folder of lepton-agent run (LEPTON_STATE)')
    .option('--token <token>', 'the daemon’s token, where it has one (LEPTON_AGENT_TOKEN)')
    .option('--json', 'one JSON document')
    .action(async (flags: StatusFlags) => {
      const { status } = await import('./status.ts');
      await status(flags, version);
    });
  program
    .command('defer')
    .description('“not now”: downloads that have not begun and switches wait, as long as the rollout allows')
    .option('--for <duration>', 'for how long from now, for instance 30m or 2h')
    .option('--clear', 'take it back')
    .option('--state <folder>', 'the folder of lepton-agent run (LEPTON_STATE)')
    .option('--token <token>', 'the daemon’s token, where it has one (LEPTON_AGENT_TOKEN)')
    .option('--json', 'one JSON document')
    .action(async (flags: DeferFlags) => {
      const { defer } = await import('./defer.ts');
      await defer(flags);
    });
  program
    .command('tuf')
    .description('the TUF client alone: init ROOT, refresh, or download, with the conformance suite’s flags')
    .argument('<action>', 'init, refresh or download')
    .argument('[root]', 'for init: the root file to trust')
    .option('--metadata-dir <folder>', 'where metadata is kept, byte for byte as it was received')
    .option('--metadata-url <url>', 'where the repository’s metadata is')
    .option('--target-name <path>', 'a target to download; repeatable', collect, [])
    .option('--target-base-url <url>', 'where the repository’s target files are')
    .option('--target-dir <folder>', 'where verified target files go, one flat name each')
    .option('--json', 'one JSON document')
    .action(async (action: string, root: string | undefined, flags: TufFlags) => {
      const [{ tuf }, { systemClock }] = await Promise.all([
        import('./tuf.ts'),
        import('../../shared/host/clock.ts'),
      ]);
      const done = await tuf(action, root, flags, systemClock);
      if (flags.json === true) process.stdout.write(`${JSON.stringify(done)}\n`);
    });
  try {
    await program.parseAsync(chosen.value.words, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // --help and --version have printed what was asked for.
    if (error.exitCode === 0) return;
    const message =
      error.code === 'commander.help' ? 'no command was given' : error.message.replace(/^error: /, '');
    throw new FleetError('config-invalid', message);
  }
}

process.on('uncaughtException', (error) => {
  // A bug: the supervisor restarts the process and the journal resumes.
  fail(error);
  process.exit(1);
});

main().then(
  () => {
    // Nothing may keep a stopped agent alive.
    process.exit(process.exitCode ?? 0);
  },
  async (error: unknown) => {
    await startSpeaking(language);
    fail(error);
    process.exit();
  },
);
