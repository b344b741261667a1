// Why: the questions that the region's policy answers to other rooms. Every answer names its rule.
// Trusts: nothing. Must never: answer yes where no rule says so.

import type { TelemetryClass } from '../../shared/wire/telemetry.ts';

/** What may leave a region: raw telemetry by class, and what is made of it or beside it. */
export type FlowClass =
  | TelemetryClass
  | 'catalogue'
  | 'cells'
  | 'rollout-progress'
  | 'rollout-orders'
  | 'audit-heads'
  | 'erasures'
  | 'carried';

export interface Decision {
  allowed: boolean;
  /** Such as `flows/raw-stays` or `default/raw-stays`. */
  rule: string;
  /** In words, for who was refused. */
  reason: string;
}

export interface RegionPolicies {
  /** Whether data of that class may go to `destination`, a region's name; this region itself is always allowed. */
  flow(flow: FlowClass, destination: string): Decision;
  /** Devices that a published cell must be made of at least (k). */
  cellDevicesMin(): number;
  /** How long raw telemetry of a class is kept; null: until it is erased. */
  retentionMs(telemetryClass: TelemetryClass): { ms: number | null; rule: string };
  /** Meters what went, for the residency report; inside or outside of a transaction of the caller. */
  count(went: {
    flow: FlowClass;
    destination: string;
    decision: Decision;
    bytes: number;
    records: number;
  }): Promise<void>;
}
