// Why: the catalogue of another region as this one keeps it: read for a refresh, written whole in one transaction.
// Trusts: a TrustState that refreshCatalogue handed back. Must never: write a file that it did not verify.

import { unwrap } from '../../shared/kernel/errors.ts';
import { formatReleaseId, type ReleaseName } from '../../shared/kernel/releases.ts';
import type { TrustState, VersionFloors } from '../../shared/trust/tuf/client.ts';
import { onlineKeysOf } from '../../shared/trust/tuf/floors.ts';
import {
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  type SnapshotMetadata,
  type TargetsMetadata,
} from '../../shared/trust/tuf/metadata.ts';
import { delegationOf, namespaceFile } from '../../shared/trust/tuf/namespaces.ts';
import { parseRootFile } from '../../shared/trust/tuf/repository.ts';
import { validSigners } from '../../shared/trust/tuf/signatures.ts';
import { type Barring, barIn } from '../catalog/barred.ts';
import { requiresText } from '../catalog/releases.ts';
import { namespaceRole, type RoleFiles } from '../signing/role-files.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';

const numbersText = (numbers: VersionFloors): string =>
  JSON.stringify({ ...numbers, files: [...numbers.files] });

function numbersOf(text: string): VersionFloors {
  const { files, ...rest }: Omit<VersionFloors, 'files'> & { files: [string, number][] } = JSON.parse(text);
  return { ...rest, files: new Map(files) };
}

function storedNumbers(db: RegistryDb, qb: RegistryQueries): VersionFloors | undefined {
  const stored = db.first(qb.selectFrom('mirror_numbers').select('numbers'));
  return stored === undefined ? undefined : numbersOf(stored.numbers);
}

/** What is held; null before the first root. */
export function readMirrorIn(db: RegistryDb, qb: RegistryQueries, files: RoleFiles): TrustState | null {
  const bytes = (role: string): Uint8Array | null => {
    const file = files.current(db, role);
    return file === null ? null : new Uint8Array(file.bytes);
  };
  const root = bytes('root');
  if (root === null) return null;
  const delegated: Record<string, Uint8Array> = {};
  const roles = db.all(qb.selectFrom('metadata_roles').select('role').where('role', 'like', 'ns/%'));
  for (const { role } of roles) {
    const held = bytes(role);
    if (held !== null) delegated[role.slice('ns/'.length)] = held;
  }
  const numbers = storedNumbers(db, qb);
  // Kept under an earlier home's keys they would say that these files are forgotten, which this region may have signed
  // itself since: what binds then is the files.
  const binds = numbers?.onlineKeys === onlineKeysOf(unwrap(parseRootFile(root)));
  return {
    root,
    timestamp: bytes('timestamp'),
    snapshot: bytes('snapshot'),
    targets: bytes('targets'),
    delegated,
    ...(numbers === undefined || !binds ? {} : { numbers }),
  };
}

/** `NS/NAME/VERSION` as a name; null for a path of another shape. */
function releaseOfPath(path: string): ReleaseName | null {
  const [namespace, name, version, ...more] = path.split('/');
  if (namespace === undefined || name === undefined || version === undefined || more.length > 0) return null;
  return { namespace, name, version };
}

/** Writes what a namespace says of its releases: what is to be fetched, and what nobody installs any more. */
function writeNamespace(
  db: RegistryDb,
  qb: RegistryQueries,
  namespace: string,
  metadata: TargetsMetadata,
  signedBy: readonly string[],
): Barring[] {
  const held = new Map(
    db
      .all(
        qb
          .selectFrom('releases')
          .select(['release_id', 'name', 'counter', 'manifest_sha256', 'admitted', 'withdrawn'])
          .where('namespace', '=', namespace),
      )
      .map((row) => [row.release_id, row]),
  );
  const named = new Set<string>();
  for (const [path, entry] of metadata.targets) {
    const release = releaseOfPath(path);
    if (release === null || release.namespace !== namespace || entry.counter === null) continue;
    const releaseId = formatReleaseId(release);
    const have = held.get(releaseId);
    if (have?.manifest_sha256 === entry.sha256) {
      named.add(releaseId);
      if (have.admitted === 1) continue;
    }
    const barred =
      entry.counter < (metadata.floors.get(release.name) ?? 0) ||
      metadata.withdrawn.get(release.name)?.has(entry.counter) === true;
    // Nobody could install it: its bytes are not worth the line.
    if (barred) continue;
    const row = {
      namespace,
      manifest_sha256: entry.sha256,
      manifest_bytes: entry.bytes,
      counter: entry.counter,
      requires: requiresText(entry.requires),
      signed_by: JSON.stringify(signedBy),
    };
    const wanted = { ...row, state: 'wanted' as const, code: null, detail: null, retry_at_ms: 0 };
    db.run(
      qb
        .insertInto('mirror_releases')
        .values({ release_id: releaseId, ...wanted })
        .onConflict((conflict) =>
          conflict
            .column('release_id')
            .doUpdateSet(wanted)
            .where('mirror_releases.manifest_sha256', '!=', entry.sha256),
        ),
    );
  }
  // What this region took under an earlier home, and the present one never saw.
  for (const [releaseId, row] of held) {
    if (named.has(releaseId) || row.admitted === 0) continue;
    db.run(
      qb
        .updateTable('releases')
        .set({ admitted: 0, reason: 'the catalogue in force does not name it' })
        .where('release_id', '=', releaseId),
    );
  }
  for (const row of db.all(
    qb.selectFrom('mirror_releases').select(['release_id', 'counter']).where('namespace', '=', namespace),
  )) {
    const [, name = '', version = ''] = /^[^/]+\/([^@]+)@(.+)$/.exec(row.release_id) ?? [];
    const entry = metadata.targets.get(`${namespace}/${name}/${version}`);
    const barred =
      row.counter < (metadata.floors.get(name) ?? 0) ||
      metadata.withdrawn.get(name)?.has(row.counter) === true;
    if (entry === undefined || barred)
      db.run(qb.deleteFrom('mirror_releases').where('release_id', '=', row.release_id));
  }
  return barNow(db, qb, namespace, metadata, [...held.values()]);
}

