// Why: what may leave a region of which nobody wrote a policy: nothing raw, and what the regions need to work together.
// Trusts: nothing. Must never: let raw telemetry out.

import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import type { RegionPolicies } from './flows.ts';

const raw: readonly string[] = telemetryClasses;

export function policiesWithoutFile(region: string): RegionPolicies {
  return {
    flow: (flow, destination) =>
      destination === region
        ? { allowed: true, rule: 'default/own-region', reason: 'it stays in its region' }
        : raw.includes(flow)
          ? {
              allowed: false,
              rule: 'default/raw-stays',
              reason: `raw telemetry (${flow}) stays in ${region}`,
            }
          : { allowed: true, rule: `default/${flow}`, reason: 'regions need it to work together' },
    cellDevicesMin: () => 5,
    retentionMs: () => ({ ms: null, rule: 'default/kept' }),
    count: async () => undefined,
  };
}
