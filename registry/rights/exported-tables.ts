// Why: every table that knows devices is named here: given out, or left out for a reason. A test finds one that is not.
// Trusts: the migrations for column names. Must never: give out the secret half of a key.

import type { RightsSection } from '../../shared/wire/rights.ts';

/** Tables with a `device_id`, each a section of its own. */
export const exportedTables = {
  devices: 'device',
  claim_uses: 'claim-uses',
  certificates: 'certificates',
  device_models: 'models',
  desired: 'desired',
  assignments: 'assignments',
  rollout_devices: 'rollout-membership',
  telemetry_chains: 'telemetry-chains',
  telemetry_batches: 'telemetry-batches',
  telemetry_lost: 'telemetry-lost',
  prediction_places: 'predictions',
  rollup_requests: 'request-counts',
  rollup_features: 'feature-counts',
  rollup_energy: 'energy',
  drift_watches: 'drift',
  erasures: 'erasures',
  peer_erasures: 'peer-erasures',
  erasure_requests: 'erasure-requests',
  move_devices: 'moves',
  moved_epochs: 'moved-enrolments',
} as const satisfies Record<string, RightsSection>;

/** Tables that lead to a device by another column, and the rows of which are its. */
export const followedTables = [
  {
    table: 'claims',
    section: 'claims',
    where: 'claim_id IN (SELECT claim_id FROM claim_uses WHERE device_id = ?)',
  },
  {
    table: 'rollouts',
    section: 'rollouts',
    where: 'rollout_id IN (SELECT rollout_id FROM rollout_devices WHERE device_id = ?)',
  },
  {
    table: 'rollout_history',
    section: 'rollout-history',
    where: 'rollout_id IN (SELECT rollout_id FROM rollout_devices WHERE device_id = ?)',
  },
  {
    table: 'labels',
    section: 'ground-truth',
    where: 'request IN (SELECT request FROM prediction_places WHERE device_id = ?)',
  },
  { table: 'fleet_events', section: 'events', where: 'subject = ?' },
  {
    table: 'move_orders',
    section: 'move-orders',
    where: 'move_id IN (SELECT move_id FROM move_devices WHERE device_id = ?)',
  },
] as const satisfies readonly { table: string; section: RightsSection; where: string }[];

/** Tables that know devices and are not read as they lie: by which section it comes, or why it does not. */
export const otherTables: Readonly<Record<string, string>> = {
  samples: 'section samples, with what is in their records',
  telemetry_keys: 'section telemetry-keys, without the secret halves',
  erased_keys: 'section telemetry-keys',
  audit_entries: 'section audit, without the addresses of people',
  move_arrivals:
    'the report by which it arrived, as told to the region it came from; section device has what it says',
  carried_batches:
    'on their way to another region, sealed for it: nobody here can read them, and its export has them',
  carried_inbox: 'on their way to section records: the next minute stores them',
  carried_answers: 'what was answered about batches of section telemetry-batches',
  cells: 'sums over many devices: no device is in one by name, and none is to be told from them',
  cells_withheld: 'which sums were not published',
  peer_cells: 'sums that other regions published',
  cell_members: 'digests of the ids of devices in a sum, for a week',
};
