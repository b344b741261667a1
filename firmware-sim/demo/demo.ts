// Why: the story a newcomer watches: a fleet is enrolled, a model goes out, a better one follows canary first,
// a bad one stops at the canary, and telemetry arrives. Trusts: the real programs, driven as a user would.
// Must never: do by other means what a user has a command for, or go on where a step failed.

import type { Clock } from '../../shared/kernel/ports.ts';
import { rolloutStartedSchema } from '../../shared/wire/rollouts.ts';
import { startApplication } from '../sensors/application.ts';
import { createMachine } from '../sensors/machine.ts';
import { readAgent, readFleet } from './fleet.ts';
import { type Ground, prepareGround, registryOf, type Station } from './ground.ts';
import { nextCommands } from './next-commands.ts';
import { openPlace } from './place.ts';
import { type DemoRelease, demoReleases, percent } from './releases.ts';
import { type DemoSummary, type DeviceFacts, type RolloutFacts, summarise } from './summary.ts';
import { type Stage, summaryText } from './view.ts';
import { createWitness } from './witness.ts';

export interface DemoOptions {
  /** Ends when the summary is known; else everything stays up until `signal`. */
  once: boolean;
  stage: Stage;
  clock: Clock;
  /** Asked to stop. In the middle of the story that is the fault `interrupted`. */
  signal: AbortSignal;
  /** Called with the summary while everything is still up. */
  onSummary(summary: DemoSummary): void;
}

const model = 'demo/machine-health';
const region = 'demo';
/** The machines of the story, each in another part of its life. */
const machines = [
  { name: 'press-1', seed: 11, wear: 0.1 },
  { name: 'press-2', seed: 22, wear: 0.45 },
  { name: 'press-3', seed: 33, wear: 0.7 },
] as const;
const windowEveryMs = 200;
/** A life of some ten seconds, so that each release meets every regime and their numbers can be compared. */
const wearPerWindow = 0.02;
const canaryWaves = [{ count: 1, soak: '5s' }, { percent: 100 }];
/** Answers of each device after each rollout before the story goes on. */
const answersBetween = 25;

/** Runs the whole story; resolves after everything was stopped and the folder removed. */
export async function runDemo(options: DemoOptions): Promise<DemoSummary> {
  const { clock, stage, signal } = options;
  const place = openPlace(clock);
  const ground = prepareGround({ place, clock, stage, signal });
  try {
    const summary = await tell(ground);
    ground.end(summaryText(summary));
    if (!options.once) {
      for (const { application } of ground.stations) application.resume();
      ground.end(commandsToTry(ground, summary));
    }
    options.onSummary(summary);
    if (!options.once && !signal.aborted) {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    }
    return summary;
  } finally {
    await Promise.all(ground.stations.map(({ application }) => application.stop()));
    await place.close();
  }
}

async function tell(ground: Ground): Promise<DemoSummary> {
  await startRegistry(ground);
  await startFleet(ground);
  ground.say('training on simulated machines; the third release is the second one, exported wrongly');
  const rollouts: RolloutFacts[] = [];
  for (const release of await demoReleases()) {
    rollouts.push(await rollOut(ground, release));
    const before = ground.stations.map(({ application }) => application.counts().answered);
    await ground.until('more answers of each device', () => {
      const enough = ({ application }: Station, at: number): boolean =>
        application.counts().answered - (before[at] ?? 0) >= answersBetween;
      return ground.stations.every(enough) || null;
    });
  }
  ground.say('the machines pause; what their agents wrote down goes to the registry');
  await Promise.all(ground.stations.map(({ application }) => application.pause()));
  const devices = await settledCounters(ground);
  const listed = await registryOf(ground).reader.devices();
  return summarise({
    durationMs: ground.elapsedMs(),
    agents: ground.stations.map(({ scene }) => scene.id),
    enrolled: listed.filter(({ status }) => status === 'active').map(({ id }) => id),
    rollouts,
    devices,
    rightOnLiveData: rightOnLiveData(ground.stations),
  });
}

