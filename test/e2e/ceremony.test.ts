// Why: the printed instructions are the whole ceremony: in a clean folder only the commands that `lepton keys
// ceremony` prints are run, and devices that were there before follow every step without a visit.
// Trusts: the real programs. Must never: help a printed command along.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { agentMigrations } from '../../agent/daemon.ts';
import { type Authority, openAuthority } from '../../agent/trust/authority.ts';
import { createKeeper } from '../../agent/trust/keeper.ts';
import { createMetadataSources } from '../../agent/trust/refresh.ts';
import { createSecondCopy, readCopy } from '../../agent/trust/second-copy.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { makeTimestamp, parseTimestampFile } from '../../shared/trust/tuf/repository.ts';
import type { DeviceView, KeysInstalled, KeysStatus } from '../../shared/wire/http.ts';
import { heardLog } from '../registry-core/support.ts';
import { modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { makeClaim, pushModel, rollOut } from '../support/fleet.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';
import { programs } from '../support/programs.ts';

const dayMs = 86_400_000;

/** Runs a line as a person at a shell would. */
function shell(line: string, cwd: string, env: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', line], {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
    });
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(out) : reject(new Error(`$ ${line}\n${out}\n${err}`))));
  });
}

/** A clean folder with `lepton` on the PATH and nothing else. */
function office(
  place: Workplace,
  registry: TestRegistry,
): { folder: string; run(line: string): Promise<string> } {
  const bin = place.path('bin');
  const folder = place.path('office');
  for (const path of [bin, folder]) mkdirSync(path);
  symlinkSync(programs.lepton, join(bin, 'lepton'));
  const env = {
    ...place.env,
    PATH: `${bin}:${process.env['PATH'] ?? ''}`,
    LEPTON_REGISTRY: registry.http,
    LEPTON_TOKEN: registry.token,
    LEPTON_PASSPHRASE: 'a passphrase of the test',
  };
  return { folder, run: (line) => shell(line, folder, env) };
}

/** By HTTP: another process for every look would be most of what this test costs. */
async function ask<T>(registry: TestRegistry, path: string): Promise<T> {
  const response = await fetch(`${registry.http}${path}`, {
    headers: { authorization: `Bearer ${registry.token}` },
  });
  assert.equal(response.status, 200, path);
  return (await response.json()) as T;
}

/** A device as it stands on its disk, in front of a registry that lies. */
async function copiedDevice(
  place: Workplace,
  agent: TestAgent,
  fetchMetadata: (name: string) => Promise<Result<Uint8Array>>,
): Promise<Authority> {
  const copy = place.path(`copy-${readdirSync(place.folder).length}`);
  cpSync(agent.state, copy, { recursive: true });
  const store = await openStore(join(copy, 'state.sqlite'), {
    synchronous: 'FULL',
    migrations: agentMigrations,
  });
  place.onClose(() => store.close());
  const disk = openDisk(copy);
  const kept = await readCopy(disk);
  assert.ok(typeof kept === 'object', 'the second copy is whole');
  const log = heardLog();
  return openAuthority({
    keeper: createKeeper(store, createSecondCopy(disk, kept)),
    region: 'eu-west',
    deviceId: agent.id,
    sources: createMetadataSources({
      fetch: async (target) =>
        target.kind === 'metadata'
          ? fetchMetadata(target.name)
          : refuse('metadata-missing', 'nothing but metadata here'),
      deflate: systemDeflate,
      log,
    }),
    giveBack: () => undefined,
    clock: systemClock,
    log,
  });
}

const keyIn = (path: string): Signer =>
  signerFromSeed(unwrap(seedFromPkcs8Pem(readFileSync(path, 'utf8'))), 'node');

