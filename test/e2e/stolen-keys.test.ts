// Why: the promise of two authorities, with real programs and really stolen keys: whoever copies a registry's whole
// data folder makes no device run bytes that no publisher signed, and loses all power over it by one ceremony.
// Trusts: test/support/thief.ts for what a thief can sign; the device's own answers for what it runs.
// Must never: count a refusal of bytes that the thief could not have served, or of a key that was not stolen.

import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { makeRegionRoot, parseRegionRoot } from '../../shared/trust/region.ts';
import { makeRoot, makeTargets, parseRootFile } from '../../shared/trust/tuf/repository.ts';
import { type KeyPlan, onlineRoles, parseKeyPlan } from '../../shared/wire/key-plan.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { bundleFrom, firstChanges, holder, onlineChanges, signedBy } from '../support/ceremony.ts';
import { makeClaim, pushModel, rollOut, showDevice } from '../support/fleet.ts';
import { eventsNow } from '../support/looking.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';
import { testRegion } from '../support/registry.ts';
import { keyIn, startThief, stolenKeys, type Thief } from '../support/thief.ts';

const dayMs = 86_400_000;
/** A device that comes back waits longer where a busy machine starts its registry slowly. */
const patienceMs = 120_000;
const holders = ['alice', 'bob', 'carol'].map(holder);
const targetsHolder = holder('targets');
/** Models multiply: 2, 3 and 5 are the publisher's, 7 is signed by the publisher in the control, 666 is the thief's. */
const evil = tinyModel(666);

/** What the device answers to [1, 2]. */
async function answer(agent: TestAgent): Promise<number[]> {
  const response = await fetch(`${agent.http}/v2/models/tiny/infer`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ inputs: [{ name: 'x', shape: [2], datatype: 'FP32', data: [1, 2] }] }),
  });
  const body = (await response.json()) as { outputs?: { data: number[] }[] };
  return body.outputs?.[0]?.data ?? assert.fail(`${response.status} ${JSON.stringify(body)}`);
}

const logged = (agent: TestAgent, event: string): Record<string, unknown>[] =>
  agent.daemon.events().filter((line) => line['event'] === event);

async function push(place: Workplace, registry: TestRegistry, release: string, factor: number) {
  const file = place.path(`times-${factor}.onnx`);
  writeFileSync(file, tinyModel(factor));
  await pushModel(registry, file, release);
}

async function planOf(place: Workplace, registry: TestRegistry, ...flags: string[]): Promise<KeyPlan> {
  const file = place.path('plan.json');
  await registry.lepton(['keys', 'plan', ...flags, '--out', file]);
  return unwrap(parseKeyPlan(readFileSync(file)));
}

async function install(place: Workplace, registry: TestRegistry, bundle: object): Promise<void> {
  const file = place.path('bundle.json');
  writeFileSync(file, JSON.stringify(bundle));
  await registry.lepton(['keys', 'install', file]);
}

