// Why: what it costs a region to mirror a catalogue of 100 releases, to look whether there is news, and to take one more,
// beside `rsync` of the same files over its own protocol in the same run, through the same link.
// Trusts: the real registries in processes of their own; rsync's daemon. Must never: count bytes that only one of them was asked for.

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { startRegistry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { RegionsStatus } from '../../shared/wire/regions.ts';
import { identityModel, once, preparePush } from '../registry-core/support.ts';
import { freePort } from '../support/mosquitto.ts';
import {
  type Daemon,
  leptonRunner,
  startDaemon,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';
import { type SlowLink, slowLink } from '../support/slow-link.ts';

const releases = 100;
const modelBytes = 500_000;
const quietMs = 20_000;
const dayMs = 86_400_000;
const signer = signerFromSeed(systemEntropy.bytes(32), 'node');
const loopback = { host: '127.0.0.1', port: 0 };

/** Grows by its releases: each is signed after the one before. */
interface Catalogue {
  count: number;
  current: Uint8Array | null;
}

/** Opens the home's folder in this process, pushes, and closes it. */
async function pushMore(data: string, catalogue: Catalogue, more: number): Promise<void> {
  const home = await startRegistry({
    ...{ dataFolder: data, region: 'home', http: loopback, mqtt: loopback, encoder: null, version: 'bench' },
    ...{ clock: systemClock, entropy: systemEntropy, log: openLog({ level: 'error' }) },
  });
  const { repository, blobs, releases: desk } = home.parts;
  if (catalogue.count === 0)
    unwrap(await repository.delegate('acme', [Buffer.from(signer.publicKey).toString('hex')], 1));
  for (let made = 0; made < more; made += 1) {
    catalogue.count += 1;
    const model = identityModel(Buffer.from(systemEntropy.bytes((modelBytes * 3) / 4)).toString('base64'));
    const push = preparePush({
      releaseId: `acme/model@1.${catalogue.count}.0`,
      ...{ model, current: catalogue.current, counter: catalogue.count, signers: [signer] },
      expiresAtMs: systemClock.wall() + 90 * dayMs,
    });
    unwrap(await blobs.put(sha256Hex(model), once(model)));
    unwrap(await desk.push(push));
    catalogue.current = push.metadata;
  }
  await home.stop();
}

interface Region {
  daemon: Daemon;
  http: string;
  token: string;
}

async function startRegion(place: Workplace, name: string, extra: readonly string[]): Promise<Region> {
  const data = place.path(name);
  const daemon = await startDaemon(
    'lepton',
    ['serve', '--data', data, '--region', name, '--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0', ...extra],
    { env: place.env, readyEvent: 'registry.ready' },
  );
  place.onClose(async () => void (await daemon.stop()));
  const token = readFileSync(join(data, 'admin.token'), 'utf8').trim();
  return { daemon, http: daemon.ready['http'] ?? '', token };
}

async function asked<T>({ http, token }: Region, path: string): Promise<T> {
  const answer = await fetch(`${http}/api/v1/${path}`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(answer.status, 200, path);
  return (await answer.json()) as T;
}

/** All of it is there and verified. */
const hasAll = (region: Region, count: number): Promise<boolean> =>
  until(
    `${count} releases are mirrored`,
    async () => {
      const [model] = await asked<{ versions: object[] }[]>(region, 'models');
      const { catalogue } = await asked<RegionsStatus>(region, 'regions');
      return model?.versions.length === count && catalogue.wanted === 0;
    },
    300_000,
  );

const bytesOf = (link: SlowLink): number => link.carried().down + link.carried().up;

async function measured<T>(
  link: SlowLink,
  work: () => Promise<T>,
): Promise<{ bytes: number; ms: number; result: T }> {
  const before = bytesOf(link);
  const beganMs = performance.now();
  const result = await work();
  return { bytes: bytesOf(link) - before, ms: performance.now() - beganMs, result };
}

/** The files as a web server would have them: blobs, and the metadata in force. */
async function exportFiles(data: string, home: Region, folder: string): Promise<void> {
  cpSync(join(data, 'blobs'), join(folder, 'blobs'), { recursive: true, preserveTimestamps: true });
  mkdirSync(join(folder, 'metadata'), { recursive: true });
  const get = async (name: string): Promise<Buffer> => {
    const answer = await fetch(`${home.http}/api/v1/metadata/${name}`, {
      headers: { authorization: `Bearer ${home.token}` },
    });
    assert.equal(answer.status, 200, name);
    const bytes = Buffer.from(await answer.arrayBuffer());
    writeFileSync(join(folder, 'metadata', name), bytes);
    return bytes;
  };
  const versionOf = (bytes: Buffer, of: string): number => {
    const { signed } = JSON.parse(bytes.toString()) as {
      signed: { meta: Record<string, { version: number }> };
    };
    return signed.meta[of]?.version ?? 0;
  };
  const timestamp = await get('timestamp.json');
  const snapshot = await get(`${versionOf(timestamp, 'snapshot.json')}.snapshot.json`);
  for (const of of ['targets.json', 'acme.json']) await get(`${versionOf(snapshot, of)}.${of}`);
}

async function rsyncDaemon(place: Workplace, folder: string): Promise<number> {
  const port = await freePort();
  const file = place.path('rsyncd.conf');
  writeFileSync(
    file,
    `use chroot = no\naddress = 127.0.0.1\nport = ${port}\nlog file = ${place.path('rsyncd.log')}\nuid = ${process.getuid?.() ?? 0}\ngid = ${process.getgid?.() ?? 0}\n[files]\npath = ${folder}\nread only = yes\n`,
  );
  const daemon = spawn('rsync', ['--daemon', '--no-detach', `--config=${file}`], { stdio: 'ignore' });
  place.onClose(async () => {
    const ended = new Promise((resolve) => daemon.once('close', resolve));
    daemon.kill();
    await ended;
  });
  await until(
    'rsync listens',
    () =>
      new Promise<boolean>((resolve) => {
        const socket = connect(port, '127.0.0.1');
        socket.once('connect', () => socket.end(() => resolve(true))).once('error', () => resolve(false));
      }),
  );
  return port;
}

const runRsync = (port: number, into: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn('rsync', ['-a', '--delete', `rsync://127.0.0.1:${port}/files/`, `${into}/`], {
      stdio: 'ignore',
    });
    child.once('error', reject);
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`rsync ended with ${code}`))));
  });

