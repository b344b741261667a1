// Why: a torn database must not make a device forget what it may never forget, nor keep it from starting. A plain
// file, not a second database: what breaks one (a bug, a torn journal) must not break the other, and it costs no
// memory. Trusts: its own digest before its content. Must never: be behind the main store; it is written first.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Disk } from '../../shared/kernel/ports.ts';
import { decodeHeld, encodeHeld, type Held } from './held.ts';
import { writeWhole } from './whole-file.ts';

/** In the state folder; holds the device's key, so only its user may read it. */
export const copyFile = 'state-copy.json';

export interface SecondCopy {
  held(): Held;
  /**
   * Durable when it resolves. One change after the other; a function is given what is held when its turn comes. A fault
   * `interrupted` after `close`.
   */
  save(change: Partial<Held> | ((present: Held) => Partial<Held>)): Promise<void>;
  /** Resolves when nothing is being written any more, and nothing will be: the folder may be another process's then. */
  close(): Promise<void>;
}

/** What the file holds; `broken` where it is torn, edited or unreadable. */
export async function readCopy(disk: Disk): Promise<Held | 'missing' | 'broken'> {
  const bytes = await disk.read(copyFile);
  if (bytes === null) return 'missing';
  const text = new TextDecoder().decode(bytes);
  const cut = text.indexOf('\n');
  const body = text.slice(cut + 1);
  if (cut === -1 || text.slice(0, cut) !== sha256Hex(new TextEncoder().encode(body))) return 'broken';
  return decodeHeld(body) ?? 'broken';
}

export function createSecondCopy(disk: Disk, held: Held): SecondCopy {
  let present = held;
  let last: Promise<unknown> = Promise.resolve();
  let closed = false;
  return {
    held: () => present,
    save: (change) => {
      const turn = last.then(async () => {
        if (closed) throw new FleetError('interrupted', 'the state of this device is closed');
        const next = { ...present, ...(typeof change === 'function' ? change(present) : change) };
        const body = encodeHeld(next);
        const text = `${sha256Hex(new TextEncoder().encode(body))}\n${body}`;
        await writeWhole(disk, copyFile, new TextEncoder().encode(text));
        present = next;
      });
      last = turn.catch(() => undefined);
      return turn;
    },
    close: async () => {
      closed = true;
      await last;
    },
  };
}
