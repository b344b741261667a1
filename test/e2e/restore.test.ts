// Why: with real programs: a registry is lost and comes back from an old backup; what its device holds, signed, heals
// it, and the next release arrives. Trusts: the device's and the registry's own answers for what they hold.
// Must never: heal anything by hand, or leave it open whether a forged file changed something.

import assert from 'node:assert/strict';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectAsync } from 'mqtt';
import { agentMigrations } from '../../agent/daemon.ts';
import { type AgentStatus, agentStatusSchema } from '../../agent/status.ts';
import { type Identity, loadIdentity } from '../../agent/trust/identity.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import {
  makeRoot,
  makeTargets,
  makeTimestamp,
  parseTimestampFile,
} from '../../shared/trust/tuf/repository.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { fleetEvents, makeClaim, pushModel, rollOut, showDevice } from '../support/fleet.ts';
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

const region = 'eu-west';
const dayMs = 86_400_000;
/** A device that comes back waits longer where a busy machine starts its registry slowly. */
const patienceMs = 120_000;

async function statusOf(agent: TestAgent): Promise<AgentStatus> {
  return agentStatusSchema.parse(await (await fetch(`${agent.http}/status`)).json());
}

async function metadata(registry: TestRegistry, name: string): Promise<Uint8Array | null> {
  const response = await fetch(`${registry.http}/api/v1/metadata/${name}`, {
    headers: { authorization: `Bearer ${registry.token}` },
  });
  return response.ok ? new Uint8Array(await response.arrayBuffer()) : null;
}

async function codes(registry: TestRegistry): Promise<string[]> {
  return (await fleetEvents(registry)).map((event) => event.code);
}

async function release(place: Workplace, registry: TestRegistry, id: string, factor: number): Promise<void> {
  const file = place.path(`times-${factor}.onnx`);
  writeFileSync(file, tinyModel(factor));
  await pushModel(registry, file, id);
  const status = await rollOut(place, registry, id);
  assert.equal(status.state, 'succeeded', JSON.stringify(status));
}

/** Who the device in this folder is; its agent does not run. */
async function identityOf(agent: TestAgent): Promise<Identity> {
  const store = await openStore(join(agent.state, 'state.sqlite'), {
    synchronous: 'FULL',
    migrations: agentMigrations,
  });
  const identity = await loadIdentity(store);
  await store.close();
  return identity ?? assert.fail('the device is not enrolled');
}

test('a registry restored from an old backup is healed by its device and goes on', async () => {
  const place = workplace('restore');
  try {
    const registry = await startTestRegistry(place);
    const claim = await makeClaim(place, registry, 'claim', ['--uses', '2']);
    const agent = await startTestAgent(place, claim, 'agent');
    const { pid } = agent.daemon.child;
    await release(place, registry, 'acme/tiny@1.0.0', 2);

    const data = place.path('registry');
    await registry.daemon.stop();
    cpSync(data, place.path('backup'), { recursive: true });
    await registry.restart();
    await release(place, registry, 'acme/tiny@2.0.0', 3);
    const before = await statusOf(agent);
    assert.equal(before.models[0]?.active, 'acme/tiny@2.0.0');
    assert.ok(before.held);

    // Destroyed in the middle of its work, and back as it was.
    await registry.daemon.stop('SIGKILL');
    rmSync(data, { recursive: true });
    cpSync(place.path('backup'), data, { recursive: true });
    await registry.restart();
    const restored = unwrap(
      parseTimestampFile((await metadata(registry, 'timestamp.json')) ?? new Uint8Array()),
    );
    assert.ok(restored.version <= before.held.timestamp);

    const healed = await until(
      'the device goes on above what it held',
      async () => {
        const status = await statusOf(agent);
        const { held } = status;
        const isAbove = held !== null && held.timestamp > (before.held?.timestamp ?? 0);
        return isAbove && status.epoch > before.epoch ? status : null;
      },
      patienceMs,
    );
    assert.ok((healed.held?.snapshot ?? 0) > before.held.snapshot);
    const seen = await until(
      'the operator is told what happened',
      async () => {
        const told = await codes(registry);
        const expected = ['restore-suspected', 'restore-adopted', 'lost-in-restore'];
        return expected.every((code) => told.includes(code)) ? told : null;
      },
      patienceMs,
    );
    assert.ok(!seen.includes('held-invalid'));

    const liar = await startTestAgent(place, claim, 'liar');
    await liar.daemon.stop();
    await offerForged({ registry, liar });
    await registry.lepton(['devices', 'revoke', liar.id]);

    await release(place, registry, 'acme/tiny@3.0.0', 5);
    assert.equal((await showDevice(registry, agent.id)).models[0]?.active, 'acme/tiny@3.0.0');
    assert.deepEqual([agent.daemon.child.pid, agent.daemon.child.exitCode], [pid, null], 'never visited');
  } finally {
    await place.close();
  }
});

