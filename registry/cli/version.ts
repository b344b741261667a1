// Why: the program's version, as package.json says it.
// Trusts: the installation. Must never: be written a second time.

import { readFileSync } from 'node:fs';
import { z } from 'zod';

export function programVersion(): string {
  // Two folders up from dist/registry/cli, and one more out of dist.
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return z.object({ version: z.string() }).parse(JSON.parse(text)).version;
}
