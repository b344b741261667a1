// Why: what a first word loads must be what the help promises under that word.
// Trusts: commander's list of commands. Must never: accept a command that only the whole help knows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command } from 'commander';
import { addCommands, commandGroups } from '../../registry/cli/command-groups.ts';

async function namesFor(...words: string[]): Promise<string[]> {
  const program = new Command('lepton');
  await addCommands(program, words);
  return program.commands.map((command) => command.name());
}

test('each group adds exactly the commands that it names', async () => {
  for (const { names } of commandGroups)
    for (const name of names) assert.deepEqual(await namesFor(name), names);
});

test('where the first word is no command, every one is there, in the order of the help', async () => {
  const all = commandGroups.flatMap(({ names }) => names);
  assert.equal(new Set(all).size, all.length);
  for (const words of [
    [],
    ['--help'],
    ['help', 'models'],
    ['frobnicate'],
    ['--passphrase-file', 'x', 'keys'],
  ])
    assert.deepEqual(await namesFor(...words), all);
  assert.deepEqual(await namesFor('--json', 'keys', 'models'), ['keys']);
});
