// Why: a device keeps its certificate and follows its fleet to other authorities, and whatever is cut or refused on
// the way leaves a device that connects and serves. Trusts: the stand-in's broker, TLS and signatures, which are
// the real ones. Must never: wait without a limit.

import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { agentMigrations, openState } from '../../agent/state.ts';
import { loadIdentity, withRenewed } from '../../agent/trust/identity.ts';
import { createKeeper } from '../../agent/trust/keeper.ts';
import { acceptRenewal, certificateEndMs, renewalDueMs } from '../../agent/trust/renewal.ts';
import { createSecondCopy, readCopy } from '../../agent/trust/second-copy.ts';
import { loadTrust } from '../../agent/trust/trust-store.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { folderPlace } from '../../shared/host/place.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Disk, Store } from '../../shared/kernel/ports.ts';
import { signAuthorities } from '../../shared/trust/authorities.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { silent, wallAt } from './hand-clock.ts';
import { region, strangerSigner } from './registry-stand-in.ts';
import { answerTo, deploy, scene, statusOf, until } from './scene.ts';
import { tinyRelease } from './tiny-model.ts';

const dayMs = 86_400_000;
const nowMs = Date.now();
const renewedLater = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + 90 * dayMs };

test('due in the last third of its life, spread over the first half of it', async (t) => {
  const { registry, folder, start } = await scene(t);
  registry.certificates = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + 29 * dayMs };
  const agent = await start({ claim: await registry.claim() });
  await agent.stop();
  const store = await openStore(join(folder, 'state', 'state.sqlite'), {
    synchronous: 'FULL',
    migrations: agentMigrations,
  });
  const identity = await loadIdentity(store);
  await store.close();
  const { certificate } = identity ?? assert.fail();
  const endMs = certificateEndMs(certificate);
  assert.ok(Math.abs(endMs - (nowMs + 29 * dayMs)) < 2_000);
  for (const share of [0, 0.3, 0.999]) {
    const leftMs = endMs - renewalDueMs(certificate, share);
    assert.ok(leftMs <= 10 * dayMs + 1_000 && leftMs >= 5 * dayMs - 1_000, `${share}: ${leftMs}`);
  }
});

test('a certificate in its last days is renewed on the line that stands, and the old one is forgotten', async (t) => {
  const { registry, lines, start, folder } = await scene(t);
  registry.certificates = { notBeforeMs: nowMs - 30 * dayMs, notAfterMs: nowMs + dayMs };
  const claim = await registry.claim();
  registry.tamper.renewal = () => null;
  const agent = await start({ claim });
  await until('it asked', () => registry.asked.renewal > 0);
  await agent.stop();
  registry.certificates = renewedLater;
  delete registry.tamper.renewal;
  const again = await start();
  await until('it is renewed', () => lines.some((line) => line.event === 'certificate.renewed'));
  await until('it is back with the new one', async () => {
    const { connected, certificate } = await statusOf(again);
    return connected && (certificate?.expiresAtMs ?? 0) > nowMs + 80 * dayMs;
  });
  await until('it reports its end', () =>
    registry.reports.some((report) => (report.certificateExpiresAtMs ?? 0) > nowMs + 80 * dayMs),
  );
  await deploy(registry, again, 'acme/tiny@1.0.0', 2);
  await again.stop();
  const store = await openStore(join(folder, 'state', 'state.sqlite'), {
    synchronous: 'FULL',
    migrations: agentMigrations,
  });
  assert.equal((await loadIdentity(store))?.proven, null);
  await store.close();
  assert.equal(registry.asked.renewal, 2, 'once was enough');
});

test('a certificate that is over by signed time: a session for a renewal alone, then everything', async (t) => {
  const { registry, lines, start } = await scene(t);
  // The broker of this stand-in does not mind; the device does.
  registry.certificates = { notBeforeMs: nowMs - 30 * dayMs, notAfterMs: nowMs - dayMs / 2 };
  const claim = await registry.claim();
  const brokerClock = nowMs - 0.75 * dayMs;
  await registry.stop();
  registry.brokerClock = wallAt(systemClock, brokerClock);
  await registry.start();
  registry.tamper.renewal = () => null;
  const agent = await start({ claim });
  await until('it asked, and knows the time', () => registry.asked.renewal > 0 && registry.asked.time > 0);
  registry.certificates = renewedLater;
  delete registry.tamper.renewal;
  lines.length = 0;
  await registry.disconnect(agent.deviceId);
  await until('it is renewed', () => lines.some((line) => line.event === 'certificate.renewed'));
  await until('it is connected', async () => (await statusOf(agent)).connected);
  const sessions = lines
    .filter((line) => line.event === 'bus.connected')
    .map((line) => line.fields['limited']);
  assert.deepEqual(sessions.slice(0, 2), [true, undefined]);
  assert.ok(((await statusOf(agent)).certificate?.expiresAtMs ?? 0) > nowMs + 80 * dayMs);
});

