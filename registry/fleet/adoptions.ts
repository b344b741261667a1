// Why: what was proven to have existed before a restore becomes what the registry goes on from: the next number
// of each kind is above it, and what nobody has any more is written down as lost.
// Trusts: its caller for the verdict, reached in the same transaction. Must never: name a release as offered whose
// bytes are not here, or run outside the transaction that it is given.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { formatReleaseId, parseReleaseId } from '../../shared/kernel/releases.ts';
import type { TargetsMetadata } from '../../shared/trust/tuf/metadata.ts';
import type { AssignedRelease } from '../../shared/wire/messages.ts';
import { barIn } from '../catalog/barred.ts';
import type { RegistryCore } from '../core.ts';
import { removalOf } from '../rollout/removal.ts';
import { raiseVersionFloorIn } from '../signing/publisher-floors.ts';
import { namespaceRole, type RoleFiles } from '../signing/role-files.ts';
import type { RegistryDb } from '../store/open.ts';
import { toColumn } from './columns.ts';
import type { Director } from './director.ts';
import type { FleetEvents } from './events.ts';
import type { Verdict } from './restore-judgement.ts';

export interface Adoption {
  deviceId: string;
  bytes: Uint8Array;
  verdict: Verdict;
}

export interface Adoptions {
  adoptIn(db: RegistryDb, files: RoleFiles, adoption: Adoption): void;
  /** The version of a role that is proven to have existed and that we have not reached, 0 for none. */
  floorIn(db: RegistryDb, role: string): number;
  /** `whole`: no number is owed. `complete`: to be signed above. `waiting`: a file that existed is not back yet. */
  stateIn(db: RegistryDb): 'whole' | 'complete' | 'waiting';
  /** Signs the next snapshot and timestamp above their floors. */
  signAboveIn(db: RegistryDb, files: RoleFiles): void;
  describe(verdict: Verdict): string;
}

/** Floors and withdrawals of a namespace as one step from nothing. */
function saidAgainst(namespace: string, metadata: TargetsMetadata): Parameters<typeof barIn>[3] {
  const raised = [...metadata.floors].map(([model, to]) => ({ model, from: 0, to }));
  const withdrawn = [...metadata.targets].flatMap(([path, { counter }]) => {
    const [, name = '', version = ''] = path.split('/');
    const isWithdrawn = counter !== null && metadata.withdrawn.get(name)?.has(counter) === true;
    return isWithdrawn ? [{ release: { namespace, name, version }, counter }] : [];
  });
  return { raised, withdrawn };
}

const lostReason = 'lost-in-restore: the catalogue that devices hold names other bytes';

