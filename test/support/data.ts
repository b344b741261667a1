// Why: real models and recordings live outside the project; tests that need them say so when absent.
// Trusts: the folder's README for licences and shapes. Must never: copy anything from it into the project.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's root, from the compiled tests in dist/test/support. */
export const projectFolder = fileURLToPath(new URL('../../../', import.meta.url));

export function dataFolder(...parts: string[]): string {
  return join(process.env['LEPTON_DATA'] ?? join(projectFolder, '..', 'shared', 'data'), ...parts);
}

/** False where the data is there, else the reason to give to node:test's `skip`. */
export const dataMissing: string | false = existsSync(dataFolder('models'))
  ? false
  : 'the folder with real models is absent; set LEPTON_DATA';

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}