test('all online keys and the whole disk are stolen: no device runs what no publisher signed', async () => {
  const place = workplace('stolen-keys');
  try {
    const registry = await startTestRegistry(place);
    const claim = await makeClaim(place, registry, 'claim', ['--uses', '2']);
    const [agent, control] = await Promise.all([
      startTestAgent(place, claim, 'agent'),
      startTestAgent(place, claim, 'control'),
    ]);
    const { pid } = agent.daemon.child;
    await push(place, registry, 'acme/tiny@1.0.0', 2);
    assert.equal((await rollOut(place, registry, 'acme/tiny@1.0.0')).state, 'succeeded');
    // Signed and pushed, not rolled out: what the director may bring to a device.
    await push(place, registry, 'acme/tiny@1.1.0', 3);
    const plan = await planOf(place, registry);
    const [alice, bob] = holders;
    assert.ok(alice && bob);
    const first = bundleFrom(plan, firstChanges(holders, targetsHolder), { nowMs: Date.now() });
    await install(place, registry, signedBy(first, alice, bob, targetsHolder));

    // The theft: everything that the registry has.
    await registry.daemon.stop();
    cpSync(place.path('registry'), place.path('loot'), { recursive: true });
    const loot = readdirSync(place.path('loot', 'keys'));
    assert.deepEqual(
      loot.filter((name) => /root|targets/.test(name)),
      [],
    );
    assert.ok(loot.includes('fleet-ca.pem') && existsSync(place.path('loot', 'registry.sqlite')));
    for (const role of onlineRoles) {
      const stolen = stolenKeys(place.path('loot'))[role];
      assert.equal(Buffer.from(stolen.publicKey).toString('hex'), plan.online[role], role);
    }
    const thief = await startThief(place, 'loot');
    const publisher = keyIn(join(place.env['XDG_CONFIG_HOME'] ?? '', 'lepton', 'keys', 'acme.key'));
    await attack({ thief, agent });
    await controlled({ thief, control, publisher });
    await lockOut({ thief, agent });
    await control.daemon.stop();
    await thief.stop();

    // The honest registry is back, and the device believes numbers that it cannot reach.
    await registry.restart();
    await until(
      'the honest assignment is refused',
      () => logged(agent, 'assignment.refused').some((line) => line['code'] === 'assignment-replayed'),
      patienceMs,
    );
    await until(
      'what the device refused of the thief is reported',
      async () => {
        const codes = new Set((await eventsNow(registry, agent.id)).map((event) => event.code));
        return [
          'target-digest-mismatch',
          'target-unknown',
          'blob-digest-mismatch',
          'metadata-signature-invalid',
          'assignment-signature-invalid',
        ].every((code) => codes.has(code));
      },
      patienceMs,
    );
    // It gives back what its publisher signed, at the thief's, and the honest registry never saw.
    await until('the honest registry knows of the release whose bytes it lacks', async () =>
      (await eventsNow(registry)).some(
        (event) => event.code === 'lost-in-restore' && event.detail.includes('acme/tiny@2.0.0'),
      ),
    );
    await registry.lepton(['devices', 'revoke', control.id]);

    // lepton keys ceremony stolen-online.
    const rescue = await planOf(place, registry, '--new-online');
    const online = bundleFrom(rescue, onlineChanges(rescue), { nowMs: Date.now() });
    await install(place, registry, signedBy(online, alice, bob));
    await push(place, registry, 'acme/tiny@3.0.0', 5);
    assert.equal((await rollOut(place, registry, 'acme/tiny@3.0.0')).state, 'succeeded');
    assert.deepEqual(await answer(agent), [5, 10]);
    assert.equal((await showDevice(registry, agent.id)).models[0]?.active, 'acme/tiny@3.0.0');

    // The thief comes back, and not even genuine releases move for him.
    await registry.daemon.stop();
    const again = await startThief(place, 'loot');
    await until('the device is at the thief’s', () => isConnected(again, agent), patienceMs);
    const before = logged(agent, 'assignment.refused').length;
    const release = await again.known('acme/tiny@1.0.0');
    await again.assign(agent.id, [release], { epoch: Number.MAX_SAFE_INTEGER });
    await until(
      'his word counts for nothing',
      () =>
        logged(agent, 'assignment.refused')
          .slice(before)
          .some((line) => line['code'] === 'assignment-signature-invalid'),
      patienceMs,
    );
    assert.deepEqual(await answer(agent), [5, 10]);
    const accepted = logged(agent, 'assignment.accepted').flatMap((line) => line['releases']);
    assert.deepEqual([...new Set(accepted)], ['acme/tiny@1.0.0', 'acme/tiny@1.1.0', 'acme/tiny@3.0.0']);
    assert.deepEqual([agent.daemon.child.pid, agent.daemon.child.exitCode], [pid, null], 'never visited');
  } finally {
    await place.close();
  }
});

async function isConnected(thief: Thief, agent: TestAgent): Promise<boolean> {
  return unwrap(await thief.registry.parts.fleet.devices.show(agent.id)).presence === 'online';
}

