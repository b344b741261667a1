// Why: how a device comes from the region root that it holds to the one in force: one after the other, each signed by the one
// before, from whoever has the files.
// Trusts: the root that it begins with. Must never: pass one over, or take another region's.

import { limits } from '../../shared/kernel/limits.ts';
import { ok, type Result } from '../../shared/kernel/result.ts';
import { type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';

/**
 * `took`: each successor, to be made durable before the next is asked for. `folder`: where who is asked has them, `region` where
 * they are its own. True where there was one. Refusals: `metadata-*` but `metadata-missing`, which is the end of the way,
 * `assignment-other-region`, the Fetcher's.
 */
export async function walkRegionRoots(
  from: RegionRoot,
  fetch: (name: string, bytesMax: number) => Promise<Result<Uint8Array>>,
  took: (root: RegionRoot) => Promise<void>,
  folder = 'region',
): Promise<Result<boolean>> {
  let at = from;
  for (let step = 0; step < limits.rootRotationsMax; step += 1) {
    const next = await fetch(`${folder}/${at.version + 1}.root.json`, limits.rootBytesMax);
    if (!next.ok) return next.refusal.code === 'metadata-missing' ? ok(at !== from) : next;
    const updated = updateRegionRoot(at.bytes, next.value);
    if (!updated.ok) return updated;
    await took(updated.value);
    at = updated.value;
  }
  return ok(at !== from);
}
