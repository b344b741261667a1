// Why: smaller files from which simulated devices make those of a release, good and bad in every way a device must
// bear. Their content means nothing: what one makes is known here. Trusts: the seed and the true catalogue.
// Must never: make a release's outcome depend on them: a way that fails costs bytes and nothing else.

import { sha256Hex } from '../shared/crypto/digests.ts';
import { FleetError } from '../shared/kernel/errors.ts';
import type { Disk, Rebuilder } from '../shared/kernel/ports.ts';
import { ok, refuse } from '../shared/kernel/result.ts';
import type { Ways } from '../shared/wire/ways.ts';
import type { Catalogue } from './catalogue.ts';
import { draw, drawBytes, drawInt } from './chance.ts';

type Turn = 'good' | 'refused' | 'other-bytes' | 'nothing' | 'gone';

interface Encoding {
  bytes: Uint8Array;
  target: string;
  bases: string[];
  turn: Turn;
}

export interface SimEncodings {
  /** The answer to a device that holds these; null where the registry has no such file. */
  ways(sha256: string, held: readonly string[]): Ways | null;
  /** An encoded file; undefined where it is none, or was removed. */
  served(sha256: string): Uint8Array | undefined;
  rebuilder(disk: Disk): Rebuilder;
}

/** Written in pieces, so that there is a place to crash between two. */
const pieceBytes = 700;

export function createSimEncodings(seed: number, catalogue: Catalogue): SimEncodings {
  const encodings = new Map<string, Encoding>();
  const questions = new Map<string, number>();

  function encode(target: string, bases: string[], size: number): Encoding {
    const key = [target, ...bases].join();
    const bytes = drawBytes(
      drawInt(20, Math.floor(size * 0.7), seed, 'encoded-size', key),
      seed,
      'encoded',
      key,
    );
    const chance = draw(seed, 'encoded-turn', key);
    const turns: Turn[] = ['refused', 'other-bytes', 'nothing', 'gone'];
    const turn = turns[Math.floor(chance * 20)] ?? 'good';
    const encoding = { bytes, target, bases, turn };
    encodings.set(sha256Hex(bytes), encoding);
    return encoding;
  }

  return {
    ways: (sha256, held) => {
      const content = catalogue.content(sha256);
      if (content === undefined) return null;
      const { length } = content;
      // Of what the registry itself sends wrong there is no good way.
      const has = length > 100 && !catalogue.spoiled(sha256);
      const base = held.find((one) => draw(seed, 'encoded-of', sha256, one) < 0.7);
      const made = has
        ? [[], ...(base === undefined ? [] : [[base]])].map((bases) => encode(sha256, bases, length))
        : [];
      const ways = made
        .map(({ bytes, bases }) => ({ sha256: sha256Hex(bytes), bytes: bytes.length, bases }))
        .sort((a, b) => a.bytes - b.bytes);
      const asked = (questions.get(sha256) ?? 0) + 1;
      questions.set(sha256, asked);
      const making = draw(seed, 'encoding', sha256, asked) < 0.3;
      return { schemaVersion: 1, sha256, bytes: length, ways, retryAfterMs: making ? 400 : null };
    },

    served: (sha256) => {
      const encoding = encodings.get(sha256);
      return encoding?.turn === 'gone' ? undefined : encoding?.bytes;
    },

    rebuilder: (disk) => ({
      rebuild: async ({ encodedPath, basePaths, targetPath }) => {
        const encoded = await disk.read(encodedPath);
        if (encoded === null) throw new FleetError('disk-io', `no such file: ${encodedPath}`);
        const encoding = encodings.get(sha256Hex(encoded));
        if (encoding === undefined) return refuse('delta-malformed', 'simulated: no such patch');
        const { bases, target, turn } = encoding;
        for (const [at, sha256] of bases.entries()) {
          const base = await disk.read(basePaths[at] ?? '');
          if (base === null || sha256Hex(base) !== sha256) return refuse('delta-base-mismatch', 'simulated');
        }
        if (turn === 'refused') return refuse('delta-malformed', 'simulated: as the seed has it');
        const bytes = (catalogue.content(target) ?? new Uint8Array(0)).slice();
        if (turn === 'other-bytes') bytes[0] = (bytes[0] ?? 0) ^ 1;
        await disk.create(targetPath);
        for (let at = 0; at < bytes.length && turn !== 'nothing'; at += pieceBytes)
          await disk.append(targetPath, bytes.subarray(at, at + pieceBytes));
        return ok();
      },
    }),
  };
}
