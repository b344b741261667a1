// Why: puts a signed bundle of new keys in force: all of its documents, and everything that follows, or nothing.
// Trusts: the documents in the store; of the bundle only what the keys in force have signed.
// Must never: install a root whose online keys this registry does not hold: it could sign nothing more.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, tufKeyId } from '../../shared/crypto/ed25519.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  bundleDocuments,
  bundleHolders,
  bundleNext,
  heldByRegistry,
} from '../../shared/trust/ceremony/bundle.ts';
import type { NextDocuments } from '../../shared/trust/ceremony/documents.ts';
import {
  checkComplete,
  type DocumentName,
  type Followed,
  followDocuments,
  missingIn,
  missingWords,
  signDocuments,
} from '../../shared/trust/ceremony/follow.ts';
import { readStanding, type Standing } from '../../shared/trust/ceremony/standing.ts';
import { parseRoot, parseTargets } from '../../shared/trust/tuf/metadata.ts';
import { type KeyBundle, onlineRoles } from '../../shared/wire/key-plan.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import type { Keyring } from './keys.ts';
import { namespaceRole, type RoleFiles } from './role-files.ts';

export interface Installed {
  status: 'installed' | 'in-force-already';
  documents: string[];
  signedHere: string[];
  directorChanged: boolean;
}

interface InstallParts {
  db: RegistryDb;
  qb: RegistryQueries;
  files: RoleFiles;
  keyring: Keyring;
  nowMs: number;
}

/** The documents in force, verified. Fault `state-corrupt`. */
export function standingIn({ db, qb, files }: Pick<InstallParts, 'db' | 'qb' | 'files'>): Standing {
  const publishers = new Map<string, Uint8Array>();
  const versionFloors = new Map<string, number>();
  const named = qb.selectFrom('publishers').select(['namespace', 'version_floor']).orderBy('namespace');
  for (const { namespace, version_floor: versionFloor } of db.all(named)) {
    versionFloors.set(namespace, versionFloor);
    const current = files.current(db, namespaceRole(namespace));
    if (current !== null) publishers.set(namespace, new Uint8Array(current.bytes));
  }
  const rows = db.all(qb.selectFrom('key_holders').selectAll());
  const standing = readStanding({
    root: new Uint8Array(files.expect(db, 'root').bytes),
    regionRoot: new Uint8Array(files.expect(db, 'region/root').bytes),
    targets: new Uint8Array(files.expect(db, 'targets').bytes),
    publishers,
    versionFloors,
  });
  if (standing.ok) {
    const holders = new Map(rows.map((row) => [row.key_id, row.holder]));
    for (const [keyId, holder] of standing.value.holders) holders.set(keyId, holder);
    return { ...standing.value, holders };
  }
  throw new FleetError('state-corrupt', `the documents in force: ${standing.refusal.detail}`);
}

/**
 * Installs a bundle inside a transaction. Refusals: `conflict` (made for documents that are not in force),
 * `signatures-missing`, `keys-not-held`, and those of `followDocuments` and `checkComplete`.
 */
export function installIn(parts: InstallParts, bundle: KeyBundle): Result<Installed> {
  const standing = standingIn(parts);
  if (bundle.region !== standing.region)
    return refuse(
      'assignment-other-region',
      `the bundle is of region ${bundle.region}, this is ${standing.region}`,
    );
  const offered = bundleNext(bundle);
  if (isInForce(standing, offered))
    return ok({ status: 'in-force-already', documents: [], signedHere: [], directorChanged: false });
  const sameGround = checkGround(standing, bundle, offered);
  if (!sameGround.ok) return sameGround;

  const before = followDocuments(standing, offered);
  if (!before.ok) return before;
  const { next, signedHere } = signWithHeld(parts.keyring, offered, before.value);
  const followed = followDocuments(standing, next);
  if (!followed.ok) return followed;
  const missing = missingWords(followed.value.requirements, bundleHolders(bundle, standing));
  if (missing.length > 0) return refuse('signatures-missing', missing.join('; '));
  const complete = checkComplete(standing, next, followed.value, parts.nowMs);
  if (!complete.ok) return complete;
  for (const role of onlineRoles) {
    if (followed.value.roles.get(role)?.keys.some((key) => parts.keyring.held(key) !== null) !== true)
      return refuse('keys-not-held', `this registry does not hold the ${role} key that the bundle names`);
  }
  const documents = write(parts, next, followed.value);
  noteHolders(parts, bundle, followed.value);
  const director = (standing_: Pick<Standing, 'roles'>): string =>
    (standing_.roles.get('director')?.keys ?? []).map((key) => Buffer.from(key).toString('hex')).join(' ');
  return ok({
    status: 'installed',
    documents,
    signedHere,
    directorChanged: director(standing) !== director(followed.value),
  });
}

/** A client that lost the answer sends the bundle again; signatures do not matter for what is in force. */
function isInForce(standing: Standing, next: NextDocuments): boolean {
  const pairs: [
    Uint8Array | null,
    Uint8Array | undefined,
    (bytes: Uint8Array) => Result<{ signedBytes: Uint8Array }>,
  ][] = [
    [next.root, standing.root.bytes, (bytes) => parseRoot(bytes, [])],
    [next.regionRoot, standing.regionRoot.bytes, (bytes) => parseRoot(bytes, [])],
    [next.targets, standing.targets.bytes, parseTargets],
    ...[...next.publishers].map(
      ([namespace, bytes]): [Uint8Array, Uint8Array | undefined, typeof parseTargets] => [
        bytes,
        standing.publishers.get(namespace),
        parseTargets,
      ],
    ),
  ];
  const offered = pairs.filter(([bytes]) => bytes !== null);
  return (
    offered.length > 0 &&
    offered.every(([bytes, current, parse]) => {
      if (bytes === null || current === undefined) return false;
      const [a, b] = [parse(bytes), parse(current)];
      return a.ok && b.ok && sha256Hex(a.value.signedBytes) === sha256Hex(b.value.signedBytes);
    })
  );
}

