// Why: somebody who copied a registry's whole data folder: runs it as a registry of his own under the same address
// and signs with the keys that he found in it, without the checks that an honest registry makes.
// Trusts: the stolen folder, for keys and for everything that was signed so far.
// Must never: hold a key that is not in that folder, unless a test hands it over as a control.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Registry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import {
  describeFile,
  type MetaFile,
  makeSnapshot,
  makeTimestamp,
  parseTimestampFile,
} from '../../shared/trust/tuf/repository.ts';
import { type OnlineRole, onlineRoles } from '../../shared/wire/key-plan.ts';
import {
  type AssignedRelease,
  type Assignment,
  assignmentSchema,
  encodeMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { once, preparePush } from '../registry-core/support.ts';
import type { Workplace } from './processes.ts';
import { openTestRegistry, testRegion } from './registry.ts';

const dayMs = 86_400_000;

export const keyIn = (file: string): Signer =>
  signerFromSeed(unwrap(seedFromPkcs8Pem(readFileSync(file, 'utf8'))), 'node');

export type StolenKeys = Record<OnlineRole, Signer>;

/** Every key that signs, by role, as it lies in the stolen folder; `director.pem`, after a rotation `director-ID.pem`. */
export function stolenKeys(folder: string): StolenKeys {
  const keys = join(folder, 'keys');
  const files = readdirSync(keys);
  const entries = onlineRoles.map((role) => {
    const file = files.find((name) => name === `${role}.pem` || name.startsWith(`${role}-`));
    assert.ok(file, `no key of ${role} in the stolen folder`);
    return [role, keyIn(join(keys, file))];
  });
  return Object.fromEntries(entries) as StolenKeys;
}

/** A release as its signer, whoever that is, puts it into the catalogue and into an assignment. */
export interface MadeRelease {
  assigned: AssignedRelease;
  /** The namespace's metadata that adds it. */
  metadata: Uint8Array;
  version: number;
  manifest: Uint8Array;
  model: Uint8Array;
}

export interface Thief {
  registry: Registry;
  keys: StolenKeys;
  /** A release on top of what the namespace has, signed by that key. */
  make(releaseId: string, model: Uint8Array, counter: number, by: Signer): Promise<MadeRelease>;
  /** A release that is in the stolen database. */
  known(releaseId: string): Promise<AssignedRelease>;
  /** Its files are given to this device when it asks for them. */
  allow(deviceId: string, release: AssignedRelease): Promise<void>;
  /** The same for a release that is not in the stolen database: its files, from now on given to this device when it asks for them. */
  stock(deviceId: string, release: MadeRelease): Promise<void>;
  /** Puts metadata into the catalogue, unchecked; `above` signs a snapshot and a timestamp that list it. */
  serve(files: readonly ServedFile[], above?: { timestampVersion?: number }): Promise<void>;
  /** As it was before `serve`. Files above stay: a device would refuse a snapshot that falls. */
  withdraw(files: readonly ServedFile[]): Promise<void>;
  current(role: string): Promise<{ version: number; bytes: Uint8Array }>;
  /** Assigns exactly these releases, under an epoch that grows unless it is given. */
  assign(
    deviceId: string,
    releases: readonly AssignedRelease[],
    how?: { by?: Signer; epoch?: number },
  ): Promise<void>;
  /** Replaces a file under its digest by other bytes. */
  swapBlob(sha256: string, bytes: Uint8Array): void;
  stop(): Promise<void>;
}

/** `role` as in the table: `root`, `region/root`, `targets`, `ns/acme`. */
export interface ServedFile {
  role: string;
  file: string;
  version: number;
  bytes: Uint8Array;
}

/** Runs the stolen folder `name` as a registry in this process, on the ports that it was stolen with. */
export async function startThief(place: Workplace, name: string): Promise<Thief> {
  const keys = stolenKeys(place.path(name));
  const { registry } = await openTestRegistry(place, { folder: name });
  const { store, blobs, releases, bus } = registry.parts;
  const { qb } = store;
  const expiresAtMs = Date.now() + 300 * dayMs;
  const epochs = new Map<string, number>();
  /** What `serve` replaced. */
  const replaced = new Map<string, { version: number; file: string }>();

  const current = async (role: string): Promise<{ version: number; file: string; bytes: Uint8Array }> => {
    const row = await store.tx((db) =>
      db.first(
        qb
          .selectFrom('metadata_roles')
          .innerJoin('metadata_files', 'metadata_files.name', 'metadata_roles.file')
          .select(['version', 'file', 'bytes'])
          .where('role', '=', role),
      ),
    );
    assert.ok(row, `nothing of ${role} in the stolen database`);
    return row;
  };

  /** Past the registry's own code, which would ring the doorbell: a device hears of it with its next assignment. */
  async function save({ role, file, version, bytes }: ServedFile): Promise<void> {
    const head = { version, file, expires_at_ms: expiresAtMs };
    await store.tx((db) => {
      db.run(
        qb
          .insertInto('metadata_files')
          .values({ name: file, bytes, created_at_ms: Date.now() })
          .onConflict((conflict) => conflict.column('name').doUpdateSet({ bytes })),
      );
      db.run(
        qb
          .insertInto('metadata_roles')
          .values({ role, ...head })
          .onConflict((conflict) => conflict.column('role').doUpdateSet(head)),
      );
    });
  }

  /** A snapshot of what is there now and a timestamp for it, by the stolen keys. */
  async function signAbove(timestampVersion: number | undefined): Promise<void> {
    const rows = await store.tx((db) =>
      db.all(qb.selectFrom('metadata_roles').select('role').where('role', 'like', 'ns/%')),
    );
    const listed = new Map<string, MetaFile>();
    for (const role of ['targets', ...rows.map((row) => row.role)]) {
      listed.set(`${role.replace('ns/', '')}.json`, describeFile((await current(role)).bytes));
    }
    const version = (await current('snapshot')).version + 1;
    const snapshot = makeSnapshot({ version, expiresAtMs, files: listed, signers: [keys.snapshot] });
    await save({ role: 'snapshot', file: `${version}.snapshot.json`, version, bytes: snapshot });
    const before = unwrap(parseTimestampFile((await current('timestamp')).bytes)).version;
    const timestamp = {
      version: timestampVersion ?? before + 1,
      expiresAtMs,
      snapshot: describeFile(snapshot),
      signers: [keys.timestamp],
    };
    const bytes = makeTimestamp(timestamp);
    await save({ role: 'timestamp', file: 'timestamp.json', version: timestamp.version, bytes });
  }

  /** The last word of the honest director, from the stolen database. */
  async function genuine(deviceId: string): Promise<Assignment> {
    const row = await store.tx((db) =>
      db.first(qb.selectFrom('assignments').select('message').where('device_id', '=', deviceId)),
    );
    assert.ok(row, 'the device has no assignment');
    const { envelope } = signedMessageSchema.parse(JSON.parse(Buffer.from(row.message).toString()));
    return assignmentSchema.parse(JSON.parse(Buffer.from(envelope.payload, 'base64').toString()));
  }

  async function allow(deviceId: string, assigned: AssignedRelease): Promise<void> {
    const row = {
      release_id: assigned.releaseId,
      manifest_sha256: assigned.manifestSha256,
      manifest_bytes: assigned.manifestBytes,
      counter: assigned.counter,
      requires: null,
      rollout_id: null,
      policy: JSON.stringify(assigned.policy),
    };
    await store.tx((db) =>
      db.run(
        qb
          .insertInto('desired')
          .values({ device_id: deviceId, as_name: assigned.as, ...row })
          .onConflict((conflict) => conflict.columns(['device_id', 'as_name']).doUpdateSet(row)),
      ),
    );
  }

  const assignedOf = (
    releaseId: string,
    about: { manifestSha256: string; manifestBytes: number; counter: number },
  ): AssignedRelease => ({
    as: parseReleaseId(releaseId)?.name ?? '',
    releaseId,
    ...about,
    requires: null,
    rolloutId: null,
    policy: { deadlinesMs: { fetching: 60_000, probing: 60_000, soaking: 60_000 }, soakMs: 0 },
  });

  return {
    registry,
    keys,
    current,

    async make(releaseId, model, counter, by) {
      const namespace = parseReleaseId(releaseId)?.namespace ?? '';
      const { version, bytes } = await current(`ns/${namespace}`);
      const made = preparePush({ releaseId, model, current: bytes, counter, signers: [by], expiresAtMs });
      const about = {
        manifestSha256: sha256Hex(made.manifest),
        manifestBytes: made.manifest.length,
        counter,
      };
      return { ...made, version: version + 1, assigned: assignedOf(releaseId, about) };
    },

    async known(releaseId) {
      const release = await releases.find(releaseId);
      assert.ok(release, releaseId);
      const { manifestSha256, manifestBytes, counter, requires } = release;
      const signed = requires === null ? null : (JSON.parse(requires) as AssignedRelease['requires']);
      return { ...assignedOf(releaseId, { manifestSha256, manifestBytes, counter }), requires: signed };
    },

    allow,

    async stock(deviceId, { assigned, manifest, model }) {
      for (const bytes of [manifest, model]) unwrap(await blobs.put(sha256Hex(bytes), once(bytes)));
      const { releaseId, manifestSha256, counter } = assigned;
      const { namespace = '', name = '', version = '' } = parseReleaseId(releaseId) ?? {};
      await store.tx((db) =>
        db.run(
          qb.insertInto('releases').values({
            release_id: releaseId,
            namespace,
            name,
            version,
            counter,
            manifest_sha256: manifestSha256,
            manifest,
            total_bytes: model.length,
            signed_by: '[]',
            admitted: 1,
            reason: null,
            pushed_by: 'thief',
            pushed_at_ms: Date.now(),
            requires: null,
          }),
        ),
      );
      await allow(deviceId, assigned);
    },

    async serve(files, above) {
      for (const one of files) {
        const { version, file } = await current(one.role);
        if (!replaced.has(one.role)) replaced.set(one.role, { version, file });
        await save(one);
      }
      if (above !== undefined) await signAbove(above.timestampVersion);
    },

    async withdraw(files) {
      await store.tx((db) => {
        for (const { role } of files) {
          const before = replaced.get(role);
          assert.ok(before, role);
          db.run(qb.updateTable('metadata_roles').set(before).where('role', '=', role));
        }
      });
      for (const { role } of files) replaced.delete(role);
    },

    async assign(deviceId, assigned, how = {}) {
      const before = await genuine(deviceId);
      const epoch = how.epoch ?? (epochs.get(deviceId) ?? before.epoch) + 1;
      epochs.set(deviceId, epoch);
      const nowMs = Date.now();
      const body: Assignment = {
        ...before,
        epoch,
        issuedAtMs: nowMs,
        expiresAtMs: nowMs + 30 * dayMs,
        releases: [...assigned],
      };
      const message = encodeMessage({
        schemaVersion: 1,
        messageId: randomBytes(8).toString('hex'),
        sentAtMs: nowMs,
        envelope: signAssignment(body, how.by ?? keys.director),
      });
      await bus.publish(deviceTopic(testRegion, deviceId, 'desired'), message, { qos: 1, retain: true });
    },

    swapBlob: (sha256, bytes) => writeFileSync(place.path(name, 'blobs', sha256), bytes),
    stop: () => registry.stop(),
  };
}