export function createAdoptions(
  core: RegistryCore,
  parts: { events: FleetEvents; director: Director },
): Adoptions {
  const { store, keyring, clock } = core;
  const { qb } = store;
  const { events, director } = parts;

  function raiseFloor(db: RegistryDb, role: string, version: number): void {
    db.run(
      qb
        .insertInto('version_floors')
        .values({ role, version, at_ms: clock.wall() })
        .onConflict((conflict) =>
          conflict
            .column('role')
            .doUpdateSet({ version, at_ms: clock.wall() })
            .where('version_floors.version', '<', version),
        ),
    );
    // The next version of a namespace is its publisher's to make: it is told where to go on.
    if (role.startsWith('ns/')) raiseVersionFloorIn(db, qb, role.slice('ns/'.length), version);
  }

  /** Floors with the version that each role has now. The online roles must be above theirs, the others at it. */
  function owed(db: RegistryDb): { role: string; version: number; current: number; isOnline: boolean }[] {
    return db
      .all(
        qb
          .selectFrom('version_floors')
          .leftJoin('metadata_roles', 'metadata_roles.role', 'version_floors.role')
          .select([
            'version_floors.role as role',
            'version_floors.version as version',
            'metadata_roles.version as current',
          ]),
      )
      .map(({ role, version, current }) => ({
        role,
        version,
        current: current ?? 0,
        isOnline: role === 'timestamp' || role === 'snapshot',
      }))
      .filter(({ version, current, isOnline }) => (isOnline ? current <= version : current < version));
  }

  function event(db: RegistryDb, deviceId: string, code: string, detail: string): void {
    events.recordIn(db, { source: 'registry', subject: deviceId, code, detail });
  }

  function adoptTargets(
    db: RegistryDb,
    files: RoleFiles,
    { bytes, deviceId }: Adoption,
    verdict: Extract<Verdict, { kind: 'targets' }>,
  ): void {
    const nowMs = clock.wall();
    const { version, expiresAtMs, delegations } = verdict;
    const isNewer = version > files.expect(db, 'targets').version;
    const ours = new Set(db.all(qb.selectFrom('publishers').select('namespace')).map((row) => row.namespace));
    const theirs = new Set(delegations.map((role) => role.name));
    // The development key can name everybody again; an offline key's latest word stands as it is.
    const canMerge = keyring.kind === 'development';
    if (isNewer) {
      files.save(db, {
        role: 'targets',
        file: `${version}.targets.json`,
        version,
        expiresAtMs,
        bytes,
        nowMs,
      });
    }
    for (const { name, keys, threshold } of delegations) {
      if (!isNewer && (ours.has(name) || !canMerge)) continue;
      const hex = keys.map((key) => Buffer.from(key.publicKey).toString('hex')).sort();
      const row = { keys: JSON.stringify(hex), threshold };
      db.run(
        qb
          .insertInto('publishers')
          .values({ namespace: name, ...row, created_at_ms: nowMs })
          .onConflict((conflict) => conflict.column('namespace').doUpdateSet(row)),
      );
    }
    const lost = isNewer
      ? [...ours].filter((name) => !theirs.has(name))
      : [...theirs].filter((name) => !ours.has(name));
    if (lost.length === 0) return;
    if (canMerge) {
      files.signTargets(db, nowMs);
      return;
    }
    for (const namespace of lost) {
      db.run(qb.deleteFrom('publishers').where('namespace', '=', namespace));
      event(db, deviceId, 'lost-in-restore', `publisher ${namespace}: add it again, with the targets key`);
    }
  }

  /** What the namespace's releases are now: rows of ours that it names otherwise, and names without bytes here. */
  function adoptNamespace(
    db: RegistryDb,
    files: RoleFiles,
    { deviceId }: Adoption,
    { namespace, metadata }: { namespace: string; metadata: TargetsMetadata },
  ): void {
    const nowMs = clock.wall();
    const { version, expiresAtMs, bytes } = metadata;
    const file = `${version}.${namespace}.json`;
    files.save(db, { role: namespaceRole(namespace), file, version, expiresAtMs, bytes, nowMs });
    // It was made for the version that this one replaces.
    db.run(qb.deleteFrom('publisher_steps').where('namespace', '=', namespace));
    const rows = new Map(
      db
        .all(
          qb
            .selectFrom('releases')
            .select(['release_id', 'counter', 'manifest'])
            .where('namespace', '=', namespace),
        )
        .map((row) => [row.release_id, row]),
    );
    for (const [path, entry] of metadata.targets) {
      const [, name = '', of = ''] = path.split('/');
      const release = parseReleaseId(`${namespace}/${name}@${of}`);
      const releaseId = release === null ? path : formatReleaseId(release);
      const row = rows.get(releaseId);
      if (row === undefined) {
        event(
          db,
          deviceId,
          'lost-in-restore',
          `release ${releaseId}: its files are not here; push a new version`,
        );
      } else if (row.counter === entry.counter && sha256Hex(row.manifest) === entry.sha256) {
        rows.delete(releaseId);
      }
    }
    // What its publisher said against its own releases since the backup holds again at once.
    barIn(db, qb, namespace, saidAgainst(namespace, metadata));
    for (const releaseId of rows.keys()) {
      db.run(
        qb
          .updateTable('releases')
          .set({ admitted: 0, reason: lostReason })
          .where('release_id', '=', releaseId),
      );
      event(
        db,
        deviceId,
        'lost-in-restore',
        `release ${releaseId}: no device takes it any more; push a new version`,
      );
    }
  }

  /**
   * What the device was last told to run, in our own signed words, holds until a rollout of after the restore says otherwise.
   * Only where a person brought a backup back and said so: without that mark nobody knows which decisions came later.
   */
  function adoptReleases(db: RegistryDb, deviceId: string, releases: readonly AssignedRelease[]): void {
    const restored = core.withholding.view();
    if (restored === null) return;
    const rows = db.all(
      qb
        .selectFrom('desired')
        .leftJoin('rollouts', 'rollouts.rollout_id', 'desired.rollout_id')
        .select(['desired.as_name as name', 'desired.release_id as releaseId'])
        .select('rollouts.created_at_ms as decidedAtMs')
        .where('device_id', '=', deviceId),
    );
    const since = new Set(
      rows.filter(({ decidedAtMs }) => (decidedAtMs ?? 0) > restored.restoredAtMs).map(({ name }) => name),
    );
    for (const release of releases) {
      if (since.has(release.as)) continue;
      const row = {
        ...{ release_id: release.releaseId, manifest_sha256: release.manifestSha256 },
        ...{ manifest_bytes: release.manifestBytes, counter: release.counter, rollout_id: release.rolloutId },
        policy: toColumn(release.policy),
        requires: release.requires === null ? null : JSON.stringify(release.requires),
      };
      db.run(
        qb
          .insertInto('desired')
          .values({ device_id: deviceId, as_name: release.as, ...row })
          .onConflict((conflict) => conflict.columns(['device_id', 'as_name']).doUpdateSet(row)),
      );
    }
    const told = new Set(releases.map((release) => release.as));
    for (const { name, releaseId } of rows) {
      if (told.has(name) || since.has(name)) continue;
      // Taken away since the backup: written down as nothing, as a rollout does it.
      const {
        releaseId: model,
        manifestSha256,
        manifestBytes,
        counter,
      } = removalOf(releaseId.replace(/@.*$/, ''));
      const row = {
        release_id: model,
        manifest_sha256: manifestSha256,
        manifest_bytes: manifestBytes,
        counter,
      };
      db.run(
        qb.updateTable('desired').set(row).where('device_id', '=', deviceId).where('as_name', '=', name),
      );
    }
  }

  function adoptAcknowledgement(
    db: RegistryDb,
    deviceId: string,
    { sequence, headSha256 }: { sequence: number; headSha256: string },
  ): void {
    const device = db.first(
      qb.selectFrom('devices').select('telemetry_epoch').where('device_id', '=', deviceId),
    );
    const key = { device_id: deviceId, epoch: device?.telemetry_epoch ?? 0 };
    const last =
      db.first(
        qb
          .selectFrom('telemetry_chains')
          .select('last_sequence')
          .where('device_id', '=', deviceId)
          .where('epoch', '=', key.epoch),
      )?.last_sequence ?? 0;
    const end = { last_sequence: sequence, last_head_sha256: headSha256 };
    db.run(
      qb
        .insertInto('telemetry_chains')
        .values({ ...key, ...end, batches: 0, records: 0, dropped: 0 })
        .onConflict((conflict) => conflict.columns(['device_id', 'epoch']).doUpdateSet(end)),
    );
    const lost = { first_sequence: last + 1, last_sequence: sequence, at_ms: clock.wall() };
    db.run(qb.insertInto('telemetry_lost').values({ ...key, ...lost }));
    event(
      db,
      deviceId,
      'lost-in-restore',
      `telemetry batches ${last + 1} to ${sequence} of enrolment ${key.epoch}: acknowledged before the restore`,
    );
  }

  function describe(verdict: Verdict): string {
    if (verdict.kind === 'known') return 'nothing new';
    if (verdict.kind === 'elsewhere') return verdict.file;
    if (verdict.kind === 'namespace') return `namespace ${verdict.namespace} ${verdict.metadata.version}`;
    if (verdict.kind === 'assignment') return `assignment of epoch ${verdict.epoch}`;
    if (verdict.kind === 'acknowledgement') return `acknowledgement of batch ${verdict.sequence}`;
    return `${verdict.kind} ${verdict.version}`;
  }

  function signAboveIn(db: RegistryDb, files: RoleFiles): void {
    // What another region signs comes from there; the numbers stay known, should this one take over.
    if (!files.isHome(db)) return;
    const nowMs = clock.wall();
    for (const { role, version } of owed(db).filter(({ isOnline }) => isOnline)) {
      // The next version is the one after this row's: signing below puts it right in the same transaction.
      db.run(qb.updateTable('metadata_roles').set({ version }).where('role', '=', role));
    }
    files.signSnapshot(db, nowMs);
    files.signTimestamp(db, nowMs);
    const left = new Set(owed(db).map(({ role }) => role));
    for (const { role } of db.all(qb.selectFrom('version_floors').select('role'))) {
      if (!left.has(role)) db.run(qb.deleteFrom('version_floors').where('role', '=', role));
    }
  }

  return {
    describe,

    adoptIn(db, files, adoption) {
      const { verdict, deviceId, bytes } = adoption;
      const nowMs = clock.wall();
      switch (verdict.kind) {
        case 'known':
        case 'roots-missing':
        case 'elsewhere':
          return;
        case 'root':
        case 'region-root': {
          const { version, expiresAtMs } = verdict;
          const isRegion = verdict.kind === 'region-root';
          const role = isRegion ? 'region/root' : 'root';
          const file = `${isRegion ? 'region/' : ''}${version}.root.json`;
          files.save(db, { role, file, version, expiresAtMs, bytes, nowMs });
          // In this commit: nobody is to see a timestamp that the root does not bear.
          if (verdict.kind === 'root' && !verdict.bears) signAboveIn(db, files);
          break;
        }
        case 'timestamp':
          raiseFloor(db, 'timestamp', verdict.version);
          if (verdict.snapshotVersion > (files.current(db, 'snapshot')?.version ?? 0)) {
            raiseFloor(db, 'snapshot', verdict.snapshotVersion);
          }
          break;
        case 'snapshot':
          raiseFloor(db, 'snapshot', verdict.version);
          for (const [role, version] of verdict.files) {
            if (version > (files.current(db, role)?.version ?? 0)) raiseFloor(db, role, version);
          }
          break;
        case 'targets':
          adoptTargets(db, files, adoption, verdict);
          raiseFloor(db, 'snapshot', files.expect(db, 'snapshot').version);
          break;
        case 'namespace':
          adoptNamespace(db, files, adoption, verdict);
          raiseFloor(db, 'snapshot', files.expect(db, 'snapshot').version);
          break;
        case 'assignment':
          adoptReleases(db, deviceId, verdict.releases);
          director.issueIn(db, deviceId, { renew: true, above: verdict.epoch });
          break;
        case 'acknowledgement':
          adoptAcknowledgement(db, deviceId, verdict);
          break;
      }
      event(db, deviceId, 'restore-adopted', `${describe(verdict)}, as signed before the restore`);
    },

    floorIn: (db, role) => owed(db).find((one) => one.role === role)?.version ?? 0,

    stateIn(db) {
      const left = owed(db);
      if (left.some(({ isOnline }) => !isOnline))
        return left.some((one) => one.isOnline) ? 'waiting' : 'whole';
      return left.length === 0 ? 'whole' : 'complete';
    },
    signAboveIn,
  };
}
