// Why: following `desired` alone: what is tried again, what is reported, what a poll asks, what survives a
// fault. Trusts: an authority and a clock moved by hand. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Desired, followDesired } from '../../agent/bus/desired.ts';
import type { Authority } from '../../agent/trust/authority.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Assignment, encodeMessage } from '../../shared/wire/messages.ts';
import { countingEntropy, type HandClock, handClock, settle, silent } from './hand-clock.ts';

const pollMs = 1_000_000;

const assignment = (epoch: number): Assignment => ({
  schemaVersion: 1,
  deviceId: 'd'.repeat(32),
  region: 'r',
  epoch,
  issuedAtMs: 0,
  expiresAtMs: 1,
  labels: {},
  releases: [],
  telemetry: null,
  authoritiesSha256: null,
});

/** A message that the fake authority knows by its payload type. */
const message = (name: string): Uint8Array =>
  encodeMessage({
    schemaVersion: 1,
    messageId: 'm',
    sentAtMs: 0,
    envelope: { payloadType: name, payload: 'AAAA', signatures: [{ keyid: 'k', sig: 'AAAA' }] },
  });

interface Scene {
  clock: HandClock;
  desired: Desired;
  considered: string[];
  /** What the authority answers next to a message of this name. */
  verdicts: Map<string, Result<{ assignment: Assignment; fresh: boolean }> | Error>;
  /** Happens in the middle of a judgement. */
  meanwhile: () => void;
  refreshed: number;
  refresh: Result<{ changed: boolean; refused: Refusal[] }>;
  recorded: Refusal[];
  handedOver: number[];
  asked: number;
  online: boolean;
  assignFails: boolean;
  /** Moves time in steps, so that loops that wait again are woken again. */
  pass(ms: number): Promise<void>;
}

function follow(inForce: Assignment | null = null): Scene {
  const clock = handClock();
  const parts: Omit<Scene, 'desired'> = {
    clock,
    considered: [],
    verdicts: new Map(),
    meanwhile: () => undefined,
    refreshed: 0,
    refresh: ok({ changed: false, refused: [] }),
    recorded: [],
    handedOver: [],
    asked: 0,
    online: true,
    assignFails: false,
    pass: async (ms) => {
      for (let step = 0; step < 20; step += 1) await clock.advance(ms / 20);
    },
  };
  const nobody = (): never => assert.fail('nobody asks for it here');
  const neverAsked: Authority['time'] = {
    nowMs: nobody,
    floorMs: nobody,
    source: nobody,
    signed: nobody,
    answered: nobody,
    proven: nobody,
    follow: nobody,
  };
  const authority: Authority = {
    regionRoot: () => assert.fail('nobody asks for it here'),
    catalogueRoot: () => assert.fail('nobody asks for it here'),
    assignment: () => inForce,
    epoch: () => inForce?.epoch ?? 0,
    time: neverAsked,
    held: () => assert.fail('nobody asks for it here'),
    holdsTimestamp: (bytes) => bytes.length === 0,
    consider: async (envelope) => {
      parts.considered.push(envelope.payloadType);
      parts.meanwhile();
      const verdict = parts.verdicts.get(envelope.payloadType) ?? refuse('assignment-replayed', 'unknown');
      if (verdict instanceof Error) throw verdict;
      return verdict;
    },
    refresh: async () => {
      parts.refreshed += 1;
      return parts.refresh;
    },
    agree: async () => ok(),
  };
  const desired = followDesired({
    authority,
    refusals: {
      record: async (refusal) => {
        parts.recorded.push(refusal);
        return { id: parts.recorded.length, fresh: true };
      },
    },
    assign: async (assigned) => {
      if (parts.assignFails) throw new FleetError('disk-full', 'no space');
      parts.handedOver.push(assigned.epoch);
    },
    online: () => parts.online,
    askAgain: async () => {
      parts.asked += 1;
    },
    onAccepted: () => undefined,
    clock,
    entropy: countingEntropy(),
    log: silent,
    pollMs,
  });
  // The same object: what a test sets, the fakes above see.
  return Object.assign(parts, { desired });
}

test('an accepted assignment reaches the update machine once, also after a fault on the way', async () => {
  const scene = follow();
  scene.verdicts.set('good', ok({ assignment: assignment(3), fresh: true }));
  scene.assignFails = true;
  scene.desired.receive(message('good'));
  await settle();
  assert.deepEqual(scene.handedOver, []);
  // Stored as in force by now: the next look says that nothing is new, yet the machine does not have it.
  scene.verdicts.set('good', ok({ assignment: assignment(3), fresh: false }));
  scene.assignFails = false;
  await scene.pass(limits.reconnectBaseMs * 2);
  assert.deepEqual(scene.handedOver, [3]);
  scene.desired.receive(message('good'));
  await settle();
  assert.deepEqual(scene.handedOver, [3]);
  await scene.desired.stop();
});

test('what was in force before a power cut is handed over first, without a network', async () => {
  const scene = follow(assignment(7));
  scene.online = false;
  await settle();
  assert.deepEqual(scene.handedOver, [7]);
  await scene.desired.stop();
});

test('a passing trouble is tried again and is no refusal; an attack is recorded and not tried again', async () => {
  const scene = follow();
  scene.verdicts.set('slow', refuse('fetch-timeout', 'no answer'));
  scene.desired.receive(message('slow'));
  scene.desired.receive(message('forged'));
  await settle();
  assert.deepEqual(
    scene.recorded.map((refusal) => refusal.code),
    ['assignment-replayed'],
  );
  scene.verdicts.set('slow', ok({ assignment: assignment(2), fresh: true }));
  await scene.pass(limits.reconnectMaxMs);
  assert.deepEqual(scene.handedOver, [2]);
  assert.equal(scene.considered.filter((name) => name === 'forged').length, 1);
  await scene.desired.stop();
});

