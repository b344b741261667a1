// Why: regions as real registries over their real doors: joining, mirroring, cuts, strangers, and a home that moves.
// Trusts: nothing it did not start. Must never: go past the doors.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { createRegionLine, regionIdentity } from '../../shared/host/region-door.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { bundleFrom, firstChanges, holder, onlineChanges, signedBy } from '../support/ceremony.ts';
import { freePort } from '../support/mosquitto.ts';
import { slowLink } from '../support/slow-link.ts';
import { installable, invite, joinRegion, publisher, startRegion, until } from './support.ts';

const sameEverywhere = async (...regions: Parameters<typeof installable>[0][]): Promise<boolean> => {
  const lists = await Promise.all(regions.map(installable));
  return lists.every((list) => list.join() === lists[0]?.join());
};

test('a push at home is everywhere; what is withdrawn is withdrawn everywhere; a cut region catches up', async (t) => {
  const home = await startRegion(t, 'home');
  const acme = publisher('acme');
  await acme.push(home, 'acme/one@1.0.0');
  const west = await joinRegion(t, home, 'west');
  const east = await joinRegion(t, home, 'east');
  await until('the first release is everywhere', () => sameEverywhere(home, west, east));
  assert.equal((await installable(west)).length, 1);

  await acme.push(home, 'acme/one@1.1.0');
  const birch = publisher('birch');
  await birch.push(home, 'birch/two@0.1.0');
  await until('the others too', async () => (await installable(east)).length === 3);
  await until('west too', () => sameEverywhere(home, west, east));
  for (const region of [west, east]) {
    const status = await region.status();
    assert.equal(status.home, 'home');
    assert.equal(status.signs, false);
    assert.deepEqual(status.catalogue.refused, []);
    const names = status.regions.map((one) => one.region).sort();
    assert.deepEqual(names, ['east', 'home', 'west']);
  }
  await until('every line stands', async () =>
    (await Promise.all([home, west, east].map((one) => one.status()))).every(({ regions }) =>
      regions.every(({ self, link }) => self || link?.state === 'connected'),
    ),
  );

  // Nothing is signed elsewhere than at home.
  const refused = await west.registry.parts.repository.delegate('cedar', ['00'.repeat(32)], 1);
  assert.equal(refused.ok ? 'taken' : refused.refusal.code, 'key-invalid');
  const pushed = await publisher('acme')
    .push(west, 'acme/one@9.0.0')
    .then(
      () => 'taken',
      (error: unknown) => (error instanceof FleetError ? error.code : String(error)),
    );
  assert.equal(pushed, 'not-home');

  // Cut off: the region runs on, and has everything a moment after it is back.
  await east.stop();
  for (let minor = 2; minor < 6; minor += 1) await acme.push(home, `acme/one@1.${minor}.0`);
  await east.start();
  await until('east caught up', () => sameEverywhere(home, west, east));
  assert.equal((await installable(east)).length, 7);
  await acme.withdraw(home, 'acme/one@1.1.0');
  await until('it is withdrawn everywhere', async () =>
    (await Promise.all([home, west, east].map(installable))).every((list) => list.length === 6),
  );
});

test('a region whose door moved is found where it is now', async (t) => {
  const home = await startRegion(t, 'home');
  const west = await joinRegion(t, home, 'west');
  const doorOf = async (region: typeof home) =>
    (await region.status()).regions.find((one) => one.region === 'west');
  await until('home looks at west', async () => (await doorOf(home))?.link?.state === 'connected');
  const before = (await doorOf(home))?.url;
  await west.stop();
  await until('home misses west', async () => (await doorOf(home))?.link?.state === 'unreachable');
  await west.start({ regions: { host: '127.0.0.1', port: await freePort() } });
  await until('home looks at west again', async () => {
    const entry = await doorOf(home);
    return entry?.url !== before && entry?.link?.state === 'connected';
  });
  // One loop looks at it, where it is: the old address is asked no more.
  const contacts = home.log.events.filter(({ event }) => event === 'regions.link.changed').length;
  await systemClock.timer(700).done;
  assert.equal(home.log.events.filter(({ event }) => event === 'regions.link.changed').length, contacts);
});

