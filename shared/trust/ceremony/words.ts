// Why: a holder signs what was understood: what would change, key by key, in words made from the documents
// themselves. Trusts: follow.ts, which parsed both sides. Must never: repeat what a bundle says about itself.

import { sha256Hex } from '../../crypto/digests.ts';
import { tufKeyId } from '../../crypto/ed25519.ts';
import { formatTufDate } from '../tuf/dates.ts';
import type { MetadataHead } from '../tuf/metadata.ts';
import { parseTargets } from '../tuf/metadata.ts';
import type { RoleSpec } from '../tuf/repository.ts';
import type { NextDocuments } from './documents.ts';
import { type Followed, nameKey } from './follow.ts';
import { publisherRole, type RoleName, type Standing } from './standing.ts';

type Holders = ReadonlyMap<string, string>;

const until = (metadata: MetadataHead): string =>
  `good until ${formatTufDate(metadata.expiresAtMs).slice(0, 10)}`;

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
  const roles = (...names: RoleName[]): string[] =>
    names.flatMap((name) => roleWords(name, standing.roles.get(name), followed.roles.get(name), holders));
  const document = (heading: string, metadata: MetadataHead, changes: string[], same = 'keys'): void => {
    lines.push(`${heading} ${metadata.version}, ${until(metadata)}:`);
    lines.push(...(changes.length === 0 ? [`  the same ${same}, a new date`] : changes));
  };
  if (next.root !== null) document('root', followed.root, roles('root', 'targets', 'snapshot', 'timestamp'));
  if (next.regionRoot !== null) {
    document('region root', followed.regionRoot, roles('region-root', 'director', 'time', 'ack', 'command'));
  }
  if (next.targets !== null) {
    const names = followed.targets.delegations.map(({ name }) => publisherRole(name));
    document('targets', followed.targets, roles(...names), 'publishers');
  }
  for (const [namespace, bytes] of next.publishers) {
    const parsed = parseTargets(bytes);
    if (!parsed.ok) continue; // follow.ts refused it
    lines.push(`what ${namespace} has published, version ${parsed.value.version}, ${until(parsed.value)}:`);
    lines.push(`  the same ${parsed.value.targets.size} release(s), signed again`);
  }
  for (const namespace of next.leftUnsigned) {
    lines.push(
      `namespace ${namespace}: its releases are refused by devices until its publisher signs again (keys rotate --renew-publisher)`,
    );
  }
  return lines;
}

function roleWords(
  name: RoleName,
  before: RoleSpec | undefined,
  after: RoleSpec | undefined,
  holders: Holders,
): string[] {
  if (after === undefined) return [];
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