test('a renewal that is refused for good is shown and not asked again; what runs goes on', async (t) => {
  const { registry, start } = await scene(t);
  registry.certificates = { notBeforeMs: nowMs - 30 * dayMs, notAfterMs: nowMs + dayMs };
  registry.tamper.renewal = () => ({
    status: 'refused',
    code: 'renewal-refused',
    detail: 'its time is over',
  });
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  await until(
    'it is shown',
    async () => (await statusOf(agent)).certificate?.renewalRefusedBy === 'renewal-refused',
  );
  await until('it is reported', () =>
    registry.reports.some((report) => report.refusals.some(({ code }) => code === 'renewal-refused')),
  );
  const { renewal } = registry.asked;
  for (let round = 0; round < 3; round += 1) {
    await registry.disconnect(agent.deviceId);
    await until('it is back', async () => registry.connected().includes(agent.deviceId));
  }
  await deploy(registry, agent, 'acme/tiny@1.1.0', 3);
  assert.equal(registry.asked.renewal, renewal);
  assert.equal((await answerTo(agent)).status, 200);
});

test('a change of authorities: the assignment names the list, the renewal brings it, the old one may go', async (t) => {
  const { registry, lines, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  const device = agent.deviceId;
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  registry.certificates = renewedLater;
  await registry.addAuthority();
  const named = { authoritiesSha256: registry.authoritiesSha256() };
  await registry.publishDesired(device, registry.sign(registry.assign(device, registry.assigned(), named)));
  await until('it is renewed', () => lines.some((line) => line.event === 'certificate.renewed'));
  await until('it is back', async () => (await statusOf(agent)).connected);
  await registry.retireAuthorities();
  await until(
    'it followed',
    async () => (await statusOf(agent)).connected && registry.connected().includes(device),
  );
  const last = { authoritiesSha256: registry.authoritiesSha256() };
  const next = registry.release('acme/tiny@1.1.0', tinyRelease(3));
  await registry.publishDesired(device, registry.sign(registry.assign(device, [next], last)));
  await until('it serves what was assigned', async () => (await answerTo(agent)).version === '1.1.0');
  await until('it holds the shorter list', () => registry.asked.renewal >= 2);
});

test('answers that are not taken: another key’s certificate, a list of another region, an older one, a stranger’s', async (t) => {
  const { registry, folder, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await agent.stop();
  const store = await openStore(join(folder, 'state', 'state.sqlite'), {
    synchronous: 'FULL',
    migrations: agentMigrations,
  });
  const identity = (await loadIdentity(store)) ?? assert.fail();
  const root = parseRegionRoot((await loadTrust(store))?.regionRoot ?? assert.fail());
  await store.close();
  assert.ok(root.ok);
  const certificates = registry.authorities();
  const list = (over: object = {}, signer = registry.commandSigner()) =>
    signAuthorities({ schemaVersion: 1, region, issuedAtMs: 1_000, certificates, ...over }, signer);
  const answer = (result: object): Uint8Array =>
    encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: 0, result });
  const good = { status: 'accepted', certificate: identity.certificate, authorities: list() };
  const codeOf = (result: object, held = identity, atMs = 0): string => {
    const taken = acceptRenewal(answer(result), { identity: held, regionRoot: root.value, nowMs: atMs });
    return taken.ok ? 'taken' : taken.refusal.code;
  };
  assert.equal(codeOf(good), 'taken');
  const other = await registry.certificateOf(new Uint8Array(32).fill(3));
  const cases: [string, object, typeof identity?, number?][] = [
    ['enrolment-certificate-invalid', { ...good, certificate: other }],
    ['enrolment-certificate-invalid', { ...good, certificate: 'no certificate' }],
    // Issued by an authority that the list does not name.
    [
      'enrolment-certificate-invalid',
      { ...good, authorities: list({ certificates: [await registry.strangerAuthority()] }) },
    ],
    ['authorities-invalid', { ...good, authorities: list({ region: 'elsewhere' }) }],
    ['authorities-invalid', { ...good, authorities: list({}, strangerSigner()) }],
    ['authorities-invalid', { ...good, authorities: list({ certificates: ['none'] }) }],
    ['authorities-invalid', good, { ...identity, authoritiesIssuedAtMs: 2_000 }],
    ['certificate-expired', good, identity, nowMs + 400 * dayMs],
    ['device-revoked', { status: 'refused', code: 'device-revoked', detail: '' }],
    ['renewal-refused', { status: 'refused', code: 'made-up', detail: '' }],
    ['message-malformed', { status: 'accepted' }],
  ];
  for (const [code, result, held, atMs] of cases) assert.equal(codeOf(result, held, atMs), code);
});

