// Why: where a setting comes from: a flag, else a LEPTON_* variable, else the config file, else a default.
// Trusts: the user's own environment and files. Must never: print a token.

import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { FleetError } from '../../shared/kernel/errors.ts';
import { describeIssues } from '../../shared/wire/messages.ts';

const configSchema = z.strictObject({
  registry: z.string().optional(),
  token: z.string().optional(),
  /** Folder with this person's publisher keys, one `<namespace>.key` each. */
  keys: z.string().optional(),
  logLevel: z.string().optional(),
});
type Config = z.infer<typeof configSchema>;

export function configFolder(): string {
  const base = process.env['XDG_CONFIG_HOME'];
  return join(base !== undefined && base !== '' ? base : join(homedir(), '.config'), 'lepton');
}

let loaded: Config | undefined;

function config(): Config {
  if (loaded !== undefined) return loaded;
  const named = process.env['LEPTON_CONFIG'];
  const path = named ?? join(configFolder(), 'config.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (named !== undefined)
      throw new FleetError('config-invalid', `cannot read the config file ${path}`, { cause });
    loaded = {};
    return loaded;
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new FleetError('config-invalid', `${path} is not JSON: ${String(cause)}`, { cause });
  }
  const parsed = configSchema.safeParse(body);
  if (!parsed.success) throw new FleetError('config-invalid', `${path}: ${describeIssues(parsed.error)}`);
  loaded = parsed.data;
  return loaded;
}

const variables = {
  registry: 'LEPTON_REGISTRY',
  token: 'LEPTON_TOKEN',
  keys: 'LEPTON_KEYS',
  logLevel: 'LEPTON_LOG_LEVEL',
} as const satisfies Record<keyof Config, string>;

/** The flag's value, else the variable's, else the config file's. */
export function setting(name: keyof Config, flag: string | undefined): string | undefined {
  if (flag !== undefined && flag !== '') return flag;
  const variable = process.env[variables[name]];
  if (variable !== undefined && variable !== '') return variable;
  return config()[name];
}