test('large files resume over a line that breaks; the mirror fetches each byte about once', async (t) => {
  const home = await startRegion(t, 'home');
  const link = await slowLink(Number(new URL((await home.status()).door ?? '').port), 7);
  t.after(() => link.close());
  const peers = new Map([['home', `https://127.0.0.1:${link.port}`]]);
  const west = await joinRegion(t, home, 'west', { peers, homeUrl: `https://127.0.0.1:${link.port}` });
  const before = link.carried().down;
  link.use({ bytesPerSecond: 6e6, delayMs: 1, cutEveryMs: 500 });
  const note = Buffer.from(systemEntropy.bytes(6_000_000)).toString('base64');
  await publisher('acme').push(home, 'acme/large@1.0.0', note);
  await until('the large release is there', async () => (await installable(west)).length === 1, 40_000);
  const carried = link.carried().down - before;
  assert.ok(link.cuts() > 0, 'the line was never cut');
  // Each cut loses at most the parts under way.
  assert.ok(carried < note.length * 1.15 + link.cuts() * 1.2e6, `${carried} bytes for ${note.length}`);
});

test('strangers, wrong keys and used invitations get nowhere', async (t) => {
  const home = await startRegion(t, 'home');
  const invitation = await invite(home, 'west');
  const peer = { url: (await home.status()).door ?? '', publicKey: invitation.home.publicKey };
  const identity = await regionIdentity({
    seed: systemEntropy.bytes(32),
    region: 'west',
    clock: systemClock,
    entropy: systemEntropy,
  });
  const line = createRegionLine({ identity, clock: systemClock });
  t.after(() => line.close());
  const get = async (path: string) => {
    const answer = unwrap(await line.ask(peer, { method: 'GET', path, bytesMax: 1e6, timeoutMs: 5_000 }));
    return { status: answer.status, body: new TextDecoder().decode(answer.bytes) };
  };
  for (const path of ['list', 'metadata/timestamp.json', 'streams/cells?after=0&limit=1', 'blobs/00']) {
    const { status, body } = await get(`/regions/v1/${path}`);
    assert.equal(status, 403);
    assert.match(body, /region-unknown/);
  }
  // A home that shows another key than the invitation's is not asked anything.
  const wrong = { ...peer, publicKey: '00'.repeat(32) };
  const untrusted = await line.ask(wrong, { method: 'GET', path: '/', bytesMax: 10, timeoutMs: 5_000 });
  assert.equal(untrusted.ok ? 'answered' : untrusted.refusal.code, 'region-untrusted');

  const west = await startRegion(t, 'west', { invitation });
  const code = (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => 'started',
      (error: unknown) => (error instanceof FleetError ? error.code : String(error)),
    );
  // The same file a second time, by another registry; for another name; at a registry with a catalogue of its own.
  assert.equal(await code(startRegion(t, 'west', { invitation })), 'invitation-invalid');
  assert.equal(await code(startRegion(t, 'north', { invitation })), 'config-invalid');
  const alone = await startRegion(t, 'north');
  await alone.stop();
  const late = await invite(home, 'north');
  assert.equal(await code(alone.start({ invitation: late })), 'conflict');
  assert.equal(await code(invite(home, 'west')), 'region-exists');
  assert.equal(await code(invite(west, 'south')), 'not-home');

  // A region that was taken out is a stranger from then on, and its name is gone.
  const { regions } = home.registry.parts;
  assert.ok(regions);
  const asWest = (await regions.members.peers()).find(({ region }) => region === 'west');
  assert.ok(asWest);
  unwrap(await regions.members.remove('west'));
  await until('west hears that it is out', async () =>
    (await west.status()).regions.some(({ link }) => link?.code === 'region-unknown'),
  );
  assert.equal(await code(invite(home, 'west')), 'region-exists');
  // Nor does the file with which it joined once let it in again.
  const { secret } = invitation;
  const regionRoot = Buffer.from(await west.registry.parts.repository.regionRoot()).toString('base64');
  const again = { schemaVersion: 1 as const, region: 'west', secret, url: asWest.url, regionRoot };
  const rejoined = await regions.members.join(again, asWest.publicKey);
  assert.equal(rejoined.ok ? 'joined' : rejoined.refusal.code, 'region-exists');
});

