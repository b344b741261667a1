// Why: what a simulated line offers of smaller ways to the files of its catalogue.
// Trusts: machine/patches.ts and the true catalogue. Must never: offer a good way to what the registry itself sends wrong.

import type { Ways } from '../shared/wire/ways.ts';
import type { Catalogue } from './catalogue.ts';
import { draw } from './chance.ts';
import { createPatches, type Patches } from './machine/patches.ts';

export interface SimEncodings {
  /** The answer to a device that holds these; null where the registry has no such file. */
  ways(sha256: string, held: readonly string[]): Ways | null;
  /** An encoded file; undefined where it is none, or was removed. */
  served(sha256: string): Uint8Array | undefined;
  rebuilder: Patches['rebuilder'];
}

export function createSimEncodings(seed: number, catalogue: Catalogue): SimEncodings {
  const patches = createPatches(seed);
  const questions = new Map<string, number>();
  return {
    ways: (sha256, held) => {
      const content = catalogue.content(sha256);
      if (content === undefined) return null;
      const has = content.length > 100 && !catalogue.spoiled(sha256);
      const base = held.find((one) => draw(seed, 'encoded-of', sha256, one) < 0.7);
      const made = has
        ? [[], ...(base === undefined ? [] : [[base]])].map((bases) =>
            patches.make({ sha256, content }, bases),
          )
        : [];
      const ways = made
        .map((patch) => ({ sha256: patch.sha256, bytes: patch.bytes.length, bases: [...patch.bases] }))
        .sort((a, b) => a.bytes - b.bytes);
      const asked = (questions.get(sha256) ?? 0) + 1;
      questions.set(sha256, asked);
      const making = draw(seed, 'encoding', sha256, asked) < 0.3;
      return { schemaVersion: 1, sha256, bytes: content.length, ways, retryAfterMs: making ? 400 : null };
    },
    served: (sha256) => {
      const patch = patches.find(sha256);
      return patch === undefined || patch.turn === 'gone' ? undefined : patch.bytes;
    },
    rebuilder: patches.rebuilder,
  };
}