async function startRegistry(ground: Ground): Promise<void> {
  const { place } = ground;
  ground.say('starting a registry: web API, MQTT broker and keys of its own');
  const folders = ['--data', place.path('registry'), '--region', region];
  const ports = ['--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0'];
  const daemon = await place.start('registry', 'lepton', ['serve', ...folders, ...ports], 'registry.ready');
  ground.daemons.push(daemon);
  const http = daemon.ready['http'] ?? '';
  const tokenFile = place.path('registry', 'admin.token');
  const token = place.read(tokenFile).trim();
  ground.registry = { http, token, tokenFile, reader: readFleet(http, token) };
  ground.scene.registry = http;
}

async function startFleet(ground: Ground): Promise<void> {
  const { place, clock } = ground;
  const claim = 'claim.json';
  await ground.lepton('claims', 'create', '--uses', `${machines.length}`, '--out', claim);
  ground.say(`starting ${machines.length} agents; each makes its own key and enrols with the claim`);
  ground.stations = await Promise.all(
    machines.map(async ({ name, seed, wear }): Promise<Station> => {
      const stateFolder = place.path('agents', name);
      const enrol = ['--claim', place.path(claim), '--label', `machine=${name}`];
      const run = ['run', '--state', stateFolder, '--http', '127.0.0.1:0', ...enrol];
      const daemon = await place.start(name, 'lepton-agent', run, 'agent.ready');
      ground.daemons.push(daemon);
      const agentUrl = daemon.ready['http'] ?? '';
      const machine = createMachine({ seed, wear, wearPerWindow });
      return {
        scene: { name, id: daemon.ready['device'] ?? '', view: null, application: null },
        agentUrl,
        stateFolder,
        application: startApplication({
          machine,
          name,
          agentUrl,
          model,
          everyMs: windowEveryMs,
          clock,
          fetch,
        }),
      };
    }),
  );
  ground.scene.devices = ground.stations.map(({ scene }) => scene);
  for (const { scene } of ground.stations) ground.say(`${scene.name} is device ${scene.id}`);
}

interface Serves {
  device: string;
  active: string | null;
  target: string | null;
  resting: boolean;
}

/** What each agent itself says that it serves. */
async function serving(ground: Ground): Promise<Serves[]> {
  const statuses = ground.stations.map(async ({ scene, agentUrl }): Promise<Serves> => {
    const { models } = await readAgent(agentUrl);
    const { active = null, target = null, state = 'idle' } = models[0] ?? {};
    return { device: scene.id, active, target, resting: state === 'idle' || state === 'committed' };
  });
  return Promise.all(statuses);
}

function writeRelease(ground: Ground, release: DemoRelease): { folder: string; rolloutFile: string } {
  const { place } = ground;
  const { version } = release;
  const folder = `releases/${version}`;
  place.write(place.path(folder, 'model.onnx'), release.model);
  place.write(place.path(folder, 'golden.json'), release.golden);
  place.write(place.path(folder, 'card.md'), release.card);
  const rolloutFile = `rollout-${version}.json`;
  const rollout = {
    apiVersion: 'lepton/v1',
    kind: 'Rollout',
    metadata: { name: `machine-health-${version.replaceAll('.', '-')}` },
    spec: {
      release: `${model}@${version}`,
      waves: version === '1.0.0' ? [{ percent: 100 }] : canaryWaves,
    },
  };
  place.write(place.path(rolloutFile), `${JSON.stringify(rollout, null, 2)}\n`);
  return { folder, rolloutFile };
}

