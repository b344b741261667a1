// Why: a stand-in for the registry at the other end of a bad line.
// Trusts: the catalogue. Must never: turn a good file bad; a fault here is a delay, a gap or a refusal.

import type { Fetcher } from '../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../shared/kernel/result.ts';
import { encodeMessage } from '../shared/wire/messages.ts';
import type { Catalogue } from './catalogue.ts';
import { drawInt } from './chance.ts';
import type { SimEncodings } from './encodings.ts';
import { happens, type Incarnation, latencyMs, type World } from './world.ts';

export interface LineFaults {
  offline: number;
  timeout: number;
  /** Answers that are shorter than asked. */
  short: number;
}

export interface SimFetcherParts {
  world: World;
  of: Incarnation;
  catalogue: Catalogue;
  faults: LineFaults;
  encodings?: SimEncodings;
  onRequest: (sha256: string, bytes: number) => void;
}

type Answer = Result<{ bytes: Uint8Array; totalBytes: number }>;

export function createSimFetcher(parts: SimFetcherParts): Fetcher {
  const { world, of, catalogue, faults, encodings, onRequest } = parts;
  let calls = 0;
  return {
    range: (target, offset, length) => {
      calls += 1;
      const key = [of.number, calls] as const;
      const sha256 = target.kind === 'blob' || target.kind === 'ways' ? target.sha256 : '';
      const detail = `${sha256.slice(0, 8)} ${offset}+${length}`;
      return world.call(of, 'fetch.range', detail, latencyMs(world, 1, 60, 'fetch', ...key), (): Answer => {
        if (happens(world, faults.offline, 'offline', ...key)) return refuse('bus-offline', 'simulated');
        if (happens(world, faults.timeout, 'timeout', ...key)) return refuse('fetch-timeout', 'simulated');
        if (target.kind === 'ways') {
          const ways = encodings?.ways(sha256, target.held) ?? null;
          if (ways === null) return refuse('fetch-not-found', sha256);
          const body = encodeMessage(ways);
          return ok({ bytes: body, totalBytes: body.length });
        }
        const encoded = encodings?.served(sha256);
        const served = encoded === undefined ? catalogue.served(sha256) : ok(encoded);
        if (!served.ok) return served;
        let bytes = served.value.slice(offset, offset + length);
        if (happens(world, faults.short, 'short', ...key)) {
          bytes = bytes.subarray(0, drawInt(0, bytes.length, world.seed, 'short', ...key));
        }
        onRequest(sha256, bytes.length);
        return ok({ bytes, totalBytes: served.value.length });
      });
    },
  };
}