describe('the ceremonies as they are printed', { skip: dataMissing }, () => {
  test('first, publisher, lost root key, stolen online keys: devices follow each without a visit', async () => {
    const place = workplace('ceremony');
    try {
      const registry = await startTestRegistry(place);
      const claim = await makeClaim(place, registry, 'claim', ['--uses', '3']);
      const awake = await startTestAgent(place, claim, 'awake');
      const sleeper = await startTestAgent(place, claim, 'sleeper');
      const pid = awake.daemon.child.pid;
      const { folder, run } = office(place, registry);
      const model = modelCase('mnist/digit4-opset8').modelPath;
      copyFileSync(model, join(folder, 'model.onnx'));

      const release = async (id: string): Promise<void> => {
        if (!id.startsWith('duo/')) await pushModel(registry, model, id);
        const status = await rollOut(place, registry, id);
        assert.equal(status.state, 'succeeded', JSON.stringify(status));
        const committed = status.devices.filter((one) => one.state === 'committed').map((one) => one.id);
        assert.deepEqual(committed.sort(), [awake.id, sleeper.id].sort(), id);
      };
      /** One device is off while the commands run; the other one is never touched. */
      const ceremony = async (topic: string, flags = ''): Promise<void> => {
        await sleeper.daemon.stop();
        const printed = await run(`lepton keys ceremony ${topic} ${flags}`);
        const commands = printed
          .split('\n')
          .filter((line) => line.startsWith('$ '))
          .map((line) => line.slice(2));
        assert.ok(commands.length >= 5, printed);
        for (const command of commands) await run(command);
        await sleeper.restart();
      };
      const keys = (): Promise<KeysStatus> => ask<KeysStatus>(registry, '/api/v1/keys');
      const device = (id: string): Promise<DeviceView> => ask<DeviceView>(registry, `/api/v1/devices/${id}`);
      const holders = (status: KeysStatus, role: string): (string | null)[] =>
        status.roles.find((one) => one.role === role)?.keys.map((key) => key.holder) ?? [];
      const keyFolder = place.path('registry', 'keys');

      await release('acme/digits@1.0.0');
      assert.equal((await keys()).keys, 'development');
      const developmentRoot = readFileSync(join(keyFolder, 'root-1.pem'), 'utf8');

      await ceremony('first', '--holder alice --holder bob --holder carol --threshold 2 --region eu-west');
      const offline = await keys();
      assert.equal(offline.keys, 'offline');
      assert.deepEqual(holders(offline, 'root'), ['alice', 'bob', 'carol']);
      assert.deepEqual(offline.warnings, []);
      assert.deepEqual(
        readdirSync(keyFolder).filter((name) => /root|targets/.test(name)),
        [],
      );
      assert.ok(!readFileSync(join(folder, 'alice.key'), 'utf8').includes(developmentRoot));
      await release('acme/digits@1.1.0');

      const alice = join(folder, 'alice.key.pub');
      const refused = await registry.lepton(['publishers', 'add', 'duo', '--key', alice], 1);
      assert.match(refused.stderr, /^lepton: keys-offline: .*--plan/);
      await ceremony('publisher', '--namespace duo --holder dana --holder erin');
      assert.deepEqual(holders(await keys(), 'publisher:duo').sort(), ['dana', 'erin']);
      await release('duo/model@1.0.0');

      // Carol's key is lost, whatever is still to be signed.
      rmSync(join(folder, 'carol.key'));
      const before = (await keys()).roles.find((one) => one.role === 'root')?.keys.at(-1)?.keyId;
      await ceremony('lost-root');
      const replaced = await keys();
      assert.deepEqual(holders(replaced, 'root'), ['alice', 'bob', 'carol']);
      assert.ok(!JSON.stringify(replaced).includes(before ?? '-'));
      await release('acme/digits@1.2.0');

      const loot = place.path('loot');
      cpSync(keyFolder, loot, { recursive: true });
      assert.ok(existsSync(join(loot, 'director.pem')));
      await ceremony('stolen-online');
      assert.deepEqual(
        readdirSync(keyFolder).filter((name) => existsSync(join(loot, name))),
        // Those of connections: the authority is rotated by a command of its own; the door's key names this region to others.
        ['fleet-ca.crt', 'fleet-ca.pem', 'region-door.pem', 'server.pem'],
        'nothing that signs is left of what was stolen',
      );
      await release('acme/digits@1.3.0');

      // The agent that was never off is still the same process, and nothing was refused for good.
      assert.equal(awake.daemon.child.pid, pid);
      assert.equal(awake.daemon.child.exitCode, null);
      assert.equal(
        (await device(awake.id)).models.find((one) => one.name === 'digits')?.active,
        'acme/digits@1.3.0',
      );
      // The claim names the roots of before all of it.
      const late = await startTestAgent(place, claim, 'late');
      await until('a device that enrols with the old claim runs the release', async () =>
        (await device(late.id)).models.some(
          (one) => one.active === 'acme/digits@1.3.0' && one.state === 'committed',
        ),
      );

      await checkStolen({ place, registry, agent: sleeper, loot, keyFolder });
    } finally {
      await place.close();
    }
  });
});

/** What the thief signs, in front of a device's own state and code; the new keys' signatures show that all else fits. */
async function checkStolen(scene: {
  place: Workplace;
  registry: TestRegistry;
  agent: TestAgent;
  loot: string;
  keyFolder: string;
}): Promise<void> {
  const { place, registry, agent, loot, keyFolder } = scene;
  await agent.daemon.stop();
  const honest = async (name: string): Promise<Result<Uint8Array>> => {
    const response = await fetch(`${registry.http}/api/v1/metadata/${name}`, {
      headers: { authorization: `Bearer ${registry.token}` },
    });
    if (response.status === 404) return refuse('metadata-missing', name);
    return ok(new Uint8Array(await response.arrayBuffer()));
  };
  const fresh = (role: string): Signer => {
    const file = readdirSync(keyFolder).find((name) => name.startsWith(`${role}-`));
    assert.ok(file);
    return keyIn(join(keyFolder, file));
  };
  const current = unwrap(parseTimestampFile(unwrap(await honest('timestamp.json'))));
  const timestampBy = (signer: Signer): Uint8Array =>
    makeTimestamp({
      version: current.version + 1_000,
      expiresAtMs: Date.now() + dayMs,
      snapshot: current.snapshot,
      signers: [signer],
    });
  const refreshed = async (signer: Signer): Promise<string> => {
    const device = await copiedDevice(place, agent, async (name) =>
      name === 'timestamp.json' ? ok(timestampBy(signer)) : honest(name),
    );
    const result = await device.refresh();
    return result.ok ? 'accepted' : result.refusal.code;
  };
  assert.equal(await refreshed(keyIn(join(loot, 'timestamp.pem'))), 'metadata-signature-invalid');
  assert.equal(await refreshed(fresh('timestamp')), 'accepted');

  const assigned = async (signer: Signer): Promise<string> => {
    const device = await copiedDevice(place, agent, honest);
    const inForce = device.assignment();
    assert.ok(inForce);
    const result = await device.consider(
      signAssignment({ ...inForce, epoch: inForce.epoch + 1_000, releases: [] }, signer),
    );
    return result.ok ? 'accepted' : result.refusal.code;
  };
  assert.equal(await assigned(keyIn(join(loot, 'director.pem'))), 'assignment-signature-invalid');
  assert.equal(await assigned(fresh('director')), 'accepted');

  // And the thief cannot come back with a bundle: it takes the holders' signatures.
  const done = (
    await registry.lepton(['keys', 'install', join(place.path('office'), 'online.json'), '--json'])
  ).json();
  assert.equal((done as KeysInstalled).status, 'in-force-already');
}
