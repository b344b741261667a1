// Why: the whole product on a broker of another maker, with the files that we print for it.
// Trusts: Debian's mosquitto and the real programs. Must never: pass where a message was lost, or came to somebody
// whom it is not for.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import { encodeMessage, enrolReplySchema, parseMessage } from '../../shared/wire/messages.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import {
  deviceTopic,
  enrolReplyTopic,
  enrolRequestTopic,
  sharedFilter,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import { newClient, randomSeed, type TestClient } from '../broker/fleet.ts';
import { modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { checkCase, makeClaim, pushModel, rollOut, showDevice, startRollout } from '../support/fleet.ts';
import { deviceNow, recordsNow } from '../support/looking.ts';
import { freePort, type Mosquitto, mosquittoMissing, startMosquitto } from '../support/mosquitto.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';

const region = 'eu-west';

interface Scene {
  place: Workplace;
  registry: TestRegistry;
  broker: Mosquitto;
  port: number;
  files: string;
}

const brokerState = async (registry: TestRegistry): Promise<string | undefined> =>
  ((await (await fetch(`${registry.http}/readyz`)).json()) as { broker?: string }).broker;

/** A registry that looks for its broker, and then the broker with the files that the registry gives. */
async function openScene(place: Workplace): Promise<Scene> {
  const port = await freePort();
  const registry = await startTestRegistry(place, 'registry', ['--broker', `mqtts://127.0.0.1:${port}`]);
  assert.equal(registry.mqtt, `mqtts://127.0.0.1:${port}`);
  assert.equal(await brokerState(registry), 'disconnected');
  const files = place.path('mosquitto');
  await registry.lepton(['broker', 'files', '--out', files]);
  const broker = await startMosquitto(place, files, port);
  await until('the registry found it', async () => (await brokerState(registry)) === 'connected');
  return { place, registry, broker, port, files };
}

async function inScene(work: (scene: Scene) => Promise<void>): Promise<void> {
  const place = workplace('mosquitto');
  try {
    await work(await openScene(place));
  } finally {
    await place.close();
  }
}

const presence = async ({ registry }: Scene, id: string): Promise<string> =>
  (await showDevice(registry, id)).presence;

/** Writes these numbers as records, however often it takes. */
async function write(agent: TestAgent, from: number, count: number): Promise<void> {
  const lines = Array.from({ length: count }, (_, index) =>
    JSON.stringify({ data: { number: from + index } }),
  );
  await until('the records are taken', async () => {
    const response = await fetch(`${agent.http}/telemetry/v1/records`, {
      method: 'POST',
      body: lines.join('\n'),
    });
    await response.arrayBuffer();
    return response.status === 200;
  });
}

async function storedNumbers({ registry }: Scene, agent: TestAgent): Promise<number[]> {
  const args = ['telemetry', 'query', '--device', agent.id, '--class', 'app', '--json'];
  const { stdout } = await registry.lepton(args);
  const records = stdout.split('\n').filter((line) => line !== '');
  return records
    .map((line) => Number((JSON.parse(line) as StoredRecord).data['number']))
    .sort((a, b) => a - b);
}

test('enrol, push, roll out, infer and store on mosquitto; it dies and comes back, nothing is lost', {
  skip: mosquittoMissing || dataMissing,
}, async () => {
  await inScene(async (scene) => {
    const { place, registry, broker } = scene;
    const agent = await startTestAgent(place, await makeClaim(place, registry), 'agent');
    await until(
      'it is online',
      async () => (await deviceNow(scene.registry, agent.id)).presence === 'online',
    );
    const model = modelCase('silero-vad/one-step-v5');
    const stored = async (count: number): Promise<void> => {
      await until(
        'all are stored',
        async () => {
          const records = await recordsNow(registry, { class: 'app', device: agent.id });
          return records.length >= count;
        },
        60_000,
      );
      assert.deepEqual(
        await storedNumbers(scene, agent),
        Array.from({ length: count }, (_, index) => index),
      );
    };
    await write(agent, 0, 500);
    await stored(500);

    // The registry dies, the device stays connected: what nobody answered is sent again, and stored once.
    await registry.daemon.stop('SIGKILL');
    await write(agent, 500, 500);
    await registry.restart();
    await pushModel(registry, model.modelPath, 'acme/vad@1.0.0');
    await rollOut(place, registry, 'acme/vad@1.0.0');
    await checkCase(agent.http, 'vad', model);
    await stored(1_000);

    await broker.kill();
    await until('the registry knows', async () => (await brokerState(registry)) === 'disconnected');
    const metrics = await (await fetch(`${registry.http}/metrics`)).text();
    assert.match(metrics, /^lepton_broker_connected 0$/m);
    await until('it is not known who is there', async () => (await presence(scene, agent.id)) === 'unknown');
    // Decided, and served, without a broker.
    await pushModel(registry, model.modelPath, 'acme/vad@1.1.0');
    const rollout = await startRollout(place, registry, 'acme/vad@1.1.0');
    await write(agent, 1_000, 500);
    await checkCase(agent.http, 'vad', model);

    await broker.start();
    await until('the registry is back', async () => (await brokerState(registry)) === 'connected');
    await until(
      'so is the device',
      async () => (await deviceNow(scene.registry, agent.id)).presence === 'online',
      60_000,
    );
    await registry.lepton(['rollout', 'watch', rollout]);
    await stored(1_500);
    await agent.daemon.stop();
    await until('it is gone', async () => (await presence(scene, agent.id)) === 'offline');
  });
});

interface RawDevice {
  id: string;
  dial(): TestClient;
}

/** A device that is nothing but its certificate. */
async function enrolRaw({ place, registry, port }: Scene): Promise<RawDevice> {
  const claim = claimFileSchema.parse(JSON.parse(readFileSync(await makeClaim(place, registry), 'utf8')));
  const seed = randomSeed();
  const id = deviceIdOf(publicKeyOf(seed));
  const credentials = { cert: claim.certificate, key: claim.privateKey };
  const client = newClient(port, claim.fleetCa, credentials, 'anything');
  assert.equal(await client.answer, 0);
  await client.subscribe(enrolReplyTopic(region, claim.claimId, 'attempt1'));
  const agent = { version: '0.1.0', runtime: '1', arch: 'x64' };
  const head = { schemaVersion: 1, messageId: 'm', sentAtMs: Date.now() } as const;
  const body = { ...head, csr: await makeDeviceRequest(seed), labels: {}, timezone: 'UTC', agent };
  await client.publish(
    enrolRequestTopic(region, claim.claimId, 'attempt1'),
    Buffer.from(encodeMessage(body)),
  );
  const reply = await client.received.until(() => true);
  const { result } = unwrap(parseMessage(enrolReplySchema, Buffer.from(reply.payload)));
  assert.ok(result.status === 'accepted');
  await client.end();
  const own = { cert: result.certificate, key: pkcs8PemFromSeed(seed) };
  return { id, dial: () => newClient(port, claim.fleetCa, own, id) };
}

const topics = (client: TestClient): string[] => client.received.all.map(({ topic }) => topic);

test('mosquitto with our rules: own topics only, none after a revocation, and no seat at the registry', {
  skip: mosquittoMissing,
}, async () => {
  await inScene(async (scene) => {
    const { registry, broker, port, files } = scene;
    const [one, other] = [await enrolRaw(scene), await enrolRaw(scene)];
    const nobody = newClient(port, readFileSync(`${files}/authorities.pem`, 'utf8'), {}, 'nobody');
    assert.equal(await nobody.answer, 'closed');

    const victim = other.dial();
    assert.equal(await victim.answer, 0);
    await victim.subscribe(
      deviceTopic(region, other.id, 'command'),
      deviceTopic(region, other.id, 'desired'),
    );
    await victim.received.until(({ topic }) => topic === deviceTopic(region, other.id, 'desired'));

    // Everything that is not its own, in one connection; then its own, which shows that the rest was handled before.
    const thief = one.dial();
    assert.equal(await thief.answer, 0);
    await thief.subscribe(
      '#',
      `lepton/1/${region}/#`,
      deviceTopic(region, other.id, 'desired'),
      deviceTopic(region, other.id, 'bytes'),
    );
    await thief.publish(deviceTopic(region, other.id, 'command'), 'not from the registry');
    await thief.publish(deviceTopic(region, other.id, 'presence'), presenceOf(true));
    await thief.publish(deviceTopic(region, one.id, 'presence'), presenceOf(true), { qos: 1, retain: true });
    await until(
      'its own presence counts',
      async () => (await deviceNow(scene.registry, one.id)).presence === 'online',
    );
    assert.notEqual(await presence(scene, other.id), 'online');
    await registry.lepton(['devices', 'label', other.id, 'site=a']);
    await registry.lepton(['devices', 'label', one.id, 'site=a']);
    const own = deviceTopic(region, one.id, 'desired');
    await until('its own assignment came', () => topics(thief).filter((topic) => topic === own).length >= 2);
    const foreign = topics(thief).filter(
      (topic) => !topic.includes(one.id) && topic !== tufTimestampTopic(region),
    );
    assert.deepEqual(foreign, [], 'what it hears is its own');
    assert.ok(!topics(victim).includes(deviceTopic(region, other.id, 'command')));

    // With another's client id it stays who it is, and ends nobody's connection.
    await victim.publish(deviceTopic(region, other.id, 'presence'), presenceOf(true), { qos: 1 });
    await until(
      'the other is still there',
      async () => (await deviceNow(scene.registry, other.id)).presence === 'online',
    );

    // It takes a seat where it thinks that the registry sits: nothing is kept from the registry.
    await thief.subscribe(
      ...['time', 'telemetry', 'presence'].map((channel) =>
        sharedFilter(`lepton-${region}`, `lepton/1/${region}/d/+/${channel}`),
      ),
    );
    await victim.subscribe(deviceTopic(region, other.id, 'time/reply'));
    for (let asked = 0; asked < 6; asked += 1) {
      const nonce = asked.toString(16).padStart(32, '0');
      const body = { schemaVersion: 1, messageId: 'm', sentAtMs: Date.now(), nonce } as const;
      await victim.publish(deviceTopic(region, other.id, 'time'), Buffer.from(encodeMessage(body)), {
        qos: 1,
      });
    }
    const replies = () =>
      topics(victim).filter((topic) => topic === deviceTopic(region, other.id, 'time/reply')).length;
    await until('every question was answered', () => replies() === 6);

    // Each subscription brings what is retained, as long as it may hear anything.
    const doorbell = tufTimestampTopic(region);
    const rung = () => topics(thief).filter((topic) => topic === doorbell).length;
    const rungBefore = rung();
    await thief.subscribe(doorbell);
    await until('it hears the doorbell', () => rung() > rungBefore);

    // Revoked: not heard at once; with new files neither let in nor heard by the broker.
    await registry.lepton(['devices', 'revoke', one.id]);
    const before = topics(thief).length;
    await registry.lepton(['broker', 'files', '--out', files]);
    await broker.reload();
    await until('it is refused', async () => (await one.dial().answer) === 'closed');
    const rungLast = rung();
    await thief.subscribe(doorbell);
    // Answered after whatever the subscription brought.
    await thief.publish(deviceTopic(region, one.id, 'presence'), presenceOf(true));
    assert.equal(rung(), rungLast, 'nor over the connection that it has');
    assert.equal(thief.socket.destroyed, false);
    await registry.lepton(['devices', 'label', other.id, 'site=b']);
    const desired = deviceTopic(region, other.id, 'desired');
    await until(
      'the other gets its next',
      () => topics(victim).filter((one_) => one_ === desired).length >= 3,
    );
    // Its last message at most: the empty one that takes back what it should run.
    assert.ok(
      topics(thief)
        .slice(before)
        .every((topic) => topic === own),
    );
    assert.equal(await victim.socket.destroyed, false);
  });
});

function presenceOf(online: boolean): Buffer {
  return Buffer.from(encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: Date.now(), online }));
}
