// Why: files that let whoever has them in (claims, invitations) are written for their owner alone.
// Trusts: the file system's modes. Must never: write into a file that others may read.

import { chmodSync, existsSync, writeFileSync } from 'node:fs';

/** Replaces a file of that name. Throws what the file system says. */
export function writeSecret(path: string, content: object): void {
  // The mode of a call is for new files alone.
  if (existsSync(path)) chmodSync(path, 0o600);
  writeFileSync(path, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
}