/** An enrolled device that lies about what it holds: newer files, signed by nobody who may. */
async function offerForged({ registry, liar }: { registry: TestRegistry; liar: TestAgent }): Promise<void> {
  const identity = await identityOf(liar);
  const own = signerFromSeed(identity.seed, 'node');
  const spec = { keys: [own.publicKey], threshold: 1 };
  const name = 'timestamp.json';
  const genuine = await metadata(registry, name);
  assert.ok(genuine);
  const { version } = unwrap(parseTimestampFile(genuine));
  const expiresAtMs = Date.now() + 30 * dayMs;
  const high = { version: version + 100, expiresAtMs, signers: [own] };
  const edited = JSON.parse(Buffer.from(genuine).toString());
  edited.signed.version += 100;
  const assignment = {
    schemaVersion: 1 as const,
    deviceId: liar.id,
    region,
    epoch: 900,
    issuedAtMs: Date.now(),
    expiresAtMs,
    labels: {},
    releases: [],
    telemetry: null,
    authoritiesSha256: null,
  };
  const forged: [string, Uint8Array][] = [
    ['timestamp', makeTimestamp({ ...high, snapshot: { version: 500, bytes: null, sha256: null } })],
    ['timestamp', Buffer.from(JSON.stringify(edited))],
    ['targets', makeTargets({ ...high, delegations: [{ namespace: 'acme', ...spec }] })],
    ['ns/acme', makeTargets(high)],
    [
      'root',
      makeRoot({
        ...high,
        version: 2,
        roles: { root: spec, targets: spec, snapshot: spec, timestamp: spec },
      }),
    ],
    ['assignment', encodeMessage(signAssignment(assignment, own))],
  ];
  const names = [name, '2.root.json', `${version + 100}.targets.json`, `${version + 100}.acme.json`];
  const served = async () => Promise.all(names.map((one) => metadata(registry, one)));
  const before = await served();

  const { hostname, port } = new URL(identity.brokerUrl);
  const client = await connectAsync({
    protocol: 'mqtts',
    host: hostname,
    port: Number(port),
    clientId: identity.deviceId,
    ca: identity.fleetCa,
    cert: identity.certificate,
    key: pkcs8PemFromSeed(identity.seed),
    protocolVersion: 4,
    reconnectPeriod: 0,
  });
  try {
    for (const [index, [file, bytes]] of forged.entries()) {
      const piece = {
        schemaVersion: 1,
        messageId: `forged-${index}`,
        sentAtMs: Date.now(),
        kind: 'held',
        file,
        sha256: sha256Hex(bytes),
        totalBytes: bytes.length,
        offset: 0,
        bytes: Buffer.from(bytes).toString('base64'),
      };
      const topic = deviceTopic(region, identity.deviceId, 'result');
      await client.publishAsync(topic, Buffer.from(encodeMessage(piece)), { qos: 1 });
    }
    await until('each forged file is an event', async () => {
      const events = await eventsNow(registry, liar.id);
      const invalid = events.filter((event) => event.code === 'held-invalid');
      assert.ok(invalid.every((event) => event.attack));
      return invalid.length === forged.length;
    });
  } finally {
    await client.endAsync();
  }
  assert.deepEqual(await served(), before, 'nothing changed');
  assert.equal((await showDevice(registry, liar.id)).status, 'active');
}