/** Floors that rose and releases that were taken back since the last time. */
function barNow(
  db: RegistryDb,
  qb: RegistryQueries,
  namespace: string,
  metadata: TargetsMetadata,
  held: readonly { release_id: string; name: string; counter: number; withdrawn: number }[],
): Barring[] {
  const floors = new Map(
    db
      .all(qb.selectFrom('model_floors').select(['name', 'floor']).where('namespace', '=', namespace))
      .map((row) => [row.name, row.floor]),
  );
  const raised = [...metadata.floors].flatMap(([model, to]) => {
    const from = floors.get(model) ?? 0;
    return to > from ? [{ model, from, to }] : [];
  });
  const withdrawn = held.flatMap((row) => {
    const isNew = row.withdrawn === 0 && metadata.withdrawn.get(row.name)?.has(row.counter) === true;
    const version = row.release_id.slice(row.release_id.indexOf('@') + 1);
    return isNew ? [{ release: { namespace, name: row.name, version }, counter: row.counter }] : [];
  });
  return barIn(db, qb, namespace, { raised, withdrawn });
}

/** Namespaces that only an earlier home knew: nothing of theirs is in the catalogue in force. */
function dropUnlisted(db: RegistryDb, qb: RegistryQueries, snapshot: SnapshotMetadata): void {
  for (const { role } of db.all(
    qb.selectFrom('metadata_roles').select('role').where('role', 'like', 'ns/%'),
  )) {
    const namespace = role.slice('ns/'.length);
    if (snapshot.files.has(namespaceFile(namespace))) continue;
    db.run(qb.deleteFrom('metadata_roles').where('role', '=', role));
    db.run(qb.deleteFrom('mirror_releases').where('namespace', '=', namespace));
    db.run(
      qb
        .updateTable('releases')
        .set({ admitted: 0, reason: 'the catalogue in force does not name it' })
        .where('namespace', '=', namespace),
    );
  }
}

/**
 * Stores a refreshed state with the roots on the way to its own, and what follows from it. Everything or nothing. The
 * barrings are for the listeners.
 */
export function writeMirrorIn(
  db: RegistryDb,
  qb: RegistryQueries,
  files: RoleFiles,
  next: TrustState & { roots: readonly Uint8Array[] },
  nowMs: number,
): Barring[] {
  for (const bytes of next.roots) {
    const { version, expiresAtMs } = unwrap(parseRootFile(bytes));
    files.save(db, { role: 'root', file: `${version}.root.json`, version, expiresAtMs, bytes, nowMs });
  }
  const { timestamp, snapshot, targets } = next;
  if (timestamp === null || snapshot === null || targets === null) return [];
  const top = unwrap(parseTargets(targets));
  const save = (
    role: string,
    name: string | null,
    head: { version: number; expiresAtMs: number },
    bytes: Uint8Array,
  ): boolean => {
    const before = files.current(db, role);
    if (before !== null && Buffer.compare(before.bytes, bytes) === 0) return false;
    const { version, expiresAtMs } = head;
    const file = name === null ? 'timestamp.json' : `${version}.${name}.json`;
    files.save(db, { role, file, version, expiresAtMs, bytes, nowMs });
    return true;
  };
  save('targets', 'targets', top, targets);
  save('snapshot', 'snapshot', unwrap(parseSnapshot(snapshot)), snapshot);
  save('timestamp', null, unwrap(parseTimestamp(timestamp)), timestamp);
  for (const { name: namespace, keys, threshold } of top.delegations) {
    const hex = keys.map((key) => Buffer.from(key.publicKey).toString('hex')).sort();
    const row = { keys: JSON.stringify(hex), threshold };
    db.run(
      qb
        .insertInto('publishers')
        .values({ namespace, ...row, created_at_ms: nowMs })
        .onConflict((conflict) => conflict.column('namespace').doUpdateSet(row)),
    );
  }
  dropUnlisted(db, qb, unwrap(parseSnapshot(snapshot)));
  // One that was the home itself may have got the very list from a device, and never the files that it names.
  const isNewHome = storedNumbers(db, qb)?.onlineKeys !== next.numbers?.onlineKeys;
  const barrings: Barring[] = [];
  for (const [namespace, bytes] of Object.entries(next.delegated)) {
    const metadata = unwrap(parseTargets(bytes));
    if (!save(namespaceRole(namespace), namespace, metadata, bytes) && !isNewHome) continue;
    const role = delegationOf(top, namespace);
    const signers = role === null ? new Set<string>() : validSigners(metadata, role);
    const signedBy = (role?.keys ?? [])
      .filter(({ publicKey }) => signers.has(Buffer.from(publicKey).toString('hex')))
      .map(({ keyId }) => keyId)
      .sort();
    barrings.push(...writeNamespace(db, qb, namespace, metadata, signedBy));
  }
  if (next.numbers !== undefined) {
    const numbers = numbersText(next.numbers);
    db.run(
      qb
        .insertInto('mirror_numbers')
        .values({ id: 1, numbers })
        .onConflict((conflict) => conflict.column('id').doUpdateSet({ numbers })),
    );
  }
  return barrings;
}
