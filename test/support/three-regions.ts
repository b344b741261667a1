// Why: three regions as people run them: a process each, a door each, and between every two of them a link of its own each way
// that can be cut and slowed and keeps every byte; ten devices each.
// Trusts: nothing it did not start. Must never: reach a region but through its CLI and its public APIs.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { keyPlanSchema } from '../../shared/wire/key-plan.ts';
import type { RegionsStatus } from '../../shared/wire/regions.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { makeClaim } from './fleet.ts';
import { type LightDevice, startLightDevice } from './light-fleet.ts';
import { freePort } from './mosquitto.ts';
import {
  type Daemon,
  type LeptonRunner,
  leptonRunner,
  startDaemon,
  until,
  type Workplace,
} from './processes.ts';
import { type LinkCapture, type SlowLink, slowLink } from './slow-link.ts';

export const regionNames = ['home', 'west', 'east'] as const;
export type RegionName = (typeof regionNames)[number];

export interface RegionProcess {
  name: RegionName;
  data: string;
  http: string;
  token: string;
  lepton: LeptonRunner;
  devices: LightDevice[];
  get(path: string): Promise<string>;
  status(): Promise<RegionsStatus>;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export interface ThreeRegions {
  regions: Record<RegionName, RegionProcess>;
  /** As `from` reaches `to`. */
  link(from: RegionName, to: RegionName): SlowLink;
  /** Every link of this region, both ways. */
  cut(region: RegionName, closed: boolean): void;
  /** By link, `from>to`: who asks, and who answers. */
  captured(): Map<string, LinkCapture[]>;
  /** What Node logged of the secrets of every TLS connection of the registries. */
  keyLog(): string;
}

const fast = { bytesPerSecond: null, delayMs: 0, cutEveryMs: null };

export async function openThreeRegions(place: Workplace, devicesEach: number): Promise<ThreeRegions> {
  const doors = new Map<RegionName, number>();
  for (const name of regionNames) doors.set(name, await freePort());
  const links = new Map<string, SlowLink>();
  for (const from of regionNames)
    for (const to of regionNames) {
      if (from === to) continue;
      const link = await slowLink(doors.get(to) ?? 0, links.size + 1, { capture: true });
      place.onClose(() => link.close());
      links.set(`${from}>${to}`, link);
    }
  const linkOf = (from: RegionName, to: RegionName): SlowLink => {
    const link = links.get(`${from}>${to}`);
    assert.ok(link);
    return link;
  };
  const keyLogs = new Map<RegionName, string>(
    regionNames.map((name) => [name, place.path(`${name}.keylog`)]),
  );

  async function startRegion(name: RegionName, extra: readonly string[]): Promise<RegionProcess> {
    const data = place.path(name);
    const peers = regionNames
      .filter((other) => other !== name)
      .flatMap((other) => ['--peer', `${other}=https://127.0.0.1:${linkOf(name, other).port}`]);
    let daemon: Daemon;
    const start = async (): Promise<void> => {
      daemon = await startDaemon(
        'lepton',
        [
          ...['serve', '--data', data, '--region', name, '--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0'],
          ...['--regions', `127.0.0.1:${doors.get(name)}`, '--regions-every', '1s', ...peers, ...extra],
        ],
        {
          env: { ...place.env, NODE_OPTIONS: `--tls-keylog=${keyLogs.get(name)}` },
          readyEvent: 'registry.ready',
        },
      );
      process.http = daemon.ready['http'] ?? '';
      process.token = readFileSync(`${data}/admin.token`, 'utf8').trim();
    };
    const process: RegionProcess = {
      ...{ name, data, http: '', token: '', devices: [], start },
      lepton: (args, exit) => leptonRunner(place, process, true)(args, exit),
      async get(path) {
        const answer = await fetch(`${process.http}/api/v1/${path}`, {
          headers: { authorization: `Bearer ${process.token}` },
        });
        const text = await answer.text();
        assert.equal(answer.status, 200, `${name}: ${path}: ${text}`);
        return text;
      },
      status: async () => JSON.parse(await process.get('regions')) as RegionsStatus,
      kill: async () => void (await daemon.stop('SIGKILL')),
    };
    await start();
    place.onClose(async () => void (await daemon.stop()));
    return process;
  }

  const home = await startRegion('home', []);
  async function join(name: 'west' | 'east'): Promise<RegionProcess> {
    const invitation = place.path(`${name}-invitation.json`);
    await home.lepton(['regions', 'add', name, '--out', invitation]);
    const through = `https://127.0.0.1:${linkOf(name, 'home').port}`;
    return startRegion(name, ['--invitation', invitation, '--home', through]);
  }
  const regions = { home, west: await join('west'), east: await join('east') };
  for (const region of Object.values(regions)) {
    const { name } = region;
    const claim = await makeClaim(place, region, `claim-${name}`, ['--uses', String(devicesEach)]);
    const started = Array.from({ length: devicesEach }, (_, index) =>
      startLightDevice(place, claim, `${name}-${index}`, { reportEveryMs: 5_000 }),
    );
    region.devices.push(...(await Promise.all(started)));
  }
  return {
    regions,
    link: linkOf,
    cut(region, closed) {
      for (const [name, link] of links) if (name.split('>').includes(region)) link.use({ ...fast, closed });
    },
    captured: () => new Map([...links].map(([name, link]) => [name, link.captured()])),
    keyLog: () =>
      [...keyLogs.values()].map((file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')).join('\n'),
  };
}

/** `name number` of every application record that is stored in a region, each as often as it stands there. */
export async function storedRecords(region: RegionProcess): Promise<string[]> {
  return (await region.get('telemetry?class=app'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as StoredRecord)
    .map(({ data }) => `${data['name']} ${data['number']}`)
    .sort();
}

/** Writes records as an application on the device does; what they are called. */
export async function writeRecords(
  device: LightDevice,
  name: string,
  count: number,
  text: string,
): Promise<string[]> {
  const numbers = Array.from({ length: count }, (_, number) => number);
  const body = numbers.map((number) => JSON.stringify({ data: { name, number, text } })).join('\n');
  await until(`${name} is durable`, async () => {
    const response = await fetch(`${device.http()}/telemetry/v1/records`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson' },
      body,
    });
    await response.arrayBuffer();
    return response.status === 200;
  });
  return numbers.map((number) => `${name} ${number}`);
}

/** Starts a rollout from a file with these fields of `spec`; its id. */
export async function begin(
  place: Workplace,
  region: RegionProcess,
  name: string,
  spec: object,
): Promise<string> {
  const file = place.path(`${region.name}-${name}.json`);
  writeFileSync(file, JSON.stringify({ apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name }, spec }));
  return ((await region.lepton(['rollout', 'start', '-f', file, '--json'])).json() as { id: string }).id;
}

/** Fetches a plan with new online keys by the CLI. */
export async function planOf(place: Workplace, region: RegionProcess) {
  const file = place.path(`${region.name}-plan.json`);
  await region.lepton(['keys', 'plan', '--new-online', '--out', file]);
  return keyPlanSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
}

export async function install(place: Workplace, region: RegionProcess, bundle: object): Promise<void> {
  const file = place.path(`${region.name}-bundle.json`);
  writeFileSync(file, JSON.stringify(bundle));
  await region.lepton(['keys', 'install', file]);
}

/** The key of a region's door, as a thief of its folder has it. */
export const doorKeyOf = (region: RegionProcess): string =>
  readFileSync(`${region.data}/keys/region-door.pem`, 'utf8');
