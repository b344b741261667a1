// Why: the two hardest promises of delivery, at any size: through a link that is slow, far and cut again and again a
// release costs hardly more than its delta, and kill -9 at any moment costs hardly anything.
// Trusts: rough-scene.ts. Must never: pass without a cut or a kill.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { workplace } from '../support/processes.ts';
import type { LinkTerms } from '../support/slow-link.ts';
import { onTheWay, open, roughScene } from './rough-scene.ts';

export interface LinkOutcome {
  deltaBytes: number;
  down: number;
  up: number;
  cuts: number;
  seconds: number;
}

/** The second release over this link, where the first one is there. */
export async function overLink(
  terms: LinkTerms,
  models: [string, string],
  seed: number,
): Promise<LinkOutcome> {
  const place = workplace('rough-link');
  try {
    const scene = await roughScene(place, seed);
    const { link } = scene;
    await scene.pushed(models[0], 'acme/model@1.0.0');
    await scene.installs('acme/model@1.0.0', 120_000);
    await scene.pushed(models[1], 'acme/model@2.0.0');
    const deltaBytes = await scene.deltaBytes('acme/model@2.0.0', 'acme/model@1.0.0');
    const before = link.carried();
    const cutsBefore = link.cuts();
    const began = performance.now();
    link.use(terms);
    await scene.installs('acme/model@2.0.0', 900_000);
    const after = link.carried();
    const cuts = link.cuts() - cutsBefore;
    link.use(open);
    return {
      deltaBytes,
      down: after.down - before.down,
      up: after.up - before.up,
      cuts,
      seconds: (performance.now() - began) / 1_000,
    };
  } finally {
    await place.close();
  }
}

export interface KillOutcome {
  kills: number;
  killsInRebuild: number;
  cuts: number;
  /** That the link carried to the device, and what the files have that were fetched. */
  down: number;
  onceBytes: number;
  /** What the agents said of it. */
  told: string[];
}

export interface KillTerms {
  models: [string, string];
  /** Of the first release's download, and around the second's download and rebuild. */
  kills: [number, number];
  /** Under the first and under the second release. */
  links: [LinkTerms, LinkTerms];
  seed: number;
}

/** Both releases, with kill -9 of the agent at random moments. */
export async function withKills(terms: KillTerms): Promise<KillOutcome> {
  const { models, links } = terms;
  const place = workplace('rough-kills');
  let state = terms.seed;
  const draw = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
  try {
    const scene = await roughScene(place, terms.seed);
    const { agent, link } = scene;
    link.use(links[0]);
    let kills = 0;
    let killsInRebuild = 0;
    const told: string[] = [];
    const kill = async (): Promise<void> => {
      if (onTheWay(agent.state).rebuilding) killsInRebuild += 1;
      await agent.daemon.stop('SIGKILL');
      kills += 1;
      remember();
      await agent.restart();
    };
    const remember = (): void => {
      for (const line of agent.daemon.events())
        if (/^(fetch|update|agent)\./.test(String(line['event']))) told.push(JSON.stringify(line));
      told.push('');
    };
    const before = link.carried();
    await scene.pushed(models[0], 'acme/model@1.0.0');
    const size = await scene.compressedBytes('acme/model@1.0.0');
    let left = terms.kills[0];
    await scene.installs('acme/model@1.0.0', 900_000, async () => {
      // At a random place of each part of the file.
      const part = (terms.kills[0] - left + draw()) / Math.max(1, terms.kills[0]);
      if (left > 0 && onTheWay(agent.state).bytes >= Math.min(0.98, part) * size) {
        left -= 1;
        await kill();
      }
      await pause(5);
    });
    await scene.pushed(models[1], 'acme/model@2.0.0');
    const deltaBytes = await scene.deltaBytes('acme/model@2.0.0', 'acme/model@1.0.0');
    link.use(links[1]);
    let second = terms.kills[1];
    await scene.installs('acme/model@2.0.0', 900_000, async () => {
      const now = onTheWay(agent.state);
      // Half of them in the download of the delta, half in the rebuild.
      const isDue =
        second > terms.kills[1] / 2
          ? now.bytes > ((terms.kills[1] - second + draw()) / terms.kills[1]) * deltaBytes
          : now.rebuilding;
      if (second > 0 && isDue) {
        second -= 1;
        if (now.rebuilding) await pause(draw() * 300);
        await kill();
      }
      await pause(5);
    });
    remember();
    assert.equal(left + second, 0, `${left} and ${second} kills came to nothing\n${told.join('\n')}`);
    const down = link.carried().down - before.down;
    return { kills, killsInRebuild, cuts: link.cuts(), down, onceBytes: size + deltaBytes, told };
  } finally {
    await place.close();
  }
}
