// Why: a rollout as people see it: waves with their devices counted, gates, approvals, and every device with its reason.
// Trusts: what the controller stored. Must never: judge anything anew.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import { fromNullableColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import { readApprovals, readRollout, readWaves } from './records.ts';
import { together } from './together.ts';

const inWords = (reason: Reason | null): string | null =>
  reason === null ? null : `${reason.code}: ${reason.detail}`;

/** Refusal: `rollout-unknown`. */
export function statusIn(db: RegistryDb, qb: RegistryQueries, rolloutId: string): Result<RolloutStatus> {
  const rollout = readRollout(db, qb, rolloutId);
  if (rollout === undefined) return refuse('rollout-unknown', `there is no rollout ${rolloutId}`);
  const members = db.all(
    qb
      .selectFrom('rollout_devices as m')
      .leftJoin('device_models as r', (join) =>
        join.onRef('r.device_id', '=', 'm.device_id').on('r.name', '=', rollout.as),
      )
      .select(['m.device_id as id', 'm.wave_index as wave', 'm.state as state', 'm.reason as reason'])
      .select('r.active as release')
      .where('m.rollout_id', '=', rolloutId)
      .orderBy('m.wave_index')
      .orderBy('m.device_id'),
  );
  const waves = readWaves(db, qb, rolloutId);
  return ok({
    id: rollout.id,
    name: rollout.name,
    release: rollout.release.releaseId,
    ...together(rollout),
    state: rollout.state,
    reason: rollout.reason,
    waves: waves.map(({ index, state, reason }) => {
      const devices: Record<string, number> = { total: 0 };
      for (const member of members) {
        if (member.wave !== index) continue;
        devices['total'] = (devices['total'] ?? 0) + 1;
        devices[member.state] = (devices[member.state] ?? 0) + 1;
      }
      return { index, state, reason, devices };
    }),
    gates: waves.flatMap((wave) => wave.gates),
    approvals: readApprovals(db, qb, rolloutId),
    devices: members.map(({ id, wave, state, reason, release }) => ({
      id,
      wave,
      state: state as RolloutStatus['devices'][number]['state'],
      reason: inWords(fromNullableColumn<Reason>(reason)),
      release,
    })),
  });
}
