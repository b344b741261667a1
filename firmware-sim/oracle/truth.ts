// Why: what really happened in a world, as no single node knows it: what was signed, assigned and recorded. The oracles
// judge by it. Trusts: what registries publish and publishers sign. Must never: be asked by a node.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { World } from '../world.ts';

export interface Truth {
  /** A registry has published this assignment for the device. */
  issued(
    deviceId: string,
    epoch: number,
    payload: Uint8Array,
    releases: { as: string; manifestSha256: string }[],
    expiresAtMs: number,
  ): void;
  isIssued(deviceId: string, payloadSha256: string): boolean;
  /** Until when an assignment with this payload holds, Unix milliseconds; undefined: no registry issued it. */
  expiryOf(payloadSha256: string): number | undefined;
  everAssigned(deviceId: string, as: string, manifestSha256: string): boolean;
  /** From here on one number may have been given twice: a registry came back from a backup, or runs twice. */
  forked(): void;
  isForked(): boolean;
  /** Somebody changes what is on its way: what arrives need not be what was sent. */
  tampered(): void;
  isTampered(): boolean;
  /** A device was moved to another site: where it was when something was decided is not known from then on. */
  relabelled(): void;
  isRelabelled(): boolean;
  /** The application of a node was told that this record is durable. */
  answered(node: string, id: string): void;
  answeredBy(node: string): readonly string[];
}

export function createTruth(world: World): Truth {
  const payloads = new Map<string, string>();
  const known = new Set<string>();
  const assigned = new Set<string>();
  const records = new Map<string, string[]>();
  const expiries = new Map<string, number>();
  let forks = false;
  let changes = false;
  let labels = false;
  return {
    issued(deviceId, epoch, payload, releases, expiresAtMs) {
      const sha256 = sha256Hex(payload);
      const key = `${deviceId} ${epoch}`;
      const before = payloads.get(key);
      if (before !== undefined && before !== sha256 && !forks) {
        world.violate(`two assignments of ${deviceId.slice(0, 8)} have the epoch ${epoch}`);
      }
      payloads.set(key, sha256);
      known.add(`${deviceId} ${sha256}`);
      expiries.set(sha256, expiresAtMs);
      for (const { as, manifestSha256 } of releases) assigned.add(`${deviceId} ${as} ${manifestSha256}`);
    },
    isIssued: (deviceId, sha256) => known.has(`${deviceId} ${sha256}`),
    expiryOf: (sha256) => expiries.get(sha256),
    everAssigned: (deviceId, as, manifestSha256) => assigned.has(`${deviceId} ${as} ${manifestSha256}`),
    forked: () => {
      forks = true;
    },
    isForked: () => forks,
    tampered: () => {
      changes = true;
    },
    isTampered: () => changes,
    relabelled: () => {
      labels = true;
    },
    isRelabelled: () => labels,
    answered: (node, id) => {
      const ids = records.get(node) ?? [];
      ids.push(id);
      records.set(node, ids);
    },
    answeredBy: (node) => records.get(node) ?? [],
  };
}