/** Everything that the thief signs for bytes of his own. He could serve all of them. */
async function attack({ thief, agent }: { thief: Thief; agent: TestAgent }): Promise<void> {
  const { keys } = thief;
  await until('the device is at the thief’s', () => isConnected(thief, agent), patienceMs);
  const expiresAtMs = Date.now() + 90 * dayMs;
  const good = await thief.known('acme/tiny@1.0.0');

  async function refused(what: string, event: string, code: string, act: () => Promise<void>): Promise<void> {
    const before = logged(agent, event).length;
    await act();
    await until(
      `${what}: ${code}`,
      () =>
        logged(agent, event)
          .slice(before)
          .some((line) => line['code'] === code),
      patienceMs,
    );
    assert.deepEqual(await answer(agent), [2, 4], what);
  }

  // Bytes that no publisher signed, under a name of their own and under the name of a genuine release.
  const ghost = await thief.make('acme/tiny@6.6.6', evil, 3, keys.director);
  await thief.stock(agent.id, ghost);
  await refused('an unsigned release', 'assignment.refused', 'target-unknown', () =>
    thief.assign(agent.id, [ghost.assigned]),
  );
  const { manifestSha256, manifestBytes } = ghost.assigned;
  await refused('bytes under a genuine name', 'assignment.refused', 'target-digest-mismatch', () =>
    thief.assign(agent.id, [{ ...good, manifestSha256, manifestBytes }]),
  );

  // A genuine release, with other bytes under its digest.
  const swapped = await thief.registry.parts.releases.find('acme/tiny@1.1.0');
  const model = swapped?.manifest.files.find((file) => file.role === 'model');
  assert.ok(model);
  const desired = await thief.known('acme/tiny@1.1.0');
  thief.swapBlob(model.sha256, evil);
  await thief.allow(agent.id, desired);
  await refused('swapped bytes', 'update.refused', 'blob-digest-mismatch', () =>
    thief.assign(agent.id, [desired]),
  );

  // Forged roots, by every key that was stolen. A root that the device took would name the thief's keys for all.
  const all = onlineRoles.map((role) => keys[role]);
  const spec = (signer: Signer) => ({ keys: [signer.publicKey], threshold: 1 });
  const ours = { keys: all.map((key) => key.publicKey), threshold: 1 };
  const root = await thief.current('root');
  const genuineRoot = unwrap(parseRootFile(root.bytes));
  const honestRoots = genuineRoot.roles.get('root')?.keys.map((key) => key.publicKey) ?? [];
  for (const [what, rootRole] of [
    ['a root of the thief’s own', ours],
    // Names the holders as before: only the keys below would be his.
    ['a root that keeps the holders', { keys: honestRoots, threshold: 2 }],
  ] as const) {
    const version = root.version + 1;
    const roles = {
      root: rootRole,
      targets: spec(keys.command),
      snapshot: spec(keys.snapshot),
      timestamp: spec(keys.timestamp),
    };
    const bytes = makeRoot({ version, expiresAtMs, roles, signers: all });
    const files = [{ role: 'root', file: `${version}.root.json`, version, bytes }];
    await thief.serve(files);
    await refused(what, 'assignment.refused', 'metadata-signature-invalid', () =>
      thief.assign(agent.id, [ghost.assigned]),
    );
    await thief.withdraw(files);
  }
  const regionRoot = unwrap(parseRegionRoot((await thief.current('region/root')).bytes));
  const version = regionRoot.version + 1;
  const roles = {
    root: ours,
    director: spec(keys.command),
    time: spec(keys.time),
    ack: spec(keys.ack),
    command: spec(keys.command),
  };
  const bytes = makeRegionRoot({ region: testRegion, version, expiresAtMs, roles, signers: all });
  const regionFiles = [{ role: 'region/root', file: `region/${version}.root.json`, version, bytes }];
  await thief.serve(regionFiles);
  await refused('a director of a forged root', 'assignment.refused', 'assignment-signature-invalid', () =>
    thief.assign(agent.id, [good], { by: keys.command }),
  );
  await thief.withdraw(regionFiles);

  // Targets that name the thief as publisher, in a genuine snapshot.
  const targets = await thief.current('targets');
  const forgedTargets = makeTargets({
    version: targets.version + 1,
    expiresAtMs,
    delegations: [{ namespace: 'acme', ...spec(keys.command) }],
    signers: all,
  });
  const evilRelease = await thief.make('acme/tiny@6.6.7', evil, 4, keys.command);
  await thief.stock(agent.id, evilRelease);
  const acmeFile = {
    role: 'ns/acme',
    file: `${evilRelease.version}.acme.json`,
    version: evilRelease.version,
    bytes: evilRelease.metadata,
  };
  const targetsFile = {
    role: 'targets',
    file: `${targets.version + 1}.targets.json`,
    version: targets.version + 1,
    bytes: forgedTargets,
  };
  await thief.serve([targetsFile, acmeFile], {});
  await refused('targets by online keys', 'assignment.refused', 'metadata-signature-invalid', () =>
    thief.assign(agent.id, [evilRelease.assigned]),
  );
  await thief.withdraw([targetsFile, acmeFile]);

  // A publisher's file by online keys, in a genuine snapshot: nothing but that signature is wrong.
  await thief.serve([acmeFile], {});
  await refused('a publisher’s file by online keys', 'assignment.refused', 'metadata-signature-invalid', () =>
    thief.assign(agent.id, [evilRelease.assigned]),
  );
  await thief.withdraw([acmeFile]);
}

/** The same code with the publisher's own key for the one signature that counts: the release runs. */
async function controlled(scene: { thief: Thief; control: TestAgent; publisher: Signer }): Promise<void> {
  const { thief, control, publisher } = scene;
  await until('the control is at the thief’s', () => isConnected(thief, control), patienceMs);
  const release = await thief.make('acme/tiny@2.0.0', tinyModel(7), 5, publisher);
  const { version, metadata } = release;
  await thief.stock(control.id, release);
  await thief.serve([{ role: 'ns/acme', file: `${version}.acme.json`, version, bytes: metadata }], {});
  await thief.assign(control.id, [release.assigned]);
  await until('the publisher’s release runs', async () => (await answer(control))[0] === 7);
}

/** The worst that is left to him: numbers that nobody can exceed. */
async function lockOut({ thief, agent }: { thief: Thief; agent: TestAgent }): Promise<void> {
  await thief.serve([], { timestampVersion: 999_999_999 });
  const release = await thief.known('acme/tiny@1.0.0');
  await thief.assign(agent.id, [release], { epoch: Number.MAX_SAFE_INTEGER });
  await until('the device takes a genuine release from him', () =>
    logged(agent, 'assignment.accepted').some((line) => line['epoch'] === Number.MAX_SAFE_INTEGER),
  );
  assert.deepEqual(await answer(agent), [2, 4]);
}
