// Why: signs what each device should run (DESIGN 3) and keeps it retained on the device's topic.
// Trusts: the table `desired`, which rollouts and operators write. Must never: reuse an epoch, or publish
// an assignment before it is durable: a device that holds a newer one than its registry is locked out.

import { canonicalJson, type JsonValue } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import type { RegistryBus, Timer } from '../../shared/kernel/ports.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import type { Masking } from '../../shared/wire/masking.ts';
import {
  type ActivationPolicy,
  type AssignedRelease,
  encodeMessage,
  type Labels,
  schemaVersion,
} from '../../shared/wire/messages.ts';
import type { AssignedSampling } from '../../shared/wire/sample-rules.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import { ordersOf } from '../moves/standing.ts';
import type { RegistryDb } from '../store/open.ts';
import { allowedRows } from './allowed.ts';
import { fromColumn, fromNullableColumn } from './columns.ts';
import { messageId } from './message-id.ts';
import type { Tasks } from './tasks.ts';

export interface IssueOptions {
  /** Signs in any case. */
  renew: boolean;
  /** An epoch that the device is proven to hold: the next one is above it. */
  above?: number;
}

export interface Director {
  /**
   * Signs and stores the device's next assignment where its labels or its desired releases differ
   * from the one in force, inside the transaction that changed them. Returns the epoch in force, 0
   * where there is none. Call `publish` after the commit.
   */
  issueIn(db: RegistryDb, deviceId: string, options?: IssueOptions): number;
  /** Publishes the stored assignments retained; of a device that may not connect, clears the topic. */
  publish(deviceIds: Iterable<string>): Promise<void>;
  /**
   * Makes the telemetry keys that these devices lack, issues and publishes: what a device needs right after
   * it enrolled, before anything is assigned to it. Idempotent.
   */
  equip(deviceIds: readonly string[]): Promise<void>;
  /**
   * Signs and publishes again what the present director's key did not sign or what names another list of
   * authorities, after a rotation. Idempotent; what a crash leaves is done at the next start. How many there were.
   */
  reissue(): Promise<number>;
  /** Signs and publishes what is not what the store says any more: rules of masking or samples that were set. Idempotent. */
  reissueChanged(): Promise<void>;
  /** Signs every device's assignment again, with the next epoch. */
  reissueAll(): Promise<void>;
  /** Publishes every assignment again and renews from now on. */
  start(bus: RegistryBus): Promise<void>;
  stop(): void;
}

/** Devices in one transaction: signing 200 takes about 10 ms, and nobody else waits longer than that. */
const batchDevices = 200;
/** Telemetry keys made in one go: about a millisecond each. */
const keysAtOnce = 20;

/** Canonical JSON has no fractions, a policy may (`agreementMin`): to be compared, a text of one is as good. */
function comparable(part: ActivationPolicy | Masking | AssignedSampling[]): JsonValue {
  const text = JSON.stringify(part, (_key, value: unknown) =>
    typeof value === 'number' && !Number.isInteger(value) ? String(value) : value,
  );
  return JSON.parse(text) as JsonValue;
}

/** The stored message with an order to another region beside the assignment: it came later, and proves itself. */
function withOrder(message: Uint8Array, order: string): Uint8Array {
  const body = JSON.parse(new TextDecoder().decode(message)) as object;
  return encodeMessage({ ...body, move: JSON.parse(order) as object });
}

