// Why: the answer to a device that asks which smaller files make the one that it wants (shared/wire/ways.ts).
// Trusts: rights.ts for who may have the file. Must never: offer what needs a file that the device does not hold, or is
// no smaller than the file.

import { encodeMessage } from '../../shared/wire/messages.ts';
import { type Ways, waysBytesMax } from '../../shared/wire/ways.ts';
import type { RegistryCore } from '../core.ts';
import type { Rights } from './rights.ts';

/** `waysSchema` takes no more; the smallest are what counts. */
const waysMax = 16;

export interface WaysDesk {
  /** The answer, one frame. The device may have the file, which has so many bytes. */
  answer(deviceId: string, sha256: string, bytes: number, held: readonly string[]): Promise<Uint8Array>;
}

export function createWaysDesk(
  core: Pick<RegistryCore, 'encodings' | 'encoding' | 'releases' | 'limits'>,
  rights: Rights,
): WaysDesk {
  const { encodings, encoding, releases, limits } = core;

  async function isMaking(
    deviceId: string,
    sha256: string,
    held: ReadonlySet<string>,
    known: ReadonlySet<string>,
  ): Promise<boolean> {
    for (const releaseId of await rights.releasesOf(deviceId)) {
      if (!(await rights.digestsOf(releaseId)).has(sha256)) continue;
      const release = await releases.find(releaseId);
      const file = release?.manifest.files.find((one) => one.sha256 === sha256);
      if (release === null || file === undefined) continue;
      if (await encoding.demand(release, file, held, known)) return true;
    }
    return false;
  }

  return {
    async answer(deviceId, sha256, bytes, held) {
      const answer: Ways = { schemaVersion: 1, sha256, bytes, ways: [], retryAfterMs: null };
      if (bytes <= limits.encodingTargetBytesMin) return encodeMessage(answer);
      const holds = new Set(held);
      const { ways, known } = await encodings.ways(sha256, holds);
      answer.ways = ways.slice(0, waysMax);
      if (await isMaking(deviceId, sha256, holds, known)) answer.retryAfterMs = limits.encodingAskAgainMs;
      let encoded = encodeMessage(answer);
      while (encoded.length > waysBytesMax && answer.ways.length > 0) {
        answer.ways.pop();
        encoded = encodeMessage(answer);
      }
      return encoded;
    },
  };
}
