// Why: the questions that the region's policy answers to other rooms. Every answer names its rule.
// Trusts: nothing. Must never: answer yes where no rule says so.

import type { FlowClass } from '../../shared/wire/region-policy.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';

export type { FlowClass } from '../../shared/wire/region-policy.ts';

export interface Decision {
  allowed: boolean;
  /** Such as `flows/raw-stays` or `default/raw-stays`. */
  rule: string;
  /** In words, for who was refused. */
  reason: string;
}

/** A release as the policy sees it. */
export interface PolicedRelease {
  /** `NS/NAME@VERSION`. */
  releaseId: string;
  /** Bytes of its model card; null where it has none. */
  card: Uint8Array | null;
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

export interface ReleasePolicy {
  /** Whether a release may be taken and installed here: asked at push, at the start of a rollout, and when it is mirrored. */
  admits(release: PolicedRelease): Decision;
}
