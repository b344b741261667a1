// Why: a holder signs what was understood: what would change, key by key, in words made from the documents
// themselves. Trusts: follow.ts, which parsed both sides. Must never: repeat what a bundle says about itself.

import { sha256Hex } from '../../crypto/digests.ts';
import { tufKeyId } from '../../crypto/ed25519.ts';
import { formatTufDate } from '../tuf/dates.ts';
import type { MetadataHead } from '../tuf/metadata.ts';
import { catalogueRoles, type RoleSpec } from '../tuf/repository.ts';
import type { NextDocuments } from './documents.ts';
import { type Followed, nameKey } from './follow.ts';
import type { RoleName, Standing } from './standing.ts';

type Holders = ReadonlyMap<string, string>;

const lastDay = ({ expiresAtMs }: MetadataHead): string => formatTufDate(expiresAtMs).slice(0, 10);

/** Lines without line feeds: a heading for each document, its changes below it, indented. */
export function changeWords(
  standing: Standing,
  next: NextDocuments,
  followed: Followed,
  holders: Holders,
): string[] {
  const lines: string[] = [
    `region ${standing.region}, in force now:`,
    `  root ${standing.root.version}, SHA-256 ${sha256Hex(standing.root.bytes)}`,
    `  region root ${standing.regionRoot.version}, SHA-256 ${sha256Hex(standing.regionRoot.bytes)}`,
  ];
  const roles = (isIn: (name: RoleName) => boolean): string[] =>
    [...followed.roles].flatMap(([name, role]) =>
      isIn(name) ? roleWords(name, standing.roles.get(name), role, holders) : [],
    );
  const document = (heading: string, metadata: MetadataHead, changes: string[], same = 'keys'): void => {
    lines.push(`${heading} ${metadata.version}, good until ${lastDay(metadata)}:`);
    lines.push(...(changes.length === 0 ? [`  the same ${same}, a new date`] : changes));
  };
  if (next.root !== null) document('root', followed.root, roles(isOneOf(catalogueRoles)));
  if (next.regionRoot !== null)
    document(
      'region root',
      followed.regionRoot,
      roles(isOneOf(['region-root', 'director', 'time', 'ack', 'command'])),
    );
  if (next.targets !== null)
    document(
      'targets',
      followed.targets,
      roles((name) => name.startsWith('publisher:')),
      'publishers',
    );
  for (const [namespace, metadata] of followed.publishers) {
    lines.push(
      `what ${namespace} has published, version ${metadata.version}, good until ${lastDay(metadata)}:`,
    );
    lines.push(`  the same ${metadata.targets.size} release(s), signed again`);
  }
  for (const namespace of next.leftUnsigned) {
    lines.push(
      `namespace ${namespace}: its releases are refused by devices until its publisher signs again (keys rotate --renew-publisher)`,
    );
  }
  return lines;
}

const isOneOf =
  (names: readonly RoleName[]) =>
  (name: RoleName): boolean =>
    names.includes(name);

function roleWords(
  name: RoleName,
  before: RoleSpec | undefined,
  after: RoleSpec,
  holders: Holders,
): string[] {
  const idsBefore = (before?.keys ?? []).map(tufKeyId);
  const idsAfter = after.keys.map(tufKeyId);
  const leaving = idsBefore.filter((keyId) => !idsAfter.includes(keyId));
  const joining = idsAfter.filter((keyId) => !idsBefore.includes(keyId));
  const size = `${after.threshold} of ${after.keys.length}`;
  const sizeBefore = before === undefined ? null : `${before.threshold} of ${before.keys.length}`;
  if (leaving.length === 0 && joining.length === 0 && size === sizeBefore) return [];
  return [
    `  ${name}: ${size} must sign${sizeBefore === null ? ', new' : sizeBefore === size ? '' : `, ${sizeBefore} before`}`,
    ...leaving.map((keyId) => `    - ${nameKey(keyId, holders)}`),
    ...joining.map((keyId) => `    + ${nameKey(keyId, holders)}`),
  ];
}
