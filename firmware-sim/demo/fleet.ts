// Why: what the demo knows of its fleet, read through the registry's public API and the agents' own.
// Trusts: the same client that the CLI uses, and its schemas. Must never: read a database or file of theirs.

import { type AgentStatus, agentStatusSchema } from '../../agent/status.ts';
import { connect } from '../../registry/cli/client.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type DeviceView, deviceSchema, telemetryCountsSchema } from '../../shared/wire/http.ts';
import { type RolloutStatus, rolloutStatusSchema } from '../../shared/wire/rollouts.ts';

export interface FleetReader {
  devices(): Promise<DeviceView[]>;
  rollout(id: string): Promise<RolloutStatus>;
  /** Telemetry records that the registry holds, by device. */
  stored(): Promise<Map<string, number>>;
}

export function readFleet(registry: string, token: string): FleetReader {
  const client = connect({ registry, token });
  return {
    devices: () => client.get('/api/v1/devices', deviceSchema.array()),
    rollout: (id) => client.get(`/api/v1/rollouts/${encodeURIComponent(id)}`, rolloutStatusSchema),
    stored: async () => {
      const counts = await client.get('/api/v1/telemetry/counts', telemetryCountsSchema.array());
      return new Map(counts.map(({ device, records }) => [device, records]));
    },
  };
}

/** What an agent says about itself. Fault: `demo-failed`. */
export async function readAgent(url: string): Promise<AgentStatus> {
  const response = await fetch(`${url}/status`);
  const parsed = agentStatusSchema.safeParse(await response.json());
  if (!parsed.success)
    throw new FleetError('demo-failed', `the agent at ${url} answered something else than its status`);
  return parsed.data;
}
