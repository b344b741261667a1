// Why: everything that must be refused over the real wire, each with its own code, seen where it was
// refused and at the registry. The agent is the real program; the registry runs in this process, so that a
// test can speak with a stolen bus or a stolen director key.
// Trusts: the registry's own parts. Must never: count a refusal that came with another code.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect, type IClientOptions, type MqttClient } from 'mqtt';
import { agentMigrations } from '../../agent/daemon.ts';
import { type Identity, loadIdentity } from '../../agent/trust/identity.ts';
import type { Registry } from '../../registry/registry.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import type { DeviceView } from '../../shared/wire/http.ts';
import {
  type Assignment,
  assignmentSchema,
  encodeMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { deviceTopic, everyDeviceFilter } from '../../shared/wire/topics.ts';
import { modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import {
  checkCase,
  makeClaim,
  pushModel,
  rollOut,
  showDevice,
  startRollout,
  writeGoldenFolder,
} from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import {
  type LeptonRunner,
  run,
  startTestAgent,
  type TestAgent,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';
import { openTestRegistry, testRegion } from '../support/registry.ts';

const region = testRegion;

describe('refused over the real wire', { skip: dataMissing }, () => {
  let place: Workplace;
  let registry: Registry;
  let lepton: LeptonRunner;
  let agent: TestAgent;
  let other: TestAgent;
  const digit = dataMissing === false ? modelCase('mnist/digit4-opset8') : null;

  before(async () => {
    place = workplace('refusals');
    ({ registry, lepton } = await openTestRegistry(place, { loaded: true }));
    const claim = await makeClaim(place, { lepton }, 'claim', ['--uses', '3']);
    agent = await startTestAgent(place, claim, 'agent');
    other = await startTestAgent(place, claim, 'other');
    assert.ok(digit);
    await pushModel({ lepton }, digit.modelPath, 'acme/mnist@1.0.0', [
      '--golden',
      writeGoldenFolder(place, digit),
    ]);
    assert.equal((await rollOut(place, { lepton }, 'acme/mnist@1.0.0')).state, 'succeeded');
  });
  after(async () => place.close());

  /** Waits for the event of this code about this subject. */
  async function registrySaw(code: ErrorCode, subject: string | null, source?: string): Promise<void> {
    await until(`the registry's event ${code} of ${subject}`, async () => {
      const events = await registry.parts.fleet.events.list({ limit: 1_000 });
      return events.some(
        (event) =>
          event.code === code &&
          event.subject === subject &&
          (source === undefined || event.source === source),
      );
    });
  }

  async function deviceLogged(one: TestAgent, event: string, code: ErrorCode): Promise<void> {
    await until(`the device's log line ${event} with ${code}`, () =>
      one.daemon.events().some((line) => line['event'] === event && line['code'] === code),
    );
  }

  async function assignmentMessage(deviceId: string): Promise<Uint8Array> {
    const row = await registry.parts.store.tx((db) =>
      db.sql.get<{ message: Uint8Array }>('SELECT message FROM assignments WHERE device_id = ?', deviceId),
    );
    assert.ok(row, 'the device has no assignment');
    return new Uint8Array(row.message);
  }

  function assignmentIn(message: Uint8Array): Assignment {
    const { envelope } = signedMessageSchema.parse(JSON.parse(new TextDecoder().decode(message)));
    return assignmentSchema.parse(JSON.parse(Buffer.from(envelope.payload, 'base64').toString()));
  }

  function desiredMessage(assignment: Assignment, signer: Signer): Uint8Array {
    return encodeMessage({
      schemaVersion: 1,
      messageId: randomBytes(8).toString('hex'),
      sentAtMs: Date.now(),
      envelope: signAssignment(assignment, signer),
    });
  }

  /** What somebody who owns the bus can do: put any bytes on a device's topic. */
  async function forge(deviceId: string, message: Uint8Array): Promise<void> {
    await registry.parts.bus.publish(deviceTopic(region, deviceId, 'desired'), message, {
      qos: 1,
      retain: false,
    });
  }

  async function stillServes(one: TestAgent): Promise<void> {
    assert.ok(digit);
    await checkCase(one.http, 'mnist', digit);
  }

  test('an assignment signed by a wrong key', async () => {
    const genuine = assignmentIn(await assignmentMessage(agent.id));
    const thief = signerFromSeed(new Uint8Array(randomBytes(32)), 'node');
    await forge(agent.id, desiredMessage({ ...genuine, epoch: genuine.epoch + 1, releases: [] }, thief));
    await deviceLogged(agent, 'assignment.refused', 'assignment-signature-invalid');
    await registrySaw('assignment-signature-invalid', agent.id, 'device');
    await stillServes(agent);
  });

  test("another device's assignment, also with a higher epoch, locks nobody out", async () => {
    const foreign = assignmentIn(await assignmentMessage(other.id));
    const director = registry.parts.keyring.signer('director');
    await forge(
      agent.id,
      desiredMessage({ ...foreign, epoch: foreign.epoch + 1_000, releases: [] }, director),
    );
    await deviceLogged(agent, 'assignment.refused', 'assignment-other-device');
    await registrySaw('assignment-other-device', agent.id, 'device');
    await stillServes(agent);
  });

  test('a release that the catalogue does not name, signed by the real director', async () => {
    const genuine = assignmentIn(await assignmentMessage(agent.id));
    const [release] = genuine.releases;
    assert.ok(release);
    const ghost = {
      ...genuine,
      epoch: genuine.epoch + 1,
      releases: [{ ...release, releaseId: 'acme/ghost@1.0.0' }],
    };
    await forge(agent.id, desiredMessage(ghost, registry.parts.keyring.signer('director')));
    await deviceLogged(agent, 'assignment.refused', 'target-unknown');
    await registrySaw('target-unknown', agent.id, 'device');
    await stillServes(agent);
  });

  test('other bytes than the publisher signed, signed by the real director', async () => {
    const genuine = assignmentIn(await assignmentMessage(agent.id));
    const [release] = genuine.releases;
    assert.ok(release);
    const swapped = {
      ...genuine,
      epoch: genuine.epoch + 1,
      releases: [{ ...release, manifestSha256: 'ab'.repeat(32) }],
    };
    await forge(agent.id, desiredMessage(swapped, registry.parts.keyring.signer('director')));
    await deviceLogged(agent, 'assignment.refused', 'target-digest-mismatch');
    await registrySaw('target-digest-mismatch', agent.id, 'device');
    await stillServes(agent);
  });

  test('a replayed older assignment, after which the device still updates', async () => {
    const older = await assignmentMessage(agent.id);
    const newer = modelCase('mnist/digit4-opset7');
    await pushModel({ lepton }, newer.modelPath, 'acme/mnist@2.0.0', [
      '--golden',
      writeGoldenFolder(place, newer),
    ]);
    assert.equal((await rollOut(place, { lepton }, 'acme/mnist@2.0.0')).state, 'succeeded');
    await forge(agent.id, older);
    await deviceLogged(agent, 'assignment.refused', 'assignment-replayed');
    await registrySaw('assignment-replayed', agent.id, 'device');
    assert.equal((await showDevice({ lepton }, agent.id)).models[0]?.active, 'acme/mnist@2.0.0');
  });

  test('a flipped bit in a blob: refused, reported, and the old release stays', async () => {
    const bad = modelCase('mnist/digit4-opset8');
    // Another file, so that the device must fetch it: the same graph with a byte more is still the same model.
    const padded = place.path('mnist-padded.onnx');
    // Field 6 (doc_string) of ModelProto, one character.
    writeFileSync(padded, Buffer.concat([readFileSync(bad.modelPath), Buffer.from([0x32, 0x01, 0x78])]));
    // A smaller file that was made before the bit flips would bring the right bytes.
    await registry.parts.encoding.stop();
    await pushModel({ lepton }, padded, 'acme/mnist@3.0.0', ['--golden', writeGoldenFolder(place, bad)]);
    const release = await registry.parts.releases.find('acme/mnist@3.0.0');
    const file = release?.manifest.files.find((one) => one.role === 'model');
    assert.ok(file);
    const blob = blobFile(place.path('registry', 'blobs'), file.sha256);
    const bytes = readFileSync(blob);
    bytes.writeUInt8(bytes.readUInt8(1_000) ^ 0x10, 1_000);
    writeFileSync(blob, bytes);

    const id = await startRollout(place, { lepton }, 'acme/mnist@3.0.0');
    await lepton(['rollout', 'watch', id], 1);
    await deviceLogged(agent, 'update.refused', 'blob-digest-mismatch');
    const device: DeviceView = await until('the device is back', async () => {
      const shown = await deviceNow({ http: registry.httpUrl, token: registry.adminToken }, agent.id);
      const [model] = shown.models;
      return model?.reason?.code === 'blob-digest-mismatch' || model?.state === 'committed' ? shown : null;
    });
    assert.equal(device.models[0]?.active, 'acme/mnist@2.0.0');
    await registrySaw('blob-digest-mismatch', agent.id, 'device');
    await stillServes(agent);
  });

  describe('what a device with its own key tries', () => {
    let rogue: Identity;

    before(async () => {
      const third = await startTestAgent(place, place.path('claim.json'), 'rogue');
      await third.daemon.stop();
      const store = await openStore(join(third.state, 'state.sqlite'), {
        synchronous: 'FULL',
        migrations: [...agentMigrations],
      });
      const identity = await loadIdentity(store);
      await store.close();
      assert.ok(identity);
      rogue = identity;
    });

    function ownOptions(): IClientOptions {
      const { hostname, port } = new URL(rogue.brokerUrl);
      return {
        protocol: 'mqtts',
        host: hostname,
        port: Number(port),
        clientId: rogue.deviceId,
        ca: rogue.fleetCa,
        cert: rogue.certificate,
        key: pkcs8PemFromSeed(rogue.seed),
        protocolVersion: 4,
        reconnectPeriod: 0,
      };
    }
    const client = (options: IClientOptions = {}): MqttClient => connect({ ...ownOptions(), ...options });

    const connected = (one: MqttClient): Promise<void> =>
      new Promise((resolve, reject) => {
        one.once('connect', () => resolve());
        one.once('error', reject);
        one.once('close', () => reject(new Error('closed before CONNACK')));
      });
    /** Ends without ever having been connected; gives the broker's return code where it sent one. */
    const refusedConnection = (one: MqttClient): Promise<number | null> =>
      new Promise((resolve, reject) => {
        let code: number | null = null;
        one.once('connect', () => reject(new Error('the broker let it in')));
        one.on('error', (error) => {
          if ('code' in error && typeof error.code === 'number') code = error.code;
        });
        one.once('close', () => resolve(code));
      });
    const closed = (one: MqttClient): Promise<void> =>
      new Promise((resolve) => one.once('close', () => resolve()));

    const topics: [string, () => { topic: string; retain: boolean }][] = [
      ["another device's topic", () => ({ topic: deviceTopic(region, agent.id, 'reported'), retain: false })],
      [
        'a retained desired of its own making',
        () => ({ topic: deviceTopic(region, rogue.deviceId, 'desired'), retain: true }),
      ],
      ['a retained report', () => ({ topic: deviceTopic(region, rogue.deviceId, 'reported'), retain: true })],
    ];
    for (const [what, where] of topics) {
      test(`publishing to ${what}`, async () => {
        const before_ = (await registry.parts.fleet.events.list({ limit: 1_000 })).filter(
          (event) => event.code === 'broker-publish-denied' && event.subject === rogue.deviceId,
        ).length;
        const one = client();
        await connected(one);
        const ended = closed(one);
        const { topic, retain } = where();
        one.on('error', () => undefined);
        one.publish(topic, 'x', { qos: 1, retain });
        await ended;
        one.end(true);
        await until('one more broker-publish-denied', async () => {
          const events = await registry.parts.fleet.events.list({ limit: 1_000 });
          return (
            events.filter(
              (event) => event.code === 'broker-publish-denied' && event.subject === rogue.deviceId,
            ).length > before_
          );
        });
      });
    }

    test('nothing of that was retained', async () => {
      const one = client();
      await connected(one);
      const heard: string[] = [];
      one.on('message', (topic, payload) => heard.push(`${topic} ${payload}`));
      const granted = await one.subscribeAsync(deviceTopic(region, rogue.deviceId, 'desired'), { qos: 1 });
      assert.equal(granted[0]?.qos, 1);
      await one.endAsync();
      assert.ok(heard.every((line) => !line.endsWith(' x')));
    });

    test('subscribing outside its topics', async () => {
      const one = client();
      await connected(one);
      for (const filter of [
        '#',
        everyDeviceFilter(region, 'reported'),
        deviceTopic(region, agent.id, 'desired'),
      ]) {
        // mqtt.js reports a SUBACK of 128 as an error.
        await assert.rejects(one.subscribeAsync(filter), /128|not authorized|Unspecified error/i);
      }
      await one.endAsync();
      await registrySaw('broker-subscribe-denied', rogue.deviceId, 'broker');
    });

    test('connecting without a client certificate', async () => {
      const { cert, key, ...anonymous } = ownOptions();
      assert.ok(cert !== undefined && key !== undefined);
      const one = connect(anonymous);
      assert.equal(await refusedConnection(one), null);
      one.end(true);
      await registrySaw('broker-no-certificate', null, 'broker');
    });

    test('borrowing a client id', async () => {
      const one = client({ clientId: agent.id });
      assert.equal(await refusedConnection(one), 2);
      one.end(true);
      await registrySaw('broker-client-id-borrowed', rogue.deviceId, 'broker');
      assert.equal((await showDevice({ lepton }, agent.id)).presence, 'online');
    });

    test('a revoked device is thrown out at once and never let in again', async () => {
      const one = client();
      await connected(one);
      const ended = closed(one);
      await lepton(['devices', 'revoke', rogue.deviceId]);
      await ended;
      one.end(true);
      const again = client();
      assert.equal(await refusedConnection(again), 5);
      again.end(true);
      await registrySaw('device-revoked', rogue.deviceId);
      const restarted = await startTestAgent(place, null, 'rogue');
      await deviceLogged(restarted, 'bus.refused', 'broker-not-authorized');
      await restarted.daemon.stop();
    });
  });

  test('a used-up claim and an expired claim: the agent says which, and ends', async () => {
    const used = await run(
      'agent',
      ['run', '--claim', place.path('claim.json'), '--state', place.path('late'), '--http', '127.0.0.1:0'],
      {
        env: place.env,
      },
    );
    assert.equal(used.code, 1, used.stderr);
    assert.match(used.stderr, /^lepton: claim-used-up: /m);

    const short = await makeClaim(place, { lepton }, 'short', ['--ttl', '1s']);
    const claim = JSON.parse(readFileSync(short, 'utf8')) as { claimId: string; expiresAtMs: number };
    await until('the claim has expired', () => Date.now() > claim.expiresAtMs + 1_000);
    const expired = await run(
      'agent',
      ['run', '--claim', short, '--state', place.path('late'), '--http', '127.0.0.1:0'],
      {
        env: place.env,
      },
    );
    assert.equal(expired.code, 1, expired.stderr);
    assert.match(expired.stderr, /^lepton: claim-expired: /m);
    await registrySaw('claim-expired', claim.claimId, 'enrolment');
    const first = JSON.parse(readFileSync(place.path('claim.json'), 'utf8')) as { claimId: string };
    await registrySaw('claim-used-up', first.claimId, 'enrolment');
  });
});

function blobFile(folder: string, sha256: string): string {
  const found = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((name) =>
    name.endsWith(sha256),
  );
  assert.ok(found, `no blob ${sha256} in ${folder}`);
  return join(folder, found);
}