const eastOf = async (region: Parameters<typeof installable>[0]) =>
  (await region.status()).regions.find((one) => one.region === 'east')?.link;

test('the home is lost; another region takes over with the offline keys, and the old one becomes a mirror', async (t) => {
  const home = await startRegion(t, 'home');
  const holders = [holder('alice'), holder('bob'), holder('carol')];
  const tina = holder('tina');
  const acme = publisher('acme');
  await acme.push(home, 'acme/one@1.0.0');
  const { keys } = home.registry.parts.repository;
  // The catalogue's keys go offline at home.
  const first = await keys.plan({ newOnline: true });
  const nowMs = systemClock.wall();
  const ceremony = bundleFrom(first, [...firstChanges(holders, tina), ...onlineChanges(first)], { nowMs });
  unwrap(await keys.install(signedBy(ceremony, ...holders.slice(0, 2), tina)));
  const west = await joinRegion(t, home, 'west');
  const east = await joinRegion(t, home, 'east');
  await until('the release is everywhere', () => sameEverywhere(home, west, east));
  await until('east knows west', async () => (await east.status()).regions.length === 3);
  await home.stop();

  // West takes over: a new root names its online keys; two of three holders sign.
  const desk = west.registry.parts.repository.keys;
  const plan = await desk.plan({ newOnline: true });
  const taking = bundleFrom(plan, onlineChanges(plan), { nowMs });
  const installed = await desk.install(signedBy(taking, ...holders.slice(0, 2)));
  unwrap(installed);
  assert.equal((await west.status()).signs, true);
  await until('east knows the new home', async () => (await east.status()).home === 'west');

  // East stays behind and is asked: the new home, which mirrored under the keys before, does not step back to it.
  const nowhere = 'https://127.0.0.1:1';
  await east.stop();
  await acme.push(west, 'acme/one@2.0.0');
  const { timestampVersion } = (await west.status()).catalogue;
  await until('west misses east', async () => (await eastOf(west))?.state === 'unreachable');
  await east.start({
    peers: new Map([
      ['west', nowhere],
      ['home', nowhere],
    ]),
  });
  await until('west has looked at east', async () => (await eastOf(west))?.state === 'connected');
  assert.equal((await west.status()).catalogue.timestampVersion, timestampVersion);
  assert.equal((await installable(west)).length, 2);
  await east.stop();
  await east.start();
  await until('east mirrors the new home', async () => {
    const status = await east.status();
    return status.home === 'west' && (await sameEverywhere(west, east));
  });
  assert.equal((await installable(east)).length, 2);

  // The old home comes back with its disk: it finds the new root at the others, and mirrors.
  await home.start();
  await until('the old home mirrors', async () => {
    const status = await home.status();
    return !status.signs && status.home === 'west' && (await sameEverywhere(west, home));
  });
  assert.ok(home.log.events.some(({ event }) => event === 'regions.home.changed'));
  const refused = await acme.push(home, 'acme/one@3.0.0').then(
    () => 'taken',
    (error: unknown) => (error instanceof FleetError ? error.code : String(error)),
  );
  assert.equal(refused, 'not-home');
  // And starts again as one, without the keys that it had.
  await home.stop();
  await home.start();
  await acme.push(west, 'acme/one@3.0.0');
  await until('and goes on mirroring', () => sameEverywhere(west, home, east));
});
