// Why: the promise of the outbox under everything at once: agents and registry killed at random, links cut with whatever
// was on them, acknowledgements lost; then every answered record is stored once, or was counted as dropped.
// Trusts: the application's own note of what was answered. Must never: end a process kindly where it says kill -9.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { chance } from '../support/chance.ts';
import { makeClaim } from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import { freePort, type Mosquitto, startMosquitto } from '../support/mosquitto.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  until,
  workplace,
} from '../support/processes.ts';
import { type SlowLink, slowLink } from '../support/slow-link.ts';

export interface ChaosTerms {
  agents: number;
  /** All agents together. */
  records: number;
  recordsPerRequest: number;
  kills: number;
  /** Between two of them, on average. */
  killEveryMs: number;
  seed: number;
  /** On which the fleet speaks; mosquitto is killed as well. */
  broker: 'embedded' | 'mosquitto';
  say?(line: string): void;
}

export interface ChaosOutcome {
  agentKills: number;
  registryKills: number;
  brokerKills: number;
  cuts: number;
  answered: number;
  stored: number;
  lost: number;
  duplicated: number;
  dropped: number;
  /** Batches that came again, as the registries that are alive counted them. */
  repeated: number;
  seconds: number;
}

/** An application: what was not answered is written again under a new number, so that a number is one record. */
class Writer {
  readonly answered = new Set<number>();
  private next = 0;
  private readonly agent: TestAgent;
  private readonly perRequest: number;

  constructor(agent: TestAgent, perRequest: number) {
    this.agent = agent;
    this.perRequest = perRequest;
  }

  /** At least so many, and as long as anybody is killed. */
  async write(count: number, pauseMs: () => number, goesOn: () => boolean): Promise<void> {
    while (this.answered.size < count || goesOn()) {
      const numbers = Array.from({ length: this.perRequest }, () => this.next++);
      const body = numbers.map((number) => JSON.stringify({ number })).join('\n');
      try {
        const response = await fetch(`${this.agent.http}/telemetry/v1/records`, {
          method: 'POST',
          body,
          signal: AbortSignal.timeout(15_000),
        });
        await response.arrayBuffer();
        if (response.status === 200) for (const number of numbers) this.answered.add(number);
        await pause(pauseMs());
      } catch (error) {
        // The agent is down: nothing of this request was answered.
        if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
        await pause(100);
      }
    }
  }
}

interface Place {
  registry: TestRegistry;
  mosquitto: Mosquitto | null;
  agents: { agent: TestAgent; link: SlowLink; writer: Writer }[];
}

async function opened(at: ReturnType<typeof workplace>, terms: ChaosTerms): Promise<Place> {
  const own = terms.broker === 'mosquitto' ? await freePort() : null;
  const extra = own === null ? [] : ['--broker', `mqtts://127.0.0.1:${own}`];
  const registry = await startTestRegistry(at, 'registry', extra);
  let mosquitto: Mosquitto | null = null;
  if (own !== null) {
    const files = at.path('mosquitto');
    await registry.lepton(['broker', 'files', '--out', files]);
    mosquitto = await startMosquitto(at, files, own);
  }
  const port = Number(new URL(registry.mqtt).port);
  const agents: Place['agents'] = [];
  for (let number = 1; number <= terms.agents; number += 1) {
    const link = await slowLink(port, terms.seed + number);
    at.onClose(() => link.close());
    const claimFile = await makeClaim(at, registry);
    const claim = JSON.parse(readFileSync(claimFile, 'utf8')) as Record<string, unknown>;
    writeFileSync(claimFile, JSON.stringify({ ...claim, brokerUrl: `mqtts://127.0.0.1:${link.port}` }));
    const agent = await startTestAgent(at, claimFile, `agent-${number}`);
    agents.push({ agent, link, writer: new Writer(agent, terms.recordsPerRequest) });
  }
  return { registry, mosquitto, agents };
}

/** Stored records of one device, by number. */
async function storedOf(registry: TestRegistry, deviceId: string): Promise<Map<number, number>> {
  const counts = new Map<number, number>();
  const answer = await fetch(`${registry.http}/api/v1/telemetry?class=app&device=${deviceId}`, {
    headers: { authorization: `Bearer ${registry.token}` },
  });
  assert.equal(answer.status, 200);
  for (const line of (await answer.text()).split('\n')) {
    if (line === '') continue;
    const number = (JSON.parse(line) as StoredRecord).data['number'];
    if (typeof number === 'number') counts.set(number, (counts.get(number) ?? 0) + 1);
  }
  return counts;
}

