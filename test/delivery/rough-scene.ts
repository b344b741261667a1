// Why: one device behind a link of the test's own, a real registry and a real agent, and what a release costs it: with
// cuts, and with kill -9 of the agent at any moment. Trusts: the link for what it carried.
// Must never: end a process that it did not start, or count less than what went over the link.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DeviceView, ModelView } from '../../shared/wire/http.ts';
import { makeClaim, pushModel, startRollout } from '../support/fleet.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  until,
  type Workplace,
} from '../support/processes.ts';
import { type LinkTerms, type SlowLink, slowLink } from '../support/slow-link.ts';

export interface RoughScene {
  place: Workplace;
  registry: TestRegistry;
  agent: TestAgent;
  link: SlowLink;
  pushed(model: string, releaseId: string): Promise<void>;
  /** Bytes of the smallest file by which a device that holds that release gets the other. */
  deltaBytes(releaseId: string, from: string): Promise<number>;
  /** Bytes of the smallest file by which a device that holds nothing gets it. */
  compressedBytes(releaseId: string): Promise<number>;
  /** Rolls it out and waits until this device has committed it. */
  installs(releaseId: string, timeoutMs: number, meanwhile?: () => Promise<void>): Promise<void>;
}

export const open: LinkTerms = { bytesPerSecond: null, delayMs: 0, cutEveryMs: null };

export async function roughScene(
  place: Workplace,
  seed: number,
  agentFlags: string[] = [],
): Promise<RoughScene> {
  const registry = await startTestRegistry(place);
  const link = await slowLink(Number(new URL(registry.mqtt).port), seed);
  place.onClose(() => link.close());
  const claimFile = await makeClaim(place, registry);
  const claim = JSON.parse(readFileSync(claimFile, 'utf8')) as Record<string, unknown>;
  writeFileSync(claimFile, JSON.stringify({ ...claim, brokerUrl: `mqtts://127.0.0.1:${link.port}` }));
  const agent = await startTestAgent(place, claimFile, 'agent', agentFlags);

  // Not by the CLI: a process each time would be half of the machine's work.
  const shown = async (): Promise<DeviceView> => {
    const answer = await fetch(`${registry.http}/api/v1/devices/${agent.id}`, {
      headers: { authorization: `Bearer ${registry.token}` },
    });
    return (await answer.json()) as DeviceView;
  };

  const versionOf = async (releaseId: string): Promise<ModelView['versions'][number] | undefined> => {
    const [name = '', version = ''] = releaseId.split('@');
    const model = (await registry.lepton(['models', 'show', name, '--json'])).json() as ModelView;
    return model.versions.find((one) => one.version === version);
  };

  return {
    place,
    registry,
    agent,
    link,
    pushed: async (model, releaseId) => {
      await pushModel(registry, model, releaseId);
    },
    deltaBytes: (releaseId, from) =>
      until(`a delta from ${from} to ${releaseId}`, async () => {
        const deltas = (await versionOf(releaseId))?.deltas ?? [];
        return deltas.find((one) => from.endsWith(`@${one.from}`))?.bytes;
      }),
    compressedBytes: (releaseId) =>
      until(`${releaseId} is compressed`, async () => (await versionOf(releaseId))?.compressedBytes),
    installs: async (releaseId, timeoutMs, meanwhile) => {
      const id = await startRollout(place, registry, releaseId);
      let over = false;
      const rough = (async () => {
        while (!over && meanwhile !== undefined) await meanwhile();
      })();
      try {
        await until(
          `${releaseId} is committed`,
          async () => {
            const [model] = (await shown()).models;
            assert.notEqual(model?.state, 'rolling-back', JSON.stringify(model?.reason));
            return model?.active === releaseId && model.state === 'committed';
          },
          timeoutMs,
        );
      } finally {
        over = true;
        await rough;
      }
      await registry.lepton(['rollout', 'watch', id]);
    },
  };
}

/** What of a release is on its way on this device: bytes fetched so far, and whether a file is being rebuilt. */
export function onTheWay(state: string): { bytes: number; rebuilding: boolean } {
  const folder = join(state, 'blobs');
  if (!existsSync(folder)) return { bytes: 0, rebuilding: false };
  const names = readdirSync(folder);
  const sizes = names
    .filter((name) => name.endsWith('.unverified'))
    .map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0);
  return { bytes: Math.max(0, ...sizes), rebuilding: names.some((name) => name.endsWith('.rebuilt')) };
}