test('what the catalogue did not name is judged again when the catalogue moves on', async () => {
  const scene = follow();
  scene.verdicts.set('early', refuse('target-unknown', 'not there'));
  scene.desired.receive(message('early'));
  await settle();
  scene.refresh = ok({ changed: true, refused: [] });
  scene.verdicts.set('early', ok({ assignment: assignment(2), fresh: true }));
  scene.desired.doorbell(Uint8Array.of(1));
  await scene.pass(5_000);
  assert.deepEqual(scene.handedOver, [2]);
  await scene.desired.stop();
});

test('an assignment by a director not heard of yet is judged again when the region’s root has moved on', async () => {
  const scene = follow();
  // Asked for a newer region root a moment ago, so it was not asked again for this one.
  scene.verdicts.set('rotated', refuse('assignment-signature-invalid', 'by nobody that is known'));
  scene.desired.receive(message('rotated'));
  await settle();
  scene.verdicts.set('rotated', ok({ assignment: assignment(2), fresh: true }));
  scene.desired.doorbell(Uint8Array.of(1));
  await scene.pass(5_000);
  assert.deepEqual(scene.handedOver, [], 'nothing has moved on, so nothing is worth another look');
  scene.refresh = ok({ changed: true, refused: [] });
  scene.desired.doorbell(Uint8Array.of(2));
  await scene.pass(5_000);
  assert.deepEqual(scene.handedOver, [2]);
  await scene.desired.stop();
});

test('the poll refreshes the catalogue and asks for the assignment, only while there is a line', async () => {
  const scene = follow();
  scene.online = false;
  await scene.pass(3 * pollMs);
  assert.deepEqual([scene.asked, scene.refreshed], [0, 0]);
  scene.online = true;
  await scene.pass(2 * pollMs);
  assert.ok(scene.asked >= 1);
  assert.ok(scene.refreshed >= 1);
  await scene.desired.stop();
});

test('a doorbell with the timestamp that is held rings for nothing; others are one refresh, spread out', async () => {
  const scene = follow();
  scene.desired.doorbell(new Uint8Array());
  await scene.pass(5_000);
  assert.equal(scene.refreshed, 0);
  for (let index = 0; index < 50; index += 1) scene.desired.doorbell(Uint8Array.of(index));
  await scene.pass(5_000);
  assert.equal(scene.refreshed, 1);
  await scene.desired.stop();
});

test('an assignment that came with a refresh answers the doorbells before it, not those since', async () => {
  const scene = follow();
  scene.verdicts.set('good', ok({ assignment: assignment(3), fresh: true }));
  scene.desired.doorbell(Uint8Array.of(1));
  scene.desired.receive(message('good'));
  await scene.pass(5_000);
  assert.deepEqual([scene.handedOver, scene.refreshed], [[3], 0]);
  scene.verdicts.set('next', ok({ assignment: assignment(4), fresh: true }));
  scene.meanwhile = () => scene.desired.doorbell(Uint8Array.of(2));
  scene.desired.receive(message('next'));
  await scene.pass(5_000);
  assert.deepEqual([scene.handedOver, scene.refreshed], [[3, 4], 1]);
  // One that brought nothing answers none.
  scene.verdicts.set('next', ok({ assignment: assignment(4), fresh: false }));
  scene.meanwhile = () => undefined;
  scene.desired.doorbell(Uint8Array.of(3));
  scene.desired.receive(message('next'));
  await scene.pass(5_000);
  assert.equal(scene.refreshed, 2);
  await scene.desired.stop();
});

test('a refused catalogue is recorded, with the publishers that were refused', async () => {
  const scene = follow();
  scene.refresh = refuse('metadata-rollback', 'older');
  scene.desired.connected();
  await scene.pass(5_000);
  scene.refresh = ok({ changed: false, refused: [{ code: 'metadata-expired', detail: 'acme' }] });
  scene.desired.connected();
  await scene.pass(5_000);
  assert.deepEqual(
    scene.recorded.map((refusal) => refusal.code),
    ['metadata-rollback', 'metadata-expired'],
  );
  await scene.desired.stop();
});

test('a fault while judging ends the round, not the following; garbage and floods are survived', async () => {
  const scene = follow();
  scene.verdicts.set('broken', new FleetError('disk-io', 'the disk failed'));
  scene.desired.receive(message('broken'));
  await settle();
  scene.verdicts.set('broken', ok({ assignment: assignment(2), fresh: true }));
  await scene.pass(limits.reconnectMaxMs);
  assert.deepEqual(scene.handedOver, [2], 'it was judged again');

  scene.desired.receive(Uint8Array.of(0xff, 0));
  scene.desired.receive(new Uint8Array(limits.busMessageBytesMax + 1));
  await settle();
  assert.deepEqual(
    scene.recorded.map((refusal) => refusal.code),
    ['message-malformed', 'message-malformed'],
  );

  scene.considered.length = 0;
  for (let index = 0; index < 1_000; index += 1) scene.desired.receive(message(`flood ${index}`));
  await settle();
  await settle();
  assert.ok(scene.considered.length <= 20, `${scene.considered.length} were judged`);
  assert.equal(scene.considered.at(-1), 'flood 999', 'the newest is not lost');
  await scene.desired.stop();
});