async function repeatedAt(registry: TestRegistry): Promise<number> {
  const answer = await fetch(`${registry.http}/metrics`, {
    headers: { authorization: `Bearer ${registry.token}` },
  });
  const found = /lepton_telemetry_batches_total\{outcome="repeated"\} (\d+)/.exec(await answer.text());
  return Number(found?.[1] ?? 0);
}

export async function chaos(terms: ChaosTerms): Promise<ChaosOutcome> {
  const at = workplace('chaos');
  const next = chance(terms.seed);
  // Who is killed has dice of its own: the writers take theirs as their requests end, so never in the same order.
  const victim = chance(terms.seed ^ 0x5eed);
  const began = performance.now();
  try {
    const { registry, mosquitto, agents } = await opened(at, terms);
    const outcome: ChaosOutcome = {
      ...{
        agentKills: 0,
        registryKills: 0,
        brokerKills: 0,
        cuts: 0,
        answered: 0,
        stored: 0,
        lost: 0,
        duplicated: 0,
      },
      ...{ dropped: 0, repeated: 0, seconds: 0 },
    };
    const perAgent = Math.ceil(terms.records / terms.agents);
    // As fast as makes the writing last as long as the killing.
    const requests = perAgent / terms.recordsPerRequest;
    const pauseMs = (): number => (2 * next() * terms.kills * terms.killEveryMs) / requests;
    let killing = true;
    const writing = Promise.all(agents.map(({ writer }) => writer.write(perAgent, pauseMs, () => killing)));
    // A writer that fails must not wait for the last kill.
    writing.catch(() => undefined);
    for (const { link } of agents)
      link.use({ bytesPerSecond: null, delayMs: 5, cutEveryMs: 3 * terms.killEveryMs });

    const restarts: Promise<void>[] = [];
    let registryIsDown = false;
    for (let kill = 0; kill < terms.kills; kill += 1) {
      await pause(2 * next() * terms.killEveryMs);
      if (mosquitto !== null && victim() < 0.2) {
        await mosquitto.kill();
        outcome.brokerKills += 1;
        await pause(1_000 * next());
        await mosquitto.start();
      } else if (victim() < 0.3 && !registryIsDown) {
        registryIsDown = true;
        outcome.repeated += await repeatedAt(registry).catch(() => 0);
        await registry.daemon.stop('SIGKILL');
        outcome.registryKills += 1;
        restarts.push(
          pause(2_000 * next()).then(async () => {
            await registry.restart();
            registryIsDown = false;
          }),
        );
      } else {
        const one = agents[Math.floor(victim() * agents.length)];
        assert.ok(one);
        await one.agent.daemon.stop('SIGKILL');
        outcome.agentKills += 1;
        await one.agent.restart();
      }
      if ((kill + 1) % 20 === 0)
        terms.say?.(
          `${kill + 1} kills, ${agents.reduce((sum, { writer }) => sum + writer.answered.size, 0)} records answered`,
        );
    }
    await Promise.all(restarts);
    killing = false;
    for (const { link } of agents) link.use({ bytesPerSecond: null, delayMs: 0, cutEveryMs: null });
    await writing;

    for (const { agent, link, writer } of agents) {
      const { droppedRecords } = await until(
        `the outbox of ${agent.id} is empty`,
        async () => {
          const { outbox } = await deviceNow(registry, agent.id);
          const { producedRecords, acknowledgedRecords, droppedRecords: dropped, pendingBatches } = outbox;
          const settled = producedRecords === acknowledgedRecords + dropped;
          return pendingBatches === 0 && settled && producedRecords >= writer.answered.size ? outbox : null;
        },
        300_000,
      );
      const counts = await storedOf(registry, agent.id);
      outcome.cuts += link.cuts();
      outcome.answered += writer.answered.size;
      outcome.stored += counts.size;
      outcome.dropped += droppedRecords;
      outcome.lost += [...writer.answered].filter((number) => !counts.has(number)).length;
      outcome.duplicated += [...counts.values()].filter((count) => count > 1).length;
    }
    outcome.repeated += await repeatedAt(registry);
    outcome.seconds = (performance.now() - began) / 1_000;
    return outcome;
  } finally {
    await at.close();
  }
}
