// Why: a registry that is restored from a backup has forgotten what it erased since; this file, which nothing but the disk
// can lose, has not. One certificate a line.
// Trusts: the disk port; of what it reads nothing before its reader checked the signature. Must never: lose a line that was
// acknowledged, or hold anything of what was erased.

import type { Disk } from '../../shared/kernel/ports.ts';
import { type Erasure, erasureSchema } from '../../shared/wire/erasure.ts';

export const erasuresFile = 'erasures.jsonl';

export interface ErasureJournal {
  /** Whole and well-formed lines, oldest first; how many others there are. */
  read(): Promise<{ erasures: Erasure[]; malformed: number }>;
  /** Durable when it resolves. Those that are there already are left out. */
  append(erasures: readonly Erasure[]): Promise<void>;
}

/** What the lines of such a file say; the last one may be torn. */
export function parseErasureLines(text: string): { erasures: Erasure[]; malformed: number } {
  const lines = text.split('\n').slice(0, -1);
  const erasures = lines.flatMap((line) => {
    const parsed = erasureSchema.safeParse(jsonOf(line));
    return parsed.success ? [parsed.data] : [];
  });
  return { erasures, malformed: lines.filter((line) => line !== '').length - erasures.length };
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

const nameOf = ({ statement: { region, erasureId } }: Erasure): string => `${region} ${erasureId}`;

/** `disk` is the place itself. */
export function openErasureJournal(disk: Disk): ErasureJournal {
  let known: Set<string> | null = null;
  let last: Promise<void> = Promise.resolve();

  async function read(): Promise<{ erasures: Erasure[]; malformed: number }> {
    const bytes = await disk.read(erasuresFile);
    const found = parseErasureLines(bytes === null ? '' : new TextDecoder().decode(bytes));
    known = new Set(found.erasures.map(nameOf));
    return found;
  }

  async function append(erasures: readonly Erasure[]): Promise<void> {
    const present = known ?? new Set((await read()).erasures.map(nameOf));
    const missing = erasures.filter((one) => !present.has(nameOf(one)));
    if (missing.length === 0) return;
    const bytes = await disk.read(erasuresFile);
    // What a cut left of a line would make the next one unreadable as well.
    const whole = bytes === null ? 0 : bytes.lastIndexOf(0x0a) + 1;
    if (bytes === null) await disk.create(erasuresFile);
    else if (whole < bytes.length) await disk.truncate(erasuresFile, whole);
    const lines = missing.map((one) => `${JSON.stringify(one)}\n`).join('');
    await disk.append(erasuresFile, new TextEncoder().encode(lines));
    await disk.fsync(erasuresFile);
    if (bytes === null) await disk.fsyncDir('.');
    for (const one of missing) present.add(nameOf(one));
  }

  return {
    read,
    append(erasures) {
      const next = last.then(() => append(erasures));
      // A failure is its caller's; the next one tries by itself.
      last = next.catch(() => undefined);
      return next;
    },
  };
}
