// Why: whose word ends what a device still holds for a region that it left, where that region has changed its keys since.
// Trusts: the small region of test/telemetry/outbox-scene.ts. Must never: need a registry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCarried } from '../../agent/telemetry/carried.ts';
import { withOutboxStore } from '../../agent/telemetry/open.ts';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import { type Moves, neverMoved } from '../../agent/trust/moves.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { folderPlace } from '../../shared/host/place.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { BusMessage, Log } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, refuse } from '../../shared/kernel/result.ts';
import { decodeCarried } from '../../shared/wire/carried.ts';
import { temporaryFolder } from '../registry-core/support.ts';
import { Region, record, region } from '../telemetry/outbox-scene.ts';
import { role, signerNamed } from '../trust/catalogue-fixture.ts';
import { device, deviceId, regionRoot, trusted } from '../trust/region-fixture.ts';

const log: Log = { emit: () => undefined };
const parts = { clock: systemClock, entropy: systemEntropy, deflate: systemDeflate, log };

const next = signerNamed('another ack');
const later = { version: 2, ack: role(1, next) };
const strangers = ['x', 'y', 'z'].map(signerNamed);
const stranger = regionRoot({ ...later, root: role(2, ...strangers), signers: strangers });

for (const [where, what, known, isTaken] of [
  [region, 'that very region', null, true],
  ['us', 'one that has not heard of it', null, false],
  ['us', 'one that makes its root up', stranger, false],
  ['us', 'one that has its next root', regionRoot(later), true],
] as const)
  test(`a region that changed its keys answers a device that is in ${what}`, async (t) => {
    const place = folderPlace(temporaryFolder(t));
    const refusals: Refusal[] = [];
    const onRefused = (refusal: Refusal) => void refusals.push(refusal);
    const left = new Region();
    await withOutboxStore(place, 0, { log, onRefused }, async (store) => {
      const outbox = await openOutbox({ ...parts, store });
      const key = { epoch: 1, keyId: 'k1', publicKey: Buffer.from(left.keys.publicKey).toString('hex') };
      unwrap(await outbox.useKey({ deviceId, region, key }));
      unwrap(await outbox.append('app', [record(1), record(2)]));
      await outbox.close();
      await store.close();
    });
    const kept = Buffer.from(regionRoot()).toString('base64');
    let moves: Moves = {
      ...{ ...neverMoved, outbox: 1 },
      chains: [{ outbox: 0, region, regionRoot: kept, leftAtMs: 0 }],
    };
    let changed: () => void = () => undefined;
    const settled = new Promise<void>((resolve) => {
      changed = resolve;
    });
    const carried = createCarried({
      ...{ ...parts, place, moves: () => moves },
      save: async (change) => {
        moves = change(moves);
        // A newer root of the old region is kept before anything is believed by it.
        if (moves.chains.length === 0) changed();
      },
      onRefused(refusal) {
        onRefused(refusal);
        changed();
      },
    });
    t.after(() => carried.stop());
    left.deliver = (answer) => left.send(answer, next);
    await carried.open();
    await carried.join({
      bus: {
        connected: () => true,
        publish: (topic, payload) => left.bus.publish(topic, unwrap(decodeCarried(payload)).batch),
        async subscribe(_filter, handler: (message: BusMessage) => void) {
          left.receive = (payload) => handler({ topic: 'ack', payload, retained: false });
          return { cancel: async () => undefined };
        },
      },
      ...{ signer: device, deviceId, region: where },
      // Of whoever it is with at present: that both have the same key shows that it is the name that counts.
      regionRoot: () => trusted({ ...later, region: where }),
      fetch: async (name) =>
        known !== null && name === `regions/${region}/2.root.json`
          ? ok(known)
          : refuse('metadata-missing', name),
    });
    carried.connected();
    await settled;
    assert.deepEqual(left.numbers(), [1, 2]);
    assert.equal(moves.chains.length, isTaken ? 0 : 1);
    assert.deepEqual(
      refusals.map(({ code }) => code),
      isTaken ? [] : ['telemetry-answer-invalid'],
    );
  });