async function rollOut(ground: Ground, release: DemoRelease): Promise<RolloutFacts> {
  const { version, what } = release;
  const releaseId = `${model}@${version}`;
  ground.say(`release ${version} ${what}: right on ${percent(release.accuracy)} of the windows held out`);
  const { folder, rolloutFile } = writeRelease(ground, release);
  await ground.lepton('models', 'push', folder, '--name', model, '--version', version);
  const before = await serving(ground);
  const printed = await ground.lepton('rollout', 'start', '-f', rolloutFile, '--json');
  const { id } = rolloutStartedSchema.parse(JSON.parse(printed));

  const witness = createWitness();
  const { reader } = registryOf(ground);
  const row = { what, status: await reader.rollout(id) };
  ground.scene.rollouts.push(row);
  const status = await ground.until(`the end of rollout ${id}`, async () => {
    row.status = await reader.rollout(id);
    witness.see(row.status);
    ground.showRollout(row.status);
    return ['succeeded', 'failed', 'aborted', 'paused'].includes(row.status.state) ? row.status : null;
  });
  const after = await ground.until('agents at rest', async () => {
    const now = await serving(ground);
    return now.every(({ resting }) => resting) ? now : null;
  });
  ground.say(
    `release ${version}: rollout ${status.state}${status.reason === null ? '' : `: ${status.reason}`}`,
  );
  const kept = after.filter(
    (now, at) => now.active !== null && now.active === before[at]?.active && now.target !== releaseId,
  );
  return {
    version,
    status,
    testimony: witness.testify(),
    committedBy: after.filter(({ active }) => active === releaseId).map(({ device }) => device),
    keptBefore: kept.map(({ device }) => device),
  };
}

/** Every device's counters, once all that was produced has been acknowledged and stored. */
async function settledCounters(ground: Ground): Promise<DeviceFacts[]> {
  const equal = ({ telemetry, waiting }: DeviceFacts & { waiting: number }): boolean =>
    waiting === 0 &&
    telemetry.produced === telemetry.acknowledged &&
    telemetry.acknowledged === telemetry.stored;
  return ground.until('produced, acknowledged and stored to be equal', async () => {
    const read = await counters(ground);
    return read.every(equal) ? read : null;
  });
}

async function counters(ground: Ground): Promise<(DeviceFacts & { waiting: number })[]> {
  const stored = await registryOf(ground).reader.stored();
  return Promise.all(
    ground.stations.map(async ({ scene, agentUrl, application }) => {
      // The agent's own counters: those in its reports may be some seconds old.
      const { requests, outbox } = await readAgent(agentUrl);
      const { answered, failed, firstFailure, appended, lost, waiting } = application.counts();
      return {
        device: scene.id,
        answered,
        failed,
        firstFailure,
        agentAnswered: requests.answered,
        agentFailed: requests.failed,
        telemetry: {
          produced: outbox?.producedRecords ?? 0,
          acknowledged: outbox?.acknowledgedRecords ?? 0,
          stored: stored.get(scene.id) ?? 0,
          dropped: outbox?.droppedRecords ?? 0,
        },
        appended,
        lost,
        waiting,
      };
    }),
  );
}

function rightOnLiveData(stations: readonly Station[]): Record<string, number> {
  const totals: Record<string, { answered: number; right: number }> = {};
  for (const { application } of stations) {
    for (const [version, { answered, right }] of Object.entries(application.counts().byVersion)) {
      const total = totals[version] ?? { answered: 0, right: 0 };
      totals[version] = { answered: total.answered + answered, right: total.right + right };
    }
  }
  return Object.fromEntries(
    Object.entries(totals).map(([version, { answered, right }]) => [
      version,
      Number((right / answered).toFixed(3)),
    ]),
  );
}

function commandsToTry(ground: Ground, summary: DemoSummary): string {
  const { http, tokenFile } = registryOf(ground);
  return nextCommands({
    registry: http,
    tokenFile,
    folder: ground.place.folder,
    model,
    stations: ground.stations.map(({ scene, agentUrl, stateFolder }) => ({
      id: scene.id,
      agentUrl,
      stateFolder,
    })),
    rollouts: summary.releases.map(({ rollout }) => rollout),
  });
}