/** Holders signed what changes against documents that they saw: those must be the ones in force. */
function checkGround(standing: Standing, bundle: KeyBundle, next: NextDocuments): Result<void> {
  const seen = bundleDocuments(bundle);
  const pairs: [string, Uint8Array | undefined, Uint8Array | undefined][] = [
    ['root', seen.root, standing.root.bytes],
    ['region root', seen.regionRoot, standing.regionRoot.bytes],
    ...(next.targets === null ? [] : [['targets', seen.targets, standing.targets.bytes] as const]).map(
      ([name, a, b]): [string, Uint8Array, Uint8Array] => [name, a, b],
    ),
    ...[...next.publishers.keys()].map(
      (namespace): [string, Uint8Array | undefined, Uint8Array | undefined] => [
        `metadata of ${namespace}`,
        seen.publishers.get(namespace),
        standing.publishers.get(namespace),
      ],
    ),
  ];
  for (const [name, theirs, ours] of pairs) {
    if (theirs === undefined || ours === undefined || Buffer.compare(theirs, ours) !== 0)
      return refuse(
        'conflict',
        `the bundle was made for another ${name} than the one in force; make a new plan`,
      );
  }
  return ok();
}

/** In development the registry holds keys that the next documents need; it adds no more than are missing. */
function signWithHeld(
  keyring: Keyring,
  next: NextDocuments,
  followed: Followed,
): { next: NextDocuments; signedHere: string[] } {
  const wanted = new Map<DocumentName, Map<string, Signer>>();
  for (const requirement of followed.requirements) {
    const missing = missingIn(requirement);
    const signers = requirement.role.keys
      .flatMap((key) => keyring.held(key.publicKey) ?? [])
      .filter((signer) => missing.keyIds.includes(signer.keyId))
      .slice(0, missing.needed);
    const known = wanted.get(requirement.document) ?? new Map<string, Signer>();
    for (const signer of signers) known.set(signer.keyId, signer);
    wanted.set(requirement.document, known);
  }
  let signed = next;
  const signedHere: string[] = [];
  for (const [document, signers] of wanted) {
    for (const signer of signers.values()) signed = signDocuments(signed, new Set([document]), signer);
    if (signers.size > 0) signedHere.push(document);
  }
  return { next: signed, signedHere };
}

/** Only of keys that are in a role now: a table that grows with what people carry in has no end. */
function noteHolders({ db, qb }: InstallParts, bundle: KeyBundle, followed: Followed): void {
  const inRoles = new Set([...followed.roles.values()].flatMap((role) => role.keys.map(tufKeyId)));
  for (const row of db.all(qb.selectFrom('key_holders').select('key_id'))) {
    if (!inRoles.has(row.key_id)) db.run(qb.deleteFrom('key_holders').where('key_id', '=', row.key_id));
  }
  for (const [keyId, holder] of Object.entries(bundle.holders)) {
    if (!inRoles.has(keyId) || holder === heldByRegistry) continue;
    db.run(
      qb
        .insertInto('key_holders')
        .values({ key_id: keyId, holder })
        .onConflict((conflict) => conflict.column('key_id').doUpdateSet({ holder })),
    );
  }
}

function write({ db, qb, files, nowMs }: InstallParts, next: NextDocuments, followed: Followed): string[] {
  const documents: string[] = [];
  if (next.root !== null) {
    const { version, expiresAtMs } = followed.root;
    const file = `${version}.root.json`;
    files.save(db, { role: 'root', file, version, expiresAtMs, bytes: next.root, nowMs });
    documents.push(`root ${version}`);
  }
  if (next.regionRoot !== null) {
    const { version, expiresAtMs } = followed.regionRoot;
    const file = `region/${version}.root.json`;
    files.save(db, { role: 'region/root', file, version, expiresAtMs, bytes: next.regionRoot, nowMs });
    documents.push(`region-root ${version}`);
  }
  if (next.targets !== null) {
    const { version, expiresAtMs, delegations } = followed.targets;
    const file = `${version}.targets.json`;
    files.save(db, { role: 'targets', file, version, expiresAtMs, bytes: next.targets, nowMs });
    documents.push(`targets ${version}`);
    for (const { name, keys, threshold } of delegations) {
      const hex = keys.map((key) => Buffer.from(key.publicKey).toString('hex')).sort();
      const row = { keys: JSON.stringify(hex), threshold };
      db.run(
        qb
          .insertInto('publishers')
          .values({ namespace: name, ...row, created_at_ms: nowMs })
          .onConflict((conflict) => conflict.column('namespace').doUpdateSet(row)),
      );
    }
  }
  for (const [namespace, { version, expiresAtMs, bytes }] of followed.publishers) {
    const file = `${version}.${namespace}.json`;
    files.save(db, { role: namespaceRole(namespace), file, version, expiresAtMs, bytes, nowMs });
    // Whatever waited for signatures was made for the version that this one replaces.
    db.run(qb.deleteFrom('publisher_steps').where('namespace', '=', namespace));
    documents.push(`publisher:${namespace} ${version}`);
  }
  // In the same commit: from here on they are either named by a root or nobody's.
  db.run(qb.deleteFrom('pending_keys'));
  // By the keys that the new root names; they must be the last word of the transaction.
  files.signSnapshot(db, nowMs);
  files.signTimestamp(db, nowMs);
  return documents;
}