export async function benchMirror(): Promise<object> {
  if (spawnSync('rsync', ['--version']).status !== 0)
    throw new Error('rsync is needed: apt-get install rsync');
  const place = workplace('mirror-bench');
  try {
    const data = place.path('home');
    const catalogue: Catalogue = { count: 0, current: null };
    await pushMore(data, catalogue, releases);
    const door = await freePort();
    const doorFlags = ['--regions', `127.0.0.1:${door}`];
    const link = await slowLink(door, 1);
    place.onClose(() => link.close());
    let home = await startRegion(place, 'home', doorFlags);
    const invitation = place.path('invitation.json');
    await leptonRunner(place, home)(['regions', 'add', 'west', '--out', invitation]);
    const through = `https://127.0.0.1:${link.port}`;
    // Its own first start, keys and all, is part of it.
    const first = await measured(link, async () => {
      const started = await startRegion(place, 'west', [
        ...['--invitation', invitation, '--home', through, '--peer', `home=${through}`],
        ...['--regions', '127.0.0.1:0'],
      ]);
      await hasAll(started, releases);
      return started;
    });
    const west = first.result;
    const quiet = await measured(link, () => systemClock.timer(quietMs).done);

    const folder = place.path('files');
    await exportFiles(data, home, folder);
    const rsyncLink = await slowLink(await rsyncDaemon(place, folder), 2);
    place.onClose(() => rsyncLink.close());
    const into = place.path('rsynced');
    const rsyncFirst = await measured(rsyncLink, () => runRsync(rsyncLink.port, into));
    const rsyncQuiet = await measured(rsyncLink, () => runRsync(rsyncLink.port, into));

    await home.daemon.stop();
    await pushMore(data, catalogue, 1);
    const one = await measured(link, async () => {
      home = await startRegion(place, 'home', doorFlags);
      await hasAll(west, releases + 1);
    });
    await exportFiles(data, home, folder);
    const rsyncOne = await measured(rsyncLink, () => runRsync(rsyncLink.port, into));
    const rounds = Math.round(quietMs / 5_000);
    const fileBytes = Number(execFileSync('du', ['-sb', folder], { encoding: 'utf8' }).split('\t')[0]);
    const ratio = (ours: number, theirs: number): number => ours / theirs;
    return {
      releases,
      fileBytes,
      first: {
        ...{ bytes: first.bytes, ms: first.ms, rsyncBytes: rsyncFirst.bytes, rsyncMs: rsyncFirst.ms },
        ...{ bytesRatio: ratio(first.bytes, rsyncFirst.bytes), msRatio: ratio(first.ms, rsyncFirst.ms) },
        bytesBesideFiles: ratio(first.bytes, fileBytes),
      },
      /** One look where nothing is new, with all lists that regions pull; rsync's look at every file. */
      look: {
        ...{ bytes: quiet.bytes / rounds, rsyncBytes: rsyncQuiet.bytes },
        bytesRatio: ratio(quiet.bytes / rounds, rsyncQuiet.bytes),
      },
      oneMore: {
        ...{ bytes: one.bytes, rsyncBytes: rsyncOne.bytes, bytesRatio: ratio(one.bytes, rsyncOne.bytes) },
      },
    };
  } finally {
    await place.close();
  }
}
