// Why: what `lepton-agent status` shows, whether the daemon runs (GET /status) or only its folder is there.
// Trusts: the agent's own store. Must never: hold keys, tokens or payloads.

import { z } from 'zod';
import type { Store } from '../shared/kernel/ports.ts';
import {
  deviceIdSchema,
  heldVersionsSchema,
  labelsSchema,
  outboxStateSchema,
  type ReportedMove,
  reportedModelSchema,
  reportedMoveSchema,
  reportedRefusalSchema,
} from '../shared/wire/messages.ts';
import { listRefusals, type StoredRefusal } from './bus/refusals.ts';
import { readFloors } from './trust/clock.ts';
import { loadIdentity } from './trust/identity.ts';
import { type Moves, readMoves } from './trust/moves.ts';
import { heldVersions } from './trust/refresh.ts';
import { certificateEndMs } from './trust/renewal.ts';
import { loadTrust } from './trust/trust-store.ts';
import { deferralSchema, readDeferral } from './update/deferral.ts';
import { readMachines } from './update/journal.ts';

export const statusSchemaVersion = 1;

export const agentStatusSchema = z.object({
  schemaVersion: z.literal(statusSchemaVersion),
  /** Null before enrolment. */
  device: deviceIdSchema.nullable(),
  region: z.string().nullable(),
  broker: z.string().nullable(),
  labels: labelsSchema,
  agent: z.object({ version: z.string(), runtime: z.string(), arch: z.string() }),
  startedAtMs: z.number().nullable(),
  connected: z.boolean(),
  /** Why the broker refuses the device at present. */
  refusedBy: z.string().nullable(),
  /** Epoch of the assignment in force, 0 where none. */
  epoch: z.number(),
  verifiedTimeMs: z.number(),
  /** What time the device goes by: the region's signed time of this start, or its own clock above the floor. */
  clock: z.object({ source: z.enum(['signed', 'wall']), nowMs: z.number().nullable(), floorMs: z.number() }),
  /** End of the client certificate, and why the registry gives no new one at present. */
  certificate: z.object({ expiresAtMs: z.number(), renewalRefusedBy: z.string().nullable() }).nullable(),
  /** Versions verified and held; null before enrolment. */
  held: heldVersionsSchema.nullable(),
  /** Of the refusals kept, those that are attacks. */
  attacks: z.object({ count: z.number().int(), last: reportedRefusalSchema.nullable() }),
  models: z.array(reportedModelSchema),
  /** In which windows are told; null where the daemon does not run. */
  timezone: z.string().nullable().default(null),
  /** "Not now" said at the device. */
  deferral: deferralSchema.nullable().default(null),
  /** Inference requests since the daemon started; zero where it does not run. */
  requests: z.object({ answered: z.number().int(), failed: z.number().int() }),
  /** Telemetry records; null where the daemon does not run. */
  outbox: outboxStateSchema.nullable(),
  /** What was fetched since the daemon started, and what that came to; null where it does not run. */
  delivery: z
    .object({
      /** Of files of releases, over the network, with what came in vain. */
      arrivedBytes: z.number().int(),
      /** Of the files that were had by them. */
      fileBytes: z.number().int(),
      /** Made of smaller ones and of what was here. */
      rebuiltFiles: z.number().int(),
      /** Smaller ways that were tried and did not lead there. */
      failedWays: z.number().int(),
    })
    .nullable()
    .default(null),
  /** Why no telemetry is recorded. */
  telemetryOff: z.string().nullable(),
  /** The region that it was in before, where it was moved. */
  movedFrom: z.string().nullable().default(null),
  /** How far it is with an order to another region. */
  move: reportedMoveSchema.nullable().default(null),
  /** What waits for regions that it left; counts are null where the daemon does not run. */
  carried: z
    .array(
      z.object({
        region: z.string(),
        pendingBatches: z.number().int().nullable(),
        pendingRecords: z.number().int().nullable(),
        bytes: z.number().int().nullable(),
      }),
    )
    .default([]),
  /** Oldest first. */
  refusals: z.array(reportedRefusalSchema),
});
export type AgentStatus = z.infer<typeof agentStatusSchema>;

/** What `agent.json` in the state folder says about the running daemon. */
export const whereSchema = z.object({
  schemaVersion: z.literal(statusSchemaVersion),
  pid: z.number().int(),
  http: z.string(),
  startedAtMs: z.number(),
});

export function attacksOf(refusals: readonly StoredRefusal[]): AgentStatus['attacks'] {
  const attacks = refusals.filter(({ attack }) => attack);
  return { count: attacks.length, last: attacks.at(-1) ?? null };
}

/** What a report says of a move, or undefined where the device was never ordered away, or went. */
export function reportedMove({ under, lastMoveId, lastEnded }: Moves): ReportedMove | undefined {
  if (under !== null) {
    const { moveId, to, phase, reason } = under;
    return { moveId, to, state: phase, reason };
  }
  if (lastEnded === null || lastMoveId === null) return undefined;
  return { moveId: lastMoveId, to: null, state: 'ended', reason: lastEnded };
}

/** The status of a daemon that does not run, from what it left. The store may be open read-only. */
export async function statusFromStore(store: Store, agent: AgentStatus['agent']): Promise<AgentStatus> {
  const identity = await loadIdentity(store);
  const trust = await loadTrust(store);
  const machines = await store.tx(readMachines);
  // A folder of an earlier version has no such table.
  const deferral = await store.tx((db) =>
    db.get(`SELECT 1 FROM sqlite_master WHERE name = 'deferral'`) === undefined ? null : readDeferral(db),
  );
  const refusals = await store.tx(listRefusals);
  const floors = await store.tx(readFloors);
  const moves = await store.tx(readMoves);
  const floorMs = floors.reduce((most, { atMs }) => Math.max(most, atMs), 0);
  return {
    schemaVersion: statusSchemaVersion,
    device: identity?.deviceId ?? null,
    region: identity?.region ?? null,
    broker: identity?.brokerUrl ?? null,
    labels: identity?.labels ?? {},
    agent,
    startedAtMs: null,
    connected: false,
    refusedBy: null,
    epoch: trust?.assignment?.epoch ?? 0,
    verifiedTimeMs: floorMs,
    clock: { source: 'wall', nowMs: null, floorMs },
    certificate:
      identity === null
        ? null
        : { expiresAtMs: certificateEndMs(identity.certificate), renewalRefusedBy: null },
    held: trust === null ? null : heldVersions(trust),
    attacks: attacksOf(refusals),
    models: machines.map((machine) => ({
      name: machine.as,
      state: machine.phase,
      active: machine.active?.releaseId ?? null,
      activeSha256: machine.active?.manifestSha256 ?? null,
      candidate: machine.candidate?.releaseId ?? null,
      lastGood: machine.lastGood?.releaseId ?? null,
      target: machine.target?.releaseId ?? null,
      rolloutId: machine.rolloutId,
      reason: machine.reason,
      progress: null,
      probe: machine.probe,
      ...(machine.shadow === null ? {} : { shadow: machine.shadow }),
    })),
    timezone: null,
    deferral,
    requests: { answered: 0, failed: 0 },
    outbox: null,
    delivery: null,
    telemetryOff: null,
    movedFrom: moves.movedFrom,
    move: reportedMove(moves) ?? null,
    carried: moves.chains.map(({ region }) => ({
      ...{ region, pendingBatches: null, pendingRecords: null, bytes: null },
    })),
    refusals,
  };
}
