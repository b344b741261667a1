// Why: smaller files from which simulated machines make those of a release, good and bad in every way a device must
// bear. Their content means nothing: what one makes is known here. Trusts: the seed.
// Must never: make a release's outcome depend on them: a way that fails costs bytes and nothing else.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { DeltaEncoder, Disk, Rebuilder } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { draw, drawBytes, drawInt } from '../chance.ts';
import type { Incarnation, World } from '../world.ts';

type Turn = 'good' | 'refused' | 'other-bytes' | 'nothing' | 'gone';

export interface Patch {
  sha256: string;
  bytes: Uint8Array;
  bases: readonly string[];
  /** `gone`: whoever made it does not have it any more. */
  turn: Turn;
}

export interface Patches {
  /** The same patch of the same files at each call. */
  make(target: { sha256: string; content: Uint8Array }, bases: readonly string[]): Patch;
  find(sha256: string): Patch | undefined;
  rebuilder(disk: Disk): Rebuilder;
  /** Reads and writes as its process would, beside its caller; sometimes it fails as one does. */
  encoder(world: World, of: Incarnation, disk: Disk): DeltaEncoder;
}

/** Written in pieces, so that there is a place to crash between two. */
const pieceBytes = 700;
const turns: readonly Turn[] = ['refused', 'other-bytes', 'nothing', 'gone'];

export function createPatches(seed: number): Patches {
  const made = new Map<string, Patch & { target: string; content: Uint8Array }>();

  function make(target: { sha256: string; content: Uint8Array }, bases: readonly string[]): Patch {
    const key = [target.sha256, ...bases].join();
    const bytesMax = Math.max(20, Math.floor(target.content.length * 0.7));
    const bytes = drawBytes(drawInt(20, bytesMax, seed, 'encoded-size', key), seed, 'encoded', key);
    const turn = turns[Math.floor(draw(seed, 'encoded-turn', key) * 20)] ?? 'good';
    const sha256 = sha256Hex(bytes);
    const patch = { sha256, bytes, bases, turn, target: target.sha256, content: target.content };
    made.set(sha256, patch);
    return patch;
  }

  return {
    make,
    find: (sha256) => made.get(sha256),

    rebuilder: (disk) => ({
      rebuild: async ({ encodedPath, basePaths, targetPath }) => {
        const encoded = await disk.read(encodedPath);
        if (encoded === null) throw new FleetError('disk-io', `no such file: ${encodedPath}`);
        const patch = made.get(sha256Hex(encoded));
        if (patch === undefined) return refuse('delta-malformed', 'simulated: no such patch');
        for (const [at, sha256] of patch.bases.entries()) {
          const base = await disk.read(basePaths[at] ?? '');
          if (base === null || sha256Hex(base) !== sha256) return refuse('delta-base-mismatch', 'simulated');
        }
        if (patch.turn === 'refused') return refuse('delta-malformed', 'simulated: as the seed has it');
        const bytes = patch.content.slice();
        if (patch.turn === 'other-bytes') bytes[0] = (bytes[0] ?? 0) ^ 1;
        await disk.create(targetPath);
        for (let at = 0; at < bytes.length && patch.turn !== 'nothing'; at += pieceBytes)
          await disk.append(targetPath, bytes.subarray(at, at + pieceBytes));
        return ok();
      },
    }),

    encoder: (world, of, disk) => {
      const clock = world.clock(of);
      let stopped = false;
      return {
        encode: async ({ bases, target, bytesMax }) => {
          const key = [target.sha256, ...bases.map(({ sha256 }) => sha256), of.number].join();
          await clock.timer(drawInt(20, 40_000, seed, 'encoding-ms', key)).done;
          if (stopped) return refuse('interrupted', 'simulated');
          if (draw(seed, 'encoding-fails', key) < 0.1) return refuse('delta-encode-failed', 'simulated');
          for (const { path, sha256 } of [...bases, target]) {
            const bytes = await disk.read(path);
            if (bytes === null || sha256Hex(bytes) !== sha256)
              return refuse('delta-base-mismatch', 'simulated: not the file it should be');
          }
          const content = (await disk.read(target.path)) ?? new Uint8Array(0);
          const patch = make(
            { sha256: target.sha256, content },
            bases.map(({ sha256 }) => sha256),
          );
          return ok(patch.bytes.length > bytesMax ? null : patch.bytes);
        },
        stop: () => {
          stopped = true;
        },
      };
    },
  };
}
