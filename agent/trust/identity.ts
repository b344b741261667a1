// Why: who this device is: its one key, made here and never leaving it, and what enrolment gave it.
// Trusts: its own database in a folder that only its user can read, and Entropy for the key.
// Must never: make a second key while one waits for its certificate; that would spend a second claim use.

import type { Migration } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Entropy, Store } from '../../shared/kernel/ports.ts';
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
];

export interface Identity {
  /** Ed25519 seed, 32 bytes. */
  seed: Uint8Array;
  deviceId: string;
  /** Client certificate, PEM. */
  certificate: string;
  region: string;
  brokerUrl: string;
  /** PEM of the fleet's certificate authority, the only one that a broker's certificate may come from. */
  fleetCa: string;
  labels: Labels;
  telemetryEpoch: number;
  /** The claim it was enrolled with. */
  claimId: string;
  /** False until the first start that got as far as serving with it. */
  settled: boolean;
}

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
}

function readLabels(text: string): Labels {
  const parsed = labelsSchema.safeParse(JSON.parse(text));
  if (!parsed.success) throw new FleetError('state-corrupt', 'the stored labels are malformed');
  return parsed.data;
}

/** The identity, or null before enrolment. Fault: `state-corrupt`. */
export function loadIdentity(store: Store): Promise<Identity | null> {
  return store.tx((db) => {
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
    };
  });
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

/** Takes the new identity and pins its roots in one transaction; the pending key is then the device's. */
export function completeEnrolment(
  store: Store,
  identity: Omit<Identity, 'settled'>,
  roots: { catalogue: Uint8Array; region: Uint8Array },
): Promise<void> {
  return store.tx((db) => {
    db.run('DELETE FROM identity');
    db.run(
      `INSERT INTO identity (id, seed, device_id, certificate, region, broker_url, fleet_ca, labels,
         telemetry_epoch, claim_id, settled) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`,
      identity.seed,
      identity.deviceId,
      identity.certificate,
      identity.region,
      identity.brokerUrl,
      identity.fleetCa,
      JSON.stringify(identity.labels),
      identity.telemetryEpoch,
      identity.claimId,
    );
    db.run('DELETE FROM identity_pending');
    pinRoots(db, roots);
  });
}

/**
 * Marks that a start got as far as serving with this identity. Before it, `--re-enroll` with the same
 * claim continues the enrolment that was cut off instead of making another device.
 */
export async function settleIdentity(store: Store): Promise<void> {
  await store.tx((db) => db.run('UPDATE identity SET settled = 1 WHERE id = 1 AND settled = 0'));
}
