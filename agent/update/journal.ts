// Why: the update machine's durable memory: one row a model, written before anything is done.
// Trusts: the agent's own store, yet checks each row it reads: a torn or foreign row must not act.
// Must never: write in a transaction of its own; the caller decides what commits together.

import { z } from 'zod';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import {
  activationPolicySchema,
  assignedReleaseSchema,
  describeIssues,
  machineStates,
  nameSchema,
  probeEvidenceSchema,
  reasonSchema,
  shadowEvidenceSchema,
} from '../../shared/wire/messages.ts';
import type { MachineState } from './machine.ts';

/** Append-only: an applied migration is never edited. */
export const updateMigrations: { name: string; sql: string }[] = [
  {
    name: 'update-001-machines',
    sql: `CREATE TABLE machines (
  name TEXT PRIMARY KEY,
  phase TEXT NOT NULL,
  journal_writes INTEGER NOT NULL,
  state TEXT NOT NULL
) STRICT`,
  },
];

const releaseRefSchema = assignedReleaseSchema
  .pick({ releaseId: true, manifestSha256: true, manifestBytes: true, counter: true, requires: true })
  .nullable();

const machineStateSchema = z.strictObject({
  as: nameSchema,
  phase: z.enum(machineStates),
  active: releaseRefSchema,
  candidate: releaseRefSchema,
  lastGood: releaseRefSchema,
  previous: releaseRefSchema,
  committedFor: z.string().nullable().default(null),
  target: releaseRefSchema,
  rolloutId: z.string().nullable(),
  policy: activationPolicySchema,
  attempt: z.number().int(),
  deadlineAtMs: z.number().nullable(),
  soakUntilMs: z.number().nullable(),
  asOfMs: z.number(),
  held: z
    .object({ door: z.enum(['download', 'activate']), leftMs: z.number().nullable() })
    .nullable()
    .default(null),
  deferral: z
    .object({ fromMs: z.number(), untilMs: z.number(), usedMs: z.number() })
    .nullable()
    .default(null),
  journalWrites: z.number().int(),
  reason: reasonSchema.nullable(),
  probe: probeEvidenceSchema.nullable(),
  shadow: shadowEvidenceSchema.nullable().default(null),
  rejected: z
    .object({
      manifestSha256: z.string(),
      rolloutId: z.string().nullable(),
      reason: reasonSchema,
    })
    .nullable(),
});

/** Every model's state, by name. Fault: `state-corrupt`. */
export function readMachines(db: SqlTx): MachineState[] {
  const rows = db.all<{ name: string; state: string }>('SELECT name, state FROM machines ORDER BY name');
  return rows.map((row) => parseState(row.name, row.state));
}

function parseState(name: string, text: string): MachineState {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new FleetError('state-corrupt', `journal row of ${name} is not JSON`, { cause: error });
  }
  const parsed = machineStateSchema.safeParse(body);
  if (!parsed.success) {
    throw new FleetError('state-corrupt', `journal row of ${name}: ${describeIssues(parsed.error)}`);
  }
  return parsed.data;
}

export function writeMachine(db: SqlTx, state: MachineState): void {
  db.run(
    `INSERT INTO machines (name, phase, journal_writes, state) VALUES (?, ?, ?, ?)
     ON CONFLICT (name) DO UPDATE SET phase = excluded.phase, journal_writes = excluded.journal_writes,
       state = excluded.state`,
    state.as,
    state.phase,
    state.journalWrites,
    JSON.stringify(state),
  );
}

/** Forgets a model that was removed. Idempotent. */
export function deleteMachine(db: SqlTx, as: string): void {
  db.run('DELETE FROM machines WHERE name = ?', as);
}
