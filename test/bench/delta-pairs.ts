// Why: every pair of one family of real models in both directions, a hundred across families, and edits and cuts of
// them, rebuilt to the bit. Takes minutes, so it is no part of `npm test`. Usage: npm run delta:pairs -- [seed].
// Trusts: the data folder. Must never: end well when one pair failed.

import { systemZstd } from '../../shared/host/zstd.ts';
import { applyDelta, streamDelta } from '../../shared/onnx/delta/apply.ts';
import { encodeDelta } from '../../shared/onnx/delta/encode.ts';
import { chance, edited } from '../support/chance.ts';
import { dataMissing } from '../support/data.ts';
import { families, familyPairs, pairOf, readModelFile } from '../support/delta-families.ts';

const acrossPairs = 100;
const editedPairs = 200;
/** Edits of the largest models are left out; their pairs are not. */
const editedBytesMax = 4_000_000;
const seed = Number(process.argv[2] ?? 1);
const next = chance(seed);
const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)] as T;
const counts = { pairs: 0, wrongBases: 0, failed: 0, patchBytes: 0 };

function check(name: string, base: Uint8Array, target: Uint8Array): void {
  counts.pairs += 1;
  const wrong = Buffer.from(base);
  const at = Math.floor(next() * wrong.length);
  if (wrong.length > 0) wrong[at] = (wrong[at] as number) ^ 1;
  const patch = encodeDelta({
    base: [{ path: 'model.onnx', bytes: base }],
    target: { path: 'model.onnx', bytes: target },
    zstd: systemZstd,
  });
  counts.patchBytes += patch.length;
  const rebuilt = applyDelta({ patch, bases: [base], zstd: systemZstd });
  if (!rebuilt.ok || Buffer.compare(rebuilt.value, target) !== 0) {
    counts.failed += 1;
    process.stderr.write(`not rebuilt: ${name}, seed ${seed}\n`);
  }
  let written = 0;
  const sink = (chunk: Uint8Array): void => {
    written += chunk.length;
  };
  const refused = streamDelta({ patch, bases: [wrong], zstd: systemZstd, sink });
  if (base.length > 0 && !refused.ok && refused.refusal.code === 'delta-base-mismatch' && written === 0)
    counts.wrongBases += 1;
  else if (base.length > 0) {
    counts.failed += 1;
    process.stderr.write(`a wrong base was taken: ${name}, seed ${seed}\n`);
  }
}

if (dataMissing !== false) {
  process.stderr.write(`lepton: not-found: ${dataMissing}\n`);
  process.exit(1);
}
const all = [...families().values()];
for (const paths of all)
  for (const { name, base, target } of familyPairs(paths))
    check(name, readModelFile(base), readModelFile(target));
for (let left = acrossPairs; left > 0; left--) {
  const one = pick(all);
  const { name, base, target } = pairOf(pick(one), pick(pick(all.filter((family) => family !== one))));
  check(name, readModelFile(base), readModelFile(target));
}
const editable = all.flat().filter((path) => readModelFile(path).length <= editedBytesMax);
for (let left = editedPairs; left > 0; left--) {
  const path = pick(editable);
  const bytes = readModelFile(path);
  check(`${path}, edited`, bytes, edited(bytes, next));
}
process.stdout.write(`${JSON.stringify({ seed, ...counts })}\n`);
process.exit(counts.failed === 0 ? 0 : 1);
