// Why: kill -9 in the middle of refreshes of the real agent: what was verified once is never undercut.
// Trusts: the registry in this process for when a refresh is served; the agent's own database for what it holds.
// Must never: pass where no kill fell between a refresh's bytes and its commit.

import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadTrust } from '../../agent/trust/trust-store.ts';
import { startRegistry } from '../../registry/registry.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import {
  parseRootFile,
  parseSnapshotFile,
  parseTargetsFile,
  parseTimestampFile,
} from '../../shared/trust/tuf/repository.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { makeClaim, pushModel, rollOut, showDevice } from '../support/fleet.ts';
import { leptonRunner, startTestAgent, until, workplace } from '../support/processes.ts';

const kills = 40;

/** Everything that must never fall, read from the dead agent's database. */
async function heldNumbers(state: string): Promise<Record<string, number>> {
  const store = await openStore(join(state, 'state.sqlite'), { synchronous: 'FULL', readOnly: true });
  try {
    const trust = await loadTrust(store);
    assert.ok(trust);
    const { catalogue } = trust;
    const root = parseRootFile(catalogue.root);
    const region = parseRegionRoot(trust.regionRoot);
    const timestamp = catalogue.timestamp === null ? null : parseTimestampFile(catalogue.timestamp);
    const snapshot = catalogue.snapshot === null ? null : parseSnapshotFile(catalogue.snapshot);
    const targets = catalogue.targets === null ? null : parseTargetsFile(catalogue.targets);
    const counter = await store.tx((db) =>
      db.get<{ counter: number }>('SELECT counter FROM report_counter WHERE id = 1'),
    );
    assert.ok(root.ok && region.ok && timestamp?.ok && snapshot?.ok && targets?.ok, 'a stored file is torn');
    return {
      root: root.value.version,
      regionRoot: region.value.version,
      timestamp: timestamp.value.version,
      snapshot: snapshot.value.version,
      targets: targets.value.version,
      epoch: trust.assignment?.epoch ?? 0,
      reports: counter?.counter ?? 0,
    };
  } finally {
    await store.close();
  }
}

test(`${kills} times kill -9 during a refresh: no version ever goes back`, async () => {
  const place = workplace('refresh-kills');
  try {
    const onEvent = new Set<(event: LogEvent) => void>();
    const registry = await startRegistry({
      dataFolder: place.path('registry'),
      region: 'eu-west',
      http: { host: '127.0.0.1', port: 0 },
      mqtt: { host: '127.0.0.1', port: 0 },
      version: '0.0.0-test',
      clock: systemClock,
      entropy: systemEntropy,
      log: {
        emit: (_level, event) => {
          for (const listener of [...onEvent]) listener(event);
        },
      },
    });
    place.onClose(() => registry.stop());
    const lepton = leptonRunner(place, { http: registry.httpUrl, token: registry.adminToken }, true);
    const agent = await startTestAgent(place, await makeClaim(place, { lepton }));
    writeFileSync(place.path('model.onnx'), tinyModel(2));
    await pushModel({ lepton }, place.path('model.onnx'), 'acme/kept@1.0.0');
    await rollOut(place, { lepton }, 'acme/kept@1.0.0');

    /** A new namespace: new targets, snapshot and timestamp; then a new assignment, which makes the agent refresh. */
    const change = async (round: number): Promise<void> => {
      const key = Buffer.from(publicKeyOf(new Uint8Array(randomBytes(32)))).toString('hex');
      const named = await registry.parts.repository.delegate(`ns${round}`, [key], 1);
      assert.ok(named.ok);
      const labelled = await registry.parts.fleet.devices.label(agent.id, { round: String(round) });
      assert.ok(labelled.ok);
    };

    await agent.daemon.stop('SIGKILL');
    let before = await heldNumbers(agent.state);
    let inTheMiddle = 0;
    for (let round = 1; round <= kills; round += 1) {
      // While the agent is down, so that it refreshes as soon as it is back.
      await change(round);
      const delayMs = round % 2 === 0 ? 0 : randomInt(0, 60);
      const served = new Promise<void>((resolve) => {
        const listener = (event: LogEvent): void => {
          if (event !== 'fetch.served') return;
          onEvent.delete(listener);
          resolve();
        };
        onEvent.add(listener);
      });
      await agent.restart();
      await served;
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
      await agent.daemon.stop('SIGKILL');
      const after = await heldNumbers(agent.state);
      for (const [name, number] of Object.entries(before)) {
        assert.ok(
          (after[name] ?? 0) >= number,
          `round ${round}: ${name} went from ${number} to ${after[name]}`,
        );
      }
      if (after['timestamp'] === before['timestamp']) inTheMiddle += 1;
      before = after;
    }
    console.log(`${inTheMiddle} of ${kills} kills fell before the refresh was committed`);
    assert.ok(inTheMiddle > 0, 'every kill came after the commit: the test proves nothing');

    await agent.restart();
    const { epoch } = await until('the device has caught up', async () => {
      const events = agent.daemon.events();
      const accepted = events.findLast((line) => line['event'] === 'assignment.accepted');
      return accepted === undefined ? null : { epoch: Number(accepted['epoch']) };
    });
    assert.ok(epoch > (before['epoch'] ?? 0));
    const device = await showDevice({ lepton }, agent.id);
    assert.equal(device.models[0]?.active, 'acme/kept@1.0.0');
  } finally {
    await place.close();
  }
});
