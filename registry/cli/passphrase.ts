// Why: where the passphrase of a key file comes from: a file, a variable, else a person at a terminal.
// Trusts: the user's own environment. Must never: print a passphrase, take it from a flag (others see those), or
// go on with an empty one.

import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { askSecret, canAsk } from '../../shared/host/terminal.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { note } from './output.ts';

const fileVariable = 'LEPTON_PASSPHRASE_FILE';
/** Shorter ones are guessed from a stolen file in days, whatever scrypt costs. */
const shortCharacters = 12;

function given(): string | null {
  const path = process.env[fileVariable];
  if (path !== undefined && path !== '') {
    try {
      // Editors end a file with a line feed that nobody typed.
      return readFileSync(path, 'utf8').replace(/\r?\n$/, '');
    } catch (cause) {
      throw new FleetError('input-invalid', `cannot read the passphrase file ${path}`, { cause });
    }
  }
  const variable = process.env['LEPTON_PASSPHRASE'];
  return variable === undefined ? null : variable;
}

function checked(passphrase: string): string {
  if (passphrase === '') throw new FleetError('passphrase-missing', 'the passphrase is empty');
  return passphrase;
}

/** The passphrase of an existing file. Faults: `passphrase-missing`, `interrupted`. */
export function passphraseOf(path: string): string {
  const known = given();
  if (known !== null) return checked(known);
  if (!canAsk()) throw new FleetError('passphrase-missing', 'the key is sealed and nobody can be asked');
  return checked(askSecret(`passphrase of ${path}: `));
}

/** A passphrase for a new file, typed twice. Faults: `passphrase-missing`, `passphrase-wrong`, `interrupted`. */
export function newPassphrase(path: string): string {
  const known = given();
  if (known === null && !canAsk())
    throw new FleetError('passphrase-missing', `${path} is to be sealed and nobody can be asked`);
  const passphrase = checked(known ?? askSecret(`new passphrase for ${path}: `));
  if (known === null && askSecret('the same once more: ') !== passphrase)
    throw new FleetError('passphrase-wrong', 'the two are not the same', {
      hint: 'nothing was written; try again',
    });
  if (passphrase.length < shortCharacters)
    note(`this passphrase has only ${passphrase.length} characters: whoever steals the file will guess it\n`);
  return passphrase;
}

/** Every command that takes a private key by `--key <file>` takes the passphrase's file as well. */
export function addPassphraseFlags(command: Command): void {
  if (command.options.some((option) => option.flags === '--key <file>')) {
    command.option('--passphrase-file <file>', 'passphrase of a sealed key (or LEPTON_PASSPHRASE)');
  }
  for (const one of command.commands) addPassphraseFlags(one);
}

/** The flag goes before the variables. */
export function usePassphraseFlag(command: Command): void {
  const { passphraseFile } = command.opts<{ passphraseFile?: string }>();
  if (passphraseFile !== undefined) process.env[fileVariable] = passphraseFile;
}
