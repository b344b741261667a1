// Why: a region with its root, its director and a device, for the tests of what the director may say.
// Trusts: shared/trust for making files. Must never: check anything itself.

import assert from 'node:assert/strict';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { makeRegionRoot, parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import type { AssignedRelease } from '../../shared/wire/messages.ts';
import { dayMs, entry, nowMs, role, signerNamed } from './catalogue-fixture.ts';

export const regionKeys = ['region-1', 'region-2', 'region-3'].map(signerNamed);
export const director = signerNamed('director');
export const device = signerNamed('device');
export const deviceId = deviceIdOf(device.publicKey);
export const other = signerNamed('other device');

interface RootParts {
  version?: number;
  region?: string;
  root?: ReturnType<typeof role>;
  director?: ReturnType<typeof role>;
  ack?: ReturnType<typeof role>;
  signers?: typeof regionKeys;
  expiresAtMs?: number;
}

export function regionRoot(parts: RootParts = {}): Uint8Array {
  return makeRegionRoot({
    region: parts.region ?? 'eu',
    version: parts.version ?? 1,
    expiresAtMs: parts.expiresAtMs ?? nowMs + 365 * dayMs,
    roles: {
      root: parts.root ?? role(2, ...regionKeys),
      director: parts.director ?? role(1, director),
      time: role(1, signerNamed('time')),
      ack: parts.ack ?? role(1, signerNamed('ack')),
      command: role(1, signerNamed('command')),
    },
    signers: parts.signers ?? regionKeys.slice(0, 2),
  });
}

export function trusted(parts: RootParts = {}): RegionRoot {
  const root = parseRegionRoot(regionRoot(parts));
  assert.ok(root.ok);
  return root.value;
}

const policy = { deadlinesMs: { fetching: 1, probing: 1, soaking: 1 }, soakMs: 0 };
export const detector: AssignedRelease = {
  as: 'detector',
  releaseId: 'acme/detector@1.0.0',
  manifestSha256: entry(1).sha256,
  manifestBytes: 100,
  counter: 1,
  requires: { opset: 17 },
  rolloutId: 'r1',
  policy,
};