/** Fails the nth durable step, before it or after it, and everything from there on. */
function cutAfter(
  steps: number,
  inner: { store: Store; disk: Disk },
): { store: Store; disk: Disk; cut(): boolean } {
  let left = steps;
  const step = async <T>(work: () => Promise<T>): Promise<T> => {
    left -= 1;
    if (left < 0) throw new FleetError('interrupted', 'the power failed');
    return work();
  };
  const { store, disk } = inner;
  return {
    cut: () => left < 0,
    store: { ...store, tx: (fn) => step(() => store.tx(fn)) },
    disk: {
      ...disk,
      create: (path) => step(() => disk.create(path)),
      append: (path, bytes) => step(() => disk.append(path, bytes)),
      fsync: (path) => step(() => disk.fsync(path)),
      rename: (from, to) => step(() => disk.rename(from, to)),
      fsyncDir: (path) => step(() => disk.fsyncDir(path)),
    },
  };
}

test('a renewal cut at each durable step leaves credentials that connect, and goes on', async (t) => {
  const { registry, folder, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  const device = agent.deviceId;
  await until('it is connected', () => registry.connected().includes(device));
  await agent.stop();
  registry.certificates = renewedLater;
  const pristine = join(folder, 'pristine');
  cpSync(join(folder, 'state'), pristine, { recursive: true });
  const renewed = await registry.certificateOf(null, device);
  let cuts = 0;
  for (let steps = 0; ; steps += 1) {
    const place = join(folder, `cut-${steps}`);
    cpSync(pristine, place, { recursive: true });
    const disk = openDisk(place);
    const copy = await readCopy(disk);
    assert.ok(typeof copy === 'object');
    const store = await openStore(join(place, 'state.sqlite'), {
      synchronous: 'FULL',
      migrations: agentMigrations,
    });
    const identity = (await loadIdentity(store)) ?? assert.fail();
    const cutting = cutAfter(steps, { store, disk });
    const keeper = createKeeper(cutting.store, createSecondCopy(cutting.disk, copy));
    const next = withRenewed(identity, {
      certificate: renewed,
      fleetCa: registry.authorities().join(''),
      authoritiesIssuedAtMs: 1,
    });
    await keeper.identity(next).catch((error: unknown) => assert.ok(error instanceof FleetError));
    await store.close();
    const state = await openState(folderPlace(place), silent);
    const held = state.keeper.held().identity ?? assert.fail();
    assert.equal(held.deviceId, device);
    // Either nothing happened, or the new ones are there with the old ones beside them.
    if (held.certificate === identity.certificate) assert.equal(held.proven, null);
    else {
      assert.equal(held.certificate, renewed);
      assert.equal(held.proven?.certificate, identity.certificate);
    }
    assert.deepEqual(await loadIdentity(state.keeper.store), held, 'both copies agree again');
    await state.close();
    if (!cutting.cut()) break;
    cuts += 1;
  }
  assert.ok(cuts >= 5, `${cuts} places to cut`);
  for (const steps of [0, 4, cuts]) {
    const revived = await start({ stateFolder: join(folder, `cut-${steps}`) });
    await until(`cut ${steps}: it connects`, async () => (await statusOf(revived)).connected);
    await revived.stop();
  }
});

test('renewed credentials that do not work take turns with the ones before', async (t) => {
  const { registry, folder, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  const device = agent.deviceId;
  await until('it is connected', () => registry.connected().includes(device));
  await agent.stop();
  // The region's new authority is gone again before the device came back with its certificate.
  const state = await openState(folderPlace(join(folder, 'state')), silent);
  const identity = state.keeper.held().identity ?? assert.fail();
  const foreign = await registry.strangerAuthority();
  await state.keeper.identity(
    withRenewed(identity, { certificate: identity.certificate, fleetCa: foreign, authoritiesIssuedAtMs: 5 }),
  );
  await state.close();
  const again = await start();
  await until('it connects with the old ones', async () => (await statusOf(again)).connected);
});
