// Why: a release that its publisher took back before this region had it never comes here: whether one that is not here is to
// be waited for. Trusts: the catalogue in force, as the mirror verified it. Must never: speak of a release that it does not name.

import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import { parseTargets } from '../../shared/trust/tuf/metadata.ts';
import { type BarringCode, barredBecause } from '../catalog/barred.ts';
import { namespaceRole } from '../signing/role-files.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';

/** Why nobody may install it; null where the catalogue here does not say that. */
export function barredInCatalogue(
  db: RegistryDb,
  qb: RegistryQueries,
  releaseId: string,
): (Refusal & { code: BarringCode }) | null {
  const release = parseReleaseId(releaseId);
  if (release === null) return null;
  const { namespace, name, version } = release;
  const file = db.first(
    qb
      .selectFrom('metadata_files')
      .innerJoin('metadata_roles', 'metadata_roles.file', 'metadata_files.name')
      .select('metadata_files.bytes')
      .where('metadata_roles.role', '=', namespaceRole(namespace)),
  );
  if (file === undefined) return null;
  const { targets, floors, withdrawn } = unwrap(parseTargets(new Uint8Array(file.bytes)));
  const entry = targets.get(`${namespace}/${name}/${version}`);
  const counter = entry?.counter ?? null;
  if (counter === null) return null;
  return barredBecause({
    release_id: releaseId,
    withdrawn: withdrawn.get(name)?.has(counter) === true ? 1 : 0,
    below_floor: counter < (floors.get(name) ?? 0) ? 1 : 0,
    admitted: 1,
  });
}
