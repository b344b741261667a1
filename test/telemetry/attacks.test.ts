// Why: what a thief of a device's key, of the bus or of another device can try with telemetry, over the real
// wire: each refused with its own code, nothing of it stored, nothing of the device's lost.
// Trusts: the registry's own parts. Must never: count a refusal that came with another code.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect, type MqttClient } from 'mqtt';
import { agentMigrations } from '../../agent/daemon.ts';
import { type Identity, loadIdentity } from '../../agent/trust/identity.ts';
import type { Registry } from '../../registry/registry.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import {
  checkAnswer,
  checkStatement,
  decodeBatchMessage,
  encodeBatchMessage,
  signAnswer,
  signStatement,
} from '../../shared/trust/telemetry.ts';
import {
  assignmentSchema,
  encodeMessage,
  parseMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import {
  type BatchAnswer,
  resendBatchesMax,
  type StoredRecord,
  storedRecordSchema,
} from '../../shared/wire/telemetry.ts';
import { deviceTopic, everyDeviceFilter } from '../../shared/wire/topics.ts';
import { makeClaim, showDevice } from '../support/fleet.ts';
import {
  type LeptonRunner,
  startTestAgent,
  type TestAgent,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';
import { openTestRegistry, testRegion } from '../support/registry.ts';
import { BatchMaker, bombBody, recordsOf } from './batch-maker.ts';

const region = testRegion;

/** Somebody who holds a device's key and speaks MQTT: the device itself, or a thief. */
interface Speaker {
  identity: Identity;
  maker: BatchMaker;
  client: MqttClient;
  answers: BatchAnswer[];
  send(message: Uint8Array): Promise<void>;
  /** Sends and waits for the answer about this batch. */
  exchange(batch: { message: Uint8Array; headSha256: string }): Promise<BatchAnswer['result']>;
  refusal(batch: { message: Uint8Array; headSha256: string }): Promise<string>;
}

describe('telemetry attacked over the real wire', () => {
  let place: Workplace;
  let registry: Registry;
  let lepton: LeptonRunner;
  let agent: TestAgent;
  let speaker: Speaker;
  let thief: Speaker;

  before(async () => {
    place = workplace('telemetry');
    ({ registry, lepton } = await openTestRegistry(place, { loaded: true }));
    const claim = await makeClaim(place, { lepton }, 'claim', ['--uses', '3']);
    speaker = await speakerFor(await stolenIdentity(claim, 'speaker'));
    thief = await speakerFor(await stolenIdentity(claim, 'thief'));
    agent = await startTestAgent(place, claim, 'agent');
  });
  after(async () => place.close());

  /** Enrols the real agent, stops it and takes its key from the disk. */
  async function stolenIdentity(claim: string, name: string): Promise<Identity> {
    const victim = await startTestAgent(place, claim, name);
    await victim.daemon.stop();
    const store = await openStore(join(victim.state, 'state.sqlite'), {
      synchronous: 'FULL',
      migrations: [...agentMigrations],
    });
    const identity = await loadIdentity(store);
    await store.close();
    assert.ok(identity);
    return identity;
  }

  async function speakerFor(identity: Identity): Promise<Speaker> {
    const { deviceId } = identity;
    const { hostname, port } = new URL(identity.brokerUrl);
    const client = connect({
      protocol: 'mqtts',
      host: hostname,
      port: Number(port),
      clientId: deviceId,
      ca: identity.fleetCa,
      cert: identity.certificate,
      key: pkcs8PemFromSeed(identity.seed),
      protocolVersion: 4,
      reconnectPeriod: 0,
    });
    place.onClose(() => client.endAsync(true));
    const regionRoot = unwrap(parseRegionRoot(await registry.parts.repository.regionRoot()));
    const answers: BatchAnswer[] = [];
    let desired: Uint8Array | null = null;
    client.on('message', (topic, payload) => {
      if (topic.endsWith('/desired')) desired = payload;
      else {
        const { envelope } = unwrap(parseMessage(signedMessageSchema, payload));
        answers.push(unwrap(checkAnswer({ envelope, regionRoot, deviceId, region })));
      }
    });
    await client.subscribeAsync(
      [deviceTopic(region, deviceId, 'desired'), deviceTopic(region, deviceId, 'telemetry/ack')],
      { qos: 1 },
    );
    const message = await until('the device’s assignment', () => desired);
    const { envelope } = unwrap(parseMessage(signedMessageSchema, message));
    const assignment = assignmentSchema.parse(JSON.parse(Buffer.from(envelope.payload, 'base64').toString()));
    const key = assignment.telemetry;
    assert.ok(key, 'a telemetry key in the first assignment');
    const maker = new BatchMaker({ seed: identity.seed, region, key, entropy: systemEntropy });
    const send = async (bytes: Uint8Array): Promise<void> => {
      await client.publishAsync(deviceTopic(region, deviceId, 'telemetry'), Buffer.from(bytes), { qos: 1 });
    };
    const exchange: Speaker['exchange'] = async (batch) => {
      const from = answers.length;
      await send(batch.message);
      const found = await until('the answer', () =>
        answers.slice(from).find((answer) => answer.headSha256 === batch.headSha256),
      );
      return found.result;
    };
    return {
      identity,
      maker,
      client,
      answers,
      send,
      exchange,
      async refusal(batch) {
        const result = await exchange(batch);
        assert.equal(result.status, 'refused');
        return result.code;
      },
    };
  }

  async function registrySaw(code: ErrorCode, subject: string, source: string): Promise<void> {
    await until(`the registry's event ${code} of ${subject}`, async () => {
      const events = await registry.parts.fleet.events.list({ code, subject, limit: 100 });
      return events.some((event) => event.source === source);
    });
  }

  async function storedOf(deviceId: string): Promise<StoredRecord[]> {
    const { stdout } = await lepton(['telemetry', 'query', '--device', deviceId, '--json']);
    return stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => storedRecordSchema.parse(JSON.parse(line)));
  }

  test('honest batches are stored and can be read with the CLI', async () => {
    const { maker, identity } = speaker;
    const batch = await maker.make(recordsOf(3, 0, 'acme/digits@1.0.0'));
    assert.deepEqual(await speaker.exchange(batch), { status: 'stored', records: 3 });
    const rows = await maker.make(recordsOf(2, 3), { format: 'rows', class: 'event' });
    assert.deepEqual(await speaker.exchange(rows), { status: 'stored', records: 2 });
    const stored = await storedOf(identity.deviceId);
    assert.deepEqual(
      stored.map((record) => [record.sequence, record.index, record.class, record.data['number']]),
      [
        [1, 0, 'app', 0],
        [1, 1, 'app', 1],
        [1, 2, 'app', 2],
        [2, 0, 'event', 3],
        [2, 1, 'event', 4],
      ],
    );
    const query = ['telemetry', 'query', '--device', identity.deviceId];
    const table = (await lepton([...query, '--class', 'event'])).stdout.trimEnd().split('\n');
    assert.equal(table.length, 3);
    assert.match(table[0] ?? '', /^TIME +DEVICE +CLASS +RELEASE +DATA$/);
    assert.equal((await lepton([...query, '--since', '1m'])).stdout, '(none)\n');
    const limited = await lepton([...query, '--release', 'acme/digits@1.0.0', '--limit', '2', '--json']);
    assert.equal(limited.stdout.split('\n').length, 3);
    const out = place.path('export.ndjson');
    const exported = await lepton([
      'telemetry',
      'export',
      '--device',
      identity.deviceId,
      '--out',
      out,
      '--json',
    ]);
    assert.deepEqual(exported.json(), { file: out, records: 5 });
    const lines = readFileSync(out, 'utf8').split('\n').slice(0, -1);
    assert.deepEqual(
      lines.map((line) => storedRecordSchema.parse(JSON.parse(line))),
      stored,
    );
    const csv = place.path('export.csv');
    await lepton([
      ...['telemetry', 'export', '--device', identity.deviceId, '--class', 'event'],
      ...['--format', 'csv', '--out', csv],
    ]);
    const rowsOfCsv = readFileSync(csv, 'utf8').split('\r\n');
    assert.equal(rowsOfCsv.length, 4, 'a head, two records and the end');
    assert.match(rowsOfCsv[1] ?? '', /,2,0,event,2026-01-01T00:00:00\.003Z,,"\{""number"":3,/);
    assert.match(
      (await lepton(['telemetry', 'query', '--device', 'x'], 2)).stderr,
      /^lepton: input-invalid: /,
    );
    assert.match(
      (await lepton(['telemetry', 'query', '--class', 'x'], 2)).stderr,
      /^lepton: config-invalid: /,
    );
    const nowhere = ['telemetry', 'export', '--out', place.path('no', 'such', 'folder')];
    assert.match((await lepton(nowhere, 1)).stderr, /^lepton: disk-io: /);
  });

  test('edit: of the body and of the statement', async () => {
    const { maker, identity } = speaker;
    const batch = await maker.make(recordsOf(3), { aside: true });
    const body = new Uint8Array(batch.message);
    const at = body.length - 5;
    body[at] = (body[at] ?? 0) ^ 1;
    await speaker.send(body);
    await registrySaw('telemetry-body-mismatch', identity.deviceId, 'registry');
    const said = Buffer.from(batch.envelope.payload, 'base64').toString().replace(':3,', ':2,');
    const envelope = { ...batch.envelope, payload: Buffer.from(said).toString('base64') };
    await speaker.send(encodeBatchMessage({ ...batch, envelope }));
    await registrySaw('telemetry-signature-invalid', identity.deviceId, 'registry');
  });

  test('gap and broken chain', async () => {
    const { maker } = speaker;
    const ahead = await maker.make(recordsOf(1), { aside: true, head: { sequence: maker.sequence + 2 } });
    const result = await speaker.exchange(ahead);
    assert.ok(result.status === 'refused');
    assert.deepEqual([result.code, result.expectedSequence], ['telemetry-gap', maker.sequence + 1]);
    const broken = await maker.make(recordsOf(1), {
      aside: true,
      head: { previousHeadSha256: 'ab'.repeat(32) },
    });
    assert.equal(await speaker.refusal(broken), 'telemetry-chain-broken');
  });

  test('another device signs a batch again', async () => {
    const stolen = await speaker.maker.make(recordsOf(3), { aside: true });
    const said = { format: 'packed' as const, recordCount: 3, plainBytes: 1_000, ...stolen };
    const resigned = { ...stolen, envelope: signStatement(said, thief.maker.signer) };
    await thief.send(encodeBatchMessage(resigned));
    await registrySaw('telemetry-other-device', thief.identity.deviceId, 'registry');
    // The bus does not let it on the other's topic; who owns the bus gets it there and is refused as well.
    registry.parts.fleet.receiveTelemetry(speaker.identity.deviceId, encodeBatchMessage(resigned));
    await registrySaw('telemetry-signature-invalid', speaker.identity.deviceId, 'registry');
  });

  test('decompression bomb', async () => {
    const bytes = 32 * 1024 * 1024;
    const body = (key: Uint8Array) => bombBody(key, bytes);
    for (const plainBytes of [1_000, bytes]) {
      const bomb = await speaker.maker.make([], { recordCount: 1, plainBytes, body, aside: true });
      assert.equal(await speaker.refusal(bomb), 'telemetry-too-large');
    }
  });

  test('replay: answered as stored while the device may have missed the answer, refused later', async () => {
    const { maker, identity } = speaker;
    const before_ = (await storedOf(identity.deviceId)).length;
    const kept = await maker.make(recordsOf(1));
    for (let n = 0; n < 2; n += 1) {
      assert.deepEqual(await speaker.exchange(kept), { status: 'stored', records: 1 });
    }
    for (let n = 0; n < resendBatchesMax; n += 1) {
      assert.equal((await speaker.exchange(await maker.make(recordsOf(1, n)))).status, 'stored');
    }
    assert.equal(await speaker.refusal(kept), 'telemetry-replayed');
    await registrySaw('telemetry-replayed', identity.deviceId, 'registry');
    assert.equal((await storedOf(identity.deviceId)).length, before_ + 1 + resendBatchesMax);
  });

  test('a cloned device is shut out, and comes back when somebody released it', async () => {
    const { identity, client } = speaker;
    const count = (await storedOf(identity.deviceId)).length;
    const clone = new BatchMaker({
      seed: identity.seed,
      region,
      key: speaker.maker.key,
      entropy: systemEntropy,
    });
    const batch = await clone.make(recordsOf(1, 1_000), { head: { openedAtMs: 1 } });
    const closed = new Promise<void>((resolve) => client.once('close', () => resolve()));
    await speaker.send(batch.message);
    await closed;
    await registrySaw('telemetry-cloned', identity.deviceId, 'registry');
    assert.equal((await showDevice({ lepton }, identity.deviceId)).status, 'quarantined');
    await assert.rejects(speakerFor(identity));
    await registrySaw('device-quarantined', identity.deviceId, 'broker');
    await lepton(['devices', 'release', identity.deviceId]);
    const back = await speakerFor(identity);
    back.maker.sequence = speaker.maker.sequence;
    back.maker.previousHeadSha256 = speaker.maker.previousHeadSha256;
    assert.equal((await back.exchange(await back.maker.make(recordsOf(1)))).status, 'stored');
    assert.equal((await storedOf(identity.deviceId)).length, count + 1);
  });

  test('forged acknowledgement: the device keeps what the region did not sign for', async () => {
    // The region cannot commit for a while, so that only the forgeries answer.
    const { store, keyring } = registry.parts;
    const { tx } = store;
    const count = (db: Parameters<Parameters<typeof tx>[0]>[0]): number =>
      db.sql.get<{ n: number }>('SELECT count(*) AS n FROM telemetry_batches WHERE device_id = ?', agent.id)
        ?.n ?? 0;
    store.tx = (work) =>
      tx((db) => {
        const before_ = count(db);
        const value = work(db);
        if (count(db) !== before_) throw new FleetError('disk-full', 'no room');
        return value;
      });
    const heard: Uint8Array[] = [];
    const ear = await registry.parts.bus.subscribe(everyDeviceFilter(region, 'telemetry'), (message) => {
      if (message.topic === deviceTopic(region, agent.id, 'telemetry')) heard.push(message.payload);
    });
    const response = await fetch(`${agent.http}/telemetry/v1/records`, {
      method: 'POST',
      body: `${JSON.stringify({ data: { marker: 'must not be lost' } })}\n`,
    });
    assert.equal(response.status, 200, await response.text());
    const found = await tx((db) =>
      db.first(store.qb.selectFrom('devices').select('public_key').where('device_id', '=', agent.id)),
    );
    assert.ok(found);
    const devicePublicKey = new Uint8Array(found.public_key);
    const forge = async (payload: Uint8Array, signer: Signer, deviceId = agent.id): Promise<void> => {
      const { envelope } = unwrap(decodeBatchMessage(payload));
      const sent = unwrap(checkStatement({ envelope, devicePublicKey, deviceId: agent.id, region }));
      const { head, headSha256, statement } = sent;
      const answer: BatchAnswer = {
        schemaVersion: 1,
        deviceId,
        region,
        epoch: head.epoch,
        sequence: head.sequence,
        headSha256,
        result: { status: 'stored', records: statement.recordCount },
      };
      const message = encodeMessage({
        schemaVersion: 1,
        messageId: 'forged',
        sentAtMs: Date.now(),
        envelope: signAnswer(answer, signer),
      });
      const topic = deviceTopic(region, agent.id, 'telemetry/ack');
      await registry.parts.bus.publish(topic, message, { qos: 1, retain: false });
    };
    const sealed = await until('a batch of the agent', () => heard[0]);
    const refusals = (): number =>
      agent.daemon.events().filter((line) => line['code'] === 'telemetry-answer-invalid').length;
    // Signed by a stranger; by another of the region's keys; by the right key, but for another device.
    await forge(sealed, signerFromSeed(systemEntropy.bytes(32), 'node'));
    await until('the first refusal', () => refusals() >= 1);
    await forge(sealed, keyring.signer('director'));
    await until('the second refusal', () => refusals() >= 2);
    await forge(sealed, keyring.signer('ack'), thief.identity.deviceId);
    await until('the third refusal', () => refusals() >= 3);
    await registrySaw('telemetry-answer-invalid', agent.id, 'device');
    assert.ok((await storedOf(agent.id)).every((record) => record.class !== 'app'));
    store.tx = tx;
    await ear.cancel();
    const records = await until('the record in the store', async () => {
      const found = (await storedOf(agent.id)).filter((record) => record.class === 'app');
      return found.length > 0 ? found : null;
    });
    assert.deepEqual(
      records.map((record) => record.data),
      [{ marker: 'must not be lost' }],
    );
  });
});
