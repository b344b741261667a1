// Why: cells of regions that told different things add up to what all of them tell, and to no drift that is none.
// Trusts: shared/stats/drift.ts for distances. Must never: build a cell that no region would publish.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { mergeCells } from '../../shared/stats/merged-cells.ts';
import { checkCell, signCell } from '../../shared/trust/cells.ts';
import type { CellFeature, CellStatement } from '../../shared/wire/cells.ts';
import type { Profile } from '../../shared/wire/profile.ts';

const sha256 = 'a'.repeat(64);
const profile: Pick<Profile, 'features'> = {
  features: [
    {
      ...{ role: 'input', tensor: 'x', index: 0, missing: 0, chunks: [], kind: 'numeric' },
      edges: [0, 1, 2],
      counts: [100, 400, 400, 100],
    },
  ],
};

const feature = (counts: (number | null)[], pooled = 0, missing: number | null = 0): CellFeature => ({
  ...{ role: 'input', tensor: 'x', index: 0, of: 'value', counts, pooled, missing, other: 0 },
});

function cell(
  region: string,
  day: number,
  of: CellFeature,
  more: Partial<CellStatement> = {},
): CellStatement {
  return {
    ...{ schemaVersion: 1, region, day, kind: 'release', subject: 'acme/pump@1.0.0' },
    ...{ devicesMin: 5, dominancePercent: 10, devicesAtLeast: 5, answered: 1_000, failed: 0, errors: {} },
    ...{
      latency: null,
      energy: [],
      features: { profileSha256: sha256, rows: 1_000, seenRows: 1_000, features: [of] },
    },
    ...more,
  };
}

const drift = (...cells: CellStatement[]) => mergeCells(cells, { sha256, profile })?.features?.[0];

test('merged: bins that one region pools are one bin of all, and no change is made by that', () => {
  const whole = drift(
    cell('a', 1, feature([100, 400, 400, 100])),
    cell('b', 1, feature([100, 400, 400, 100])),
  );
  assert.deepEqual([whole?.verdict, whole?.bins, whole?.count], ['ok', 4, 2_000]);
  const mixed = drift(
    cell('a', 1, feature([100, 400, 400, 100])),
    cell('b', 1, feature([null, 400, 400, null], 200)),
  );
  assert.deepEqual([mixed?.verdict, mixed?.psi, mixed?.bins, mixed?.count], ['ok', 0, 2, 2_000]);
  const moved = feature([700, 100, 100, 100]);
  assert.equal(drift(cell('a', 1, moved))?.verdict, 'drift');
  assert.equal(drift(cell('a', 1, feature([null, null, 100, null], 900)))?.verdict, 'drift');
  assert.equal(drift(cell('a', 1, feature([20, 20, 20, 20])))?.verdict, 'too-few');
  assert.equal(drift(cell('a', 1, feature([0, 0, 0, 0], 0, 500)))?.verdict, 'drift');
  assert.equal(drift(cell('a', 1, feature([1, 2])))?.verdict, 'too-few');
});

test('merged: sums, the most devices of each region, energy by weight, and what is not told', () => {
  const of = feature([100, 400, 400, 100]);
  const rapl = (joulesPer1000: number) => [{ method: 'rapl' as const, joulesPer1000 }];
  const merged = mergeCells(
    [
      cell('a', 1, of, {
        devicesAtLeast: 10,
        energy: rapl(10),
        errors: { x: 5 },
        failed: 5,
        latency: [[100, 900]],
      }),
      cell('a', 2, of, { devicesAtLeast: 20, answered: null, failed: null, errors: null, energy: rapl(90) }),
      cell('b', 1, of, {
        answered: 3_000,
        energy: rapl(20),
        errors: { x: 1 },
        failed: 1,
        latency: [[160, 100]],
      }),
    ],
    null,
  );
  assert.deepEqual(merged?.regions, ['a', 'b']);
  assert.deepEqual([merged?.devicesAtLeast, merged?.answered, merged?.answeredUntold], [25, 4_000, 1]);
  assert.deepEqual([merged?.failed, merged?.failedUntold, merged?.errors], [6, 1, { x: 6 }]);
  assert.equal(merged?.energy[0]?.joulesPer1000, 17.5);
  assert.deepEqual([merged?.latencyMs?.p50, merged?.latencyMs?.p99], [1.32, 24.6]);
  assert.deepEqual([merged?.features, merged?.verdict], [null, 'no-counts']);
  assert.equal(mergeCells([], null), null);
});

test('trust: a cell is of the region whose key signed it, also of a key that a later root replaced', () => {
  const [before, now] = [1, 2].map((byte) => signerFromSeed(new Uint8Array(32).fill(byte), 'node'));
  assert.ok(before && now);
  const envelope = signCell(cell('a', 1, feature([1, 2, 3, 4])), before);
  const keysOf = (signer: typeof now) => ({
    keys: [{ keyId: signer.keyId, publicKey: signer.publicKey }],
    threshold: 1,
  });
  assert.ok(checkCell(envelope, 'a', [keysOf(now), keysOf(before)]).ok);
  const codeOf = (region: string, signers: (typeof now)[]): string => {
    const checked = checkCell(envelope, region, signers.map(keysOf));
    return checked.ok ? 'ok' : checked.refusal.code;
  };
  assert.equal(codeOf('a', [now]), 'cells-invalid');
  assert.equal(codeOf('b', [before]), 'cells-invalid');
  assert.equal(codeOf('a', []), 'cells-invalid');
});
