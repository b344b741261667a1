// Why: certificates of erasures as people keep them: the registry's own file, what `erase --out` wrote, or folders of those.
// Trusts: nothing before the schema; the registry checks signatures. Must never: pass over a certificate that it cannot read.

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type Erasure, erasureSchema } from '../../shared/wire/erasure.ts';
import { erasuresFile, parseErasureLines } from '../telemetry/erasure-journal.ts';

function unreadable(path: string, why: string): FleetError {
  return new FleetError('input-invalid', `${path} holds no certificates of erasures: ${why}`, {
    hint: 'name the erasures.jsonl of the lost registry, what `erase --out` wrote, or a folder of them',
  });
}

function documentOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function inFile(path: string): Erasure[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new FleetError('input-invalid', `cannot read ${path}`, { cause });
  }
  const one = erasureSchema.safeParse(documentOf(text));
  if (one.success) return [one.data];
  const many = erasureSchema.array().safeParse(documentOf(text));
  if (many.success) return many.data;
  // The last line may lack its end: the registry was cut off while it wrote it, and never said that it was done.
  const { erasures, malformed } = parseErasureLines(text);
  if (malformed > 0) throw unreadable(path, `${malformed} line(s) follow no schema`);
  if (erasures.length === 0 && text.trim() !== '') throw unreadable(path, 'it is no list of them');
  return erasures;
}

function inFolder(path: string): Erasure[] {
  const names = readdirSync(path);
  const journal = names.includes(erasuresFile) ? inFile(join(path, erasuresFile)) : [];
  const certificates = names
    .filter((name) => name.endsWith('.json'))
    .flatMap((name) => {
      const parsed = erasureSchema.safeParse(documentOf(readFileSync(join(path, name), 'utf8')));
      return parsed.success ? [parsed.data] : [];
    });
  const found = [...journal, ...certificates];
  // A registry that never erased anything has no such file.
  const isRegistry = existsSync(join(path, 'registry.sqlite'));
  if (found.length === 0 && !isRegistry) throw unreadable(path, 'there are none in it');
  return found;
}

/** Of all that was named. Fault: `input-invalid`. */
export function readErasureFiles(paths: readonly string[]): Erasure[] {
  return paths.flatMap((path) => {
    const there = statSync(path, { throwIfNoEntry: false });
    if (there === undefined) throw new FleetError('input-invalid', `there is no ${path}`);
    return there.isDirectory() ? inFolder(path) : inFile(path);
  });
}