export function createDirector(core: RegistryCore, tasks: Tasks): Director {
  const { store, keyring, authorities, telemetryKeys, clock, entropy, log, region } = core;
  const { qb } = store;
  let bus: RegistryBus | null = null;
  let timer: Timer | null = null;
  /** Devices whose topic is not what the store says. One loop empties it, so an older message never comes last. */
  const unpublished = new Set<string>();
  let publishing: Promise<void> | null = null;

  function issueIn(db: RegistryDb, deviceId: string, options: IssueOptions = { renew: false }): number {
    const device = db.first(
      qb
        .selectFrom('devices')
        .select(['labels', 'status', 'telemetry_epoch', 'moved_to', 'kept'])
        .where('device_id', '=', deviceId),
    );
    const present = db.first(
      qb.selectFrom('assignments').select(['epoch', 'content_sha256']).where('device_id', '=', deviceId),
    );
    if (device === undefined || device.status === 'revoked' || device.moved_to !== null)
      return present?.epoch ?? 0;
    const wanted = db.all(
      qb.selectFrom('desired').selectAll().where('device_id', '=', deviceId).orderBy('as_name'),
    );
    const desired = allowedRows(
      db,
      qb,
      deviceId,
      // What a rollout took away is written down with no bytes (rollout/removal.ts), and left out here.
      wanted.filter((row) => row.manifest_bytes > 0),
    );
    const kept = (fromNullableColumn<string[]>(device.kept) ?? []).filter(
      (name) => !wanted.some((row) => row.as_name === name),
    );
    const keep = kept.length === 0 ? {} : { keep: kept };
    const telemetry = telemetryKeys.keyFor(deviceId, device.telemetry_epoch);
    // Nothing to run and no key to seal to: nothing to say. `equip` follows.
    if (present === undefined && desired.length === 0 && telemetry === null) return 0;
    const labels = fromColumn<Labels>(device.labels);
    const releases = desired.map(
      (row): AssignedRelease => ({
        as: row.as_name,
        releaseId: row.release_id,
        manifestSha256: row.manifest_sha256,
        manifestBytes: row.manifest_bytes,
        counter: row.counter,
        requires: fromNullableColumn<JsonValue>(row.requires),
        rolloutId: row.rollout_id,
        policy: fromColumn<ActivationPolicy>(row.policy),
      }),
    );
    const masking = core.masking.inForce();
    const asked = core.sampling.inForceIn(db, releases);
    // Left out where there are none: what it was before there were rules stays the same content.
    const samples = asked.length === 0 ? undefined : asked;
    const authoritiesSha256 = authorities.sha256();
    const contentSha256 = sha256Hex(
      canonicalJson({
        authoritiesSha256,
        labels,
        releases: releases.map((release) => ({ ...release, policy: comparable(release.policy) })),
        telemetry: telemetry === null ? null : { ...telemetry },
        ...(masking === null ? {} : { masking: comparable(masking) }),
        ...(samples === undefined ? {} : { samples: comparable(samples) }),
        ...keep,
      }),
    );
    if (present?.content_sha256 === contentSha256 && !options.renew) return present.epoch;
    const nowMs = clock.wall();
    const epoch = Math.max(present?.epoch ?? 0, options.above ?? 0) + 1;
    const expiresAtMs = nowMs + core.limits.assignmentMs;
    const signer = keyring.signer('director');
    const signedBy = signer.keyId;
    const envelope = signAssignment(
      {
        schemaVersion,
        deviceId,
        region,
        epoch,
        issuedAtMs: nowMs,
        expiresAtMs,
        labels,
        releases,
        telemetry,
        ...(masking === null ? {} : { masking }),
        ...(samples === undefined ? {} : { samples }),
        authoritiesSha256,
        ...keep,
      },
      signer,
    );
    const row = {
      epoch,
      content_sha256: contentSha256,
      message: encodeMessage({ schemaVersion, messageId: messageId(entropy), sentAtMs: nowMs, envelope }),
      issued_at_ms: nowMs,
      expires_at_ms: expiresAtMs,
      signed_by: signedBy,
      authorities_sha256: authoritiesSha256,
    };
    db.run(
      qb
        .insertInto('assignments')
        .values({ device_id: deviceId, ...row })
        .onConflict((conflict) => conflict.column('device_id').doUpdateSet(row)),
    );
    log.emit('info', 'assignment.issued', {
      deviceId,
      epoch,
      releases: releases.map((release) => release.releaseId),
    });
    return epoch;
  }

  /** The retained bytes of each device; empty where the topic is to be cleared. */
  function retainedIn(db: RegistryDb, deviceIds: string[]): { deviceId: string; message: Uint8Array }[] {
    const rows = db.all(
      qb
        .selectFrom('devices')
        .leftJoin('assignments', 'assignments.device_id', 'devices.device_id')
        .select([
          'devices.device_id as deviceId',
          'devices.status as status',
          'assignments.message as message',
        ])
        .where('devices.device_id', 'in', deviceIds),
    );
    const orders = ordersOf(db, qb, deviceIds, clock.wall());
    return rows.flatMap(({ deviceId, status, message }) => {
      if (status !== 'active') return [{ deviceId, message: new Uint8Array(0) }];
      const order = orders.get(deviceId);
      if (message === null) return [];
      return [{ deviceId, message: order === undefined ? message : withOrder(message, order) }];
    });
  }

  async function publishAll(to: RegistryBus): Promise<void> {
    while (unpublished.size > 0) {
      const deviceIds = [...unpublished].slice(0, batchDevices);
      const batch = await store.tx((db) => retainedIn(db, deviceIds));
      for (const deviceId of deviceIds) unpublished.delete(deviceId);
      let failed = 0;
      for (const { deviceId, message } of batch) {
        try {
          await to.publish(deviceTopic(region, deviceId, 'desired'), message, { qos: 1, retain: true });
        } catch (thrown) {
          const error = asFleetError(thrown);
          log.emit('error', 'assignment.publish.failed', {
            deviceId,
            code: error.code,
            detail: error.message,
          });
          unpublished.add(deviceId);
          failed += 1;
        }
      }
      // Not by what is in the set: another change may have put it there meanwhile.
      if (batch.length > 0 && failed === batch.length) {
        // The bus takes nothing: stored is stored, and offered again later.
        retryLater();
        return;
      }
    }
  }

  function retryLater(): void {
    const retry = clock.timer(core.limits.publishRetryMs);
    void retry.done.then(() => tasks.run('publish again', () => publish([])));
  }

  function publish(deviceIds: Iterable<string>): Promise<void> {
    for (const deviceId of deviceIds) unpublished.add(deviceId);
    const to = bus;
    if (to === null) return Promise.resolve(); // `start` publishes everything
    publishing ??= publishAll(to)
      .catch((thrown: unknown) => {
        // Whoever asked is told, but it is not asked again by itself: what waits would wait for the next change.
        if (unpublished.size > 0) retryLater();
        throw thrown;
      })
      .finally(() => {
        publishing = null;
      });
    return publishing;
  }

  /** Renews in batches, each published after its commit, until `dueIn` finds nothing more. */
  async function renewWhile(dueIn: (db: RegistryDb) => string[]): Promise<number> {
    let count = 0;
    for (;;) {
      const renewed = await store.tx((db) => {
        const due = dueIn(db);
        for (const deviceId of due) issueIn(db, deviceId, { renew: true });
        return due;
      });
      if (renewed.length === 0) return count;
      count += renewed.length;
      await publish(renewed);
    }
  }

  /** Signed before keys could change, so by the only key that there was. */
  async function adopt(): Promise<void> {
    const signedBy = keyring.signer('director').keyId;
    await store.tx((db) =>
      db.run(qb.updateTable('assignments').set({ signed_by: signedBy }).where('signed_by', 'is', null)),
    );
  }

  /** Assignments of devices that may get another one, in the order of their ids. */
  const renewable = qb
    .selectFrom('assignments')
    .innerJoin('devices', 'devices.device_id', 'assignments.device_id')
    .select('assignments.device_id as deviceId')
    .where('devices.status', '!=', 'revoked')
    .where('devices.moved_to', 'is', null)
    .orderBy('assignments.device_id')
    .limit(batchDevices);

  /** Issues again what would expire soon, and what an earlier key signed or names other authorities. */
  function renewDue(): Promise<number> {
    const due = renewable.where((eb) =>
      eb.or([
        eb('assignments.expires_at_ms', '<', clock.wall() + core.limits.assignmentRenewBeforeMs),
        eb('assignments.signed_by', '!=', keyring.signer('director').keyId),
        eb('assignments.authorities_sha256', 'is', null),
        eb('assignments.authorities_sha256', '!=', authorities.sha256()),
      ]),
    );
    return renewWhile((db) => db.all(due).map(({ deviceId }) => deviceId));
  }

  async function reissueChanged(): Promise<void> {
    const begunAtMs = clock.wall();
    for (let last = ''; ; ) {
      const some = await store.tx((db) => {
        const next = db.all(renewable.where('assignments.device_id', '>', last)).map((row) => row.deviceId);
        for (const deviceId of next) issueIn(db, deviceId);
        return next;
      });
      if (some.length === 0) break;
      await publish(some);
      last = some.at(-1) ?? last;
    }
    await core.masking.applied();
    await core.sampling.applied(begunAtMs);
  }

  async function reissueAll(): Promise<void> {
    let last = '';
    await renewWhile((db) => {
      const next = db.all(renewable.where('assignments.device_id', '>', last)).map((row) => row.deviceId);
      last = next.at(-1) ?? last;
      return next;
    });
  }

  async function equip(deviceIds: readonly string[]): Promise<void> {
    for (let at = 0; at < deviceIds.length; at += keysAtOnce) {
      const some = deviceIds.slice(at, at + keysAtOnce);
      const devices = await store.tx((db) =>
        db.all(
          qb
            .selectFrom('devices')
            .select(['device_id as deviceId', 'telemetry_epoch as epoch'])
            .where('device_id', 'in', some)
            .where('status', '!=', 'revoked')
            .where('moved_to', 'is', null),
        ),
      );
      // The key first: what an assignment names must be durable before the device can see it.
      await telemetryKeys.ensure(devices);
      await store.tx((db) => {
        for (const { deviceId } of devices) issueIn(db, deviceId);
      });
      await publish(some);
    }
  }

  /** Cut off between enrolling and the first assignment, or enrolled by a version that had no keys. */
  async function unequipped(): Promise<string[]> {
    const devices = await store.tx((db) =>
      db.all(
        qb
          .selectFrom('devices')
          .leftJoin('assignments', 'assignments.device_id', 'devices.device_id')
          .select([
            'devices.device_id as deviceId',
            'devices.telemetry_epoch as telemetryEpoch',
            'assignments.epoch as epoch',
          ])
          .where('devices.status', '!=', 'revoked')
          .where('devices.moved_to', 'is', null),
      ),
    );
    return devices
      .filter(
        ({ deviceId, telemetryEpoch, epoch }) =>
          epoch === null || telemetryKeys.keyFor(deviceId, telemetryEpoch) === null,
      )
      .map(({ deviceId }) => deviceId);
  }

  function renewOnTimer(): void {
    timer = clock.timer(core.limits.renewEveryMs);
    void timer.done.then(() => {
      tasks.run('renew assignments', renewDue);
      tasks.run('renew telemetry keys', () => equip(telemetryKeys.ended()));
      renewOnTimer();
    });
  }

  return {
    issueIn,
    publish,
    equip,
    reissue: renewDue,
    reissueChanged,
    reissueAll,

    async start(on) {
      if (bus !== null) throw new FleetError('internal', 'the director was started twice');
      bus = on;
      await adopt();
      const all = await store.tx((db) => db.all(qb.selectFrom('devices').select('device_id')));
      await publish(all.map((row) => row.device_id));
      // Also what was cut off while the authorities or the director's key changed.
      await renewDue();
      if (core.masking.isPending() || (await core.sampling.isPending())) await reissueChanged();
      await equip(await unequipped());
      renewOnTimer();
    },

    stop() {
      timer?.cancel();
      bus = null;
    },
  };
}
