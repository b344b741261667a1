// Why: who this device is: its one key, made here and never leaving it, and what enrolment gave it.
// Trusts: its own database in a folder that only its user can read, and Entropy for the key.
// Must never: make a second key while one waits for its certificate; that would spend a second claim use.

import { z } from 'zod';
import type { Migration } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Entropy, SqlTx, Store } from '../../shared/kernel/ports.ts';
import type { Labels } from '../../shared/wire/messages.ts';
import { labelsSchema } from '../../shared/wire/messages.ts';
import { pinRoots } from './trust-store.ts';

export const identityMigrations: readonly Migration[] = [
  {
    name: 'agent-identity-001',
    sql: `
      CREATE TABLE identity (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seed BLOB NOT NULL CHECK (length(seed) = 32),
        device_id TEXT NOT NULL,
        certificate TEXT NOT NULL,
        region TEXT NOT NULL,
        broker_url TEXT NOT NULL,
        fleet_ca TEXT NOT NULL,
        labels TEXT NOT NULL,
        telemetry_epoch INTEGER NOT NULL,
        claim_id TEXT NOT NULL,
        settled INTEGER NOT NULL CHECK (settled IN (0, 1))
      ) STRICT;
      CREATE TABLE identity_pending (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seed BLOB NOT NULL CHECK (length(seed) = 32)
      ) STRICT;
    `,
  },
  {
    name: 'agent-identity-002',
    sql: `
      -- When the region signed the list of authorities that is held; 0 for the one of the claim.
      ALTER TABLE identity ADD COLUMN authorities_issued_ms INTEGER NOT NULL DEFAULT 0;
      -- JSON of the credentials before the last renewal, until a connection stood with the new ones.
      ALTER TABLE identity ADD COLUMN proven TEXT;
    `,
  },
];

/** What a renewal replaces. */
export interface DeviceCredentials {
  /** Client certificate, PEM. */
  certificate: string;
  /** PEM of the fleet's certificate authorities, the one that issues now first; only they may issue a broker's. */
  fleetCa: string;
  /** When the region signed that list, Unix milliseconds; 0 for the one of the claim. */
  authoritiesIssuedAtMs: number;
}

export interface Identity extends DeviceCredentials {
  /** Ed25519 seed, 32 bytes. */
  seed: Uint8Array;
  deviceId: string;
  region: string;
  brokerUrl: string;
  labels: Labels;
  telemetryEpoch: number;
  /** The claim it was enrolled with. */
  claimId: string;
  /** False until a clean stop, or a start that began with it and got as far as serving. */
  settled: boolean;
  /** The credentials before the last renewal, until a connection stood with the new ones; else null. */
  proven: DeviceCredentials | null;
}

/** An identity as it comes from an enrolment. */
export type NewIdentity = Omit<Identity, 'settled' | 'proven' | 'authoritiesIssuedAtMs'>;

interface IdentityRow {
  seed: Uint8Array;
  device_id: string;
  certificate: string;
  region: string;
  broker_url: string;
  fleet_ca: string;
  labels: string;
  telemetry_epoch: number;
  claim_id: string;
  settled: number;
  authorities_issued_ms: number;
  proven: string | null;
}

export const credentialsSchema = z.object({
  certificate: z.string(),
  fleetCa: z.string(),
  authoritiesIssuedAtMs: z.number(),
});

function readProven(text: string | null): DeviceCredentials | null {
  return text === null ? null : credentialsSchema.parse(JSON.parse(text));
}

function readLabels(text: string): Labels {
  const parsed = labelsSchema.safeParse(JSON.parse(text));
  if (!parsed.success) throw new FleetError('state-corrupt', 'the stored labels are malformed');
  return parsed.data;
}

/** The identity, or null before enrolment. Fault: `state-corrupt`. */
export function loadIdentity(store: Store): Promise<Identity | null> {
  return store.tx(readIdentity);
}

export function readIdentity(db: SqlTx): Identity | null {
  const row = db.get<IdentityRow>('SELECT * FROM identity WHERE id = 1');
  if (row === undefined) return null;
  return {
    seed: new Uint8Array(row.seed),
    deviceId: row.device_id,
    certificate: row.certificate,
    region: row.region,
    brokerUrl: row.broker_url,
    fleetCa: row.fleet_ca,
    labels: readLabels(row.labels),
    telemetryEpoch: row.telemetry_epoch,
    claimId: row.claim_id,
    settled: row.settled === 1,
    authoritiesIssuedAtMs: row.authorities_issued_ms,
    proven: readProven(row.proven),
  };
}

export function writeIdentity(db: SqlTx, identity: Identity): void {
  db.run('DELETE FROM identity');
  db.run(
    `INSERT INTO identity (id, seed, device_id, certificate, region, broker_url, fleet_ca, labels, telemetry_epoch,
       claim_id, settled, authorities_issued_ms, proven) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    identity.seed,
    identity.deviceId,
    identity.certificate,
    identity.region,
    identity.brokerUrl,
    identity.fleetCa,
    JSON.stringify(identity.labels),
    identity.telemetryEpoch,
    identity.claimId,
    identity.settled ? 1 : 0,
    identity.authoritiesIssuedAtMs,
    identity.proven === null ? null : JSON.stringify(identity.proven),
  );
}

/**
 * The seed to enrol with: the one that an interrupted enrolment left, else a new one. It is durable when
 * this resolves, so before the first request; after a crash the same key asks again and the registry
 * answers with the same certificate.
 */
export function pendingSeed(store: Store, entropy: Entropy): Promise<Uint8Array> {
  const fresh = entropy.bytes(32);
  return store.tx((db) => {
    db.run('INSERT INTO identity_pending (id, seed) VALUES (1, ?) ON CONFLICT (id) DO NOTHING', fresh);
    const row = db.get<{ seed: Uint8Array }>('SELECT seed FROM identity_pending WHERE id = 1');
    return row === undefined ? fresh : new Uint8Array(row.seed);
  });
}

/** What a new identity begins with: nothing of it was renewed or used yet. */
export function begun(identity: NewIdentity): Identity {
  return { ...identity, settled: false, proven: null, authoritiesIssuedAtMs: 0 };
}

/** Takes the new identity and pins its roots in one transaction, with what `beside` writes; the pending key is then the device's. */
export function completeEnrolment(
  store: Store,
  identity: NewIdentity,
  roots: { catalogue: Uint8Array; region: Uint8Array },
  beside: (db: SqlTx) => void = () => undefined,
): Promise<void> {
  return store.tx((db) => {
    writeIdentity(db, begun(identity));
    db.run('DELETE FROM identity_pending');
    pinRoots(db, roots);
    beside(db);
  });
}

/** The identity with renewed credentials; those that a connection stood with last are kept beside them. */
export function withRenewed(identity: Identity, renewed: DeviceCredentials): Identity {
  const { certificate, fleetCa, authoritiesIssuedAtMs } = identity;
  return {
    ...identity,
    ...renewed,
    proven: identity.proven ?? { certificate, fleetCa, authoritiesIssuedAtMs },
  };
}

/**
 * Marks that the device has served with this identity and was stopped, or started again. Before it,
 * `--re-enroll` with the same claim continues the enrolment that was cut off instead of making another device.
 */
export async function settleIdentity(store: Store): Promise<void> {
  await store.tx((db) => db.run('UPDATE identity SET settled = 1 WHERE id = 1 AND settled = 0'));
}
