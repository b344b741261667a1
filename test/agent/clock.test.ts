// Why: the verified clock alone: what raises its floor, what lets it fall, what a question takes for an answer.
// Trusts: a clock moved by hand. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createTimeAsker, type TimeAsker } from '../../agent/bus/time.ts';
import { admitBroker, admitSelf } from '../../agent/trust/admission.ts';
import { type ClockFloor, openTrustedClock, type TrustedClock, vouchersOf } from '../../agent/trust/clock.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import { makeRegionRoot, parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { signTime } from '../../shared/trust/time.ts';
import { encodeMessage, parseMessage, timeRequestSchema } from '../../shared/wire/messages.ts';
import { signerNamed } from '../trust/catalogue-fixture.ts';
import { countingEntropy, type HandClock, handClock, settle, silent } from './hand-clock.ts';

const region = 'eu';
const deviceId = 'd'.repeat(32);
const hex = (signer: Signer): string => Buffer.from(signer.publicKey).toString('hex');

function rootWith(parts: { time: Signer[]; director?: Signer[]; threshold?: number }): RegionRoot {
  const one = (signers: Signer[], threshold = 1) => ({
    keys: signers.map(({ publicKey }) => publicKey),
    threshold,
  });
  const root = signerNamed('root');
  return unwrap(
    parseRegionRoot(
      makeRegionRoot({
        region,
        version: 1,
        expiresAtMs: 4_000_000_000_000,
        roles: {
          root: one([root]),
          director: one(parts.director ?? [signerNamed('director')]),
          time: one(parts.time, parts.threshold),
          ack: one([signerNamed('ack')]),
          command: one([signerNamed('command')]),
        },
        signers: [root],
      }),
    ),
  );
}

interface Opened {
  time: TrustedClock;
  clock: HandClock;
  /** The floors as they were last made durable. */
  saved(): ClockFloor[];
}

function opened(root: RegionRoot, floors: ClockFloor[] = []): Opened {
  const clock = handClock();
  let saved = floors;
  const save = async (next: readonly ClockFloor[]): Promise<void> => {
    saved = [...next];
  };
  return { time: openTrustedClock({ clock, floors, root, save }), clock, saved: () => saved };
}

test('the middle of the round trip is taken for the time, and only what was signed for the floor', async () => {
  const key = signerNamed('time');
  const { time, clock } = opened(rootWith({ time: [key] }));
  assert.deepEqual([time.source(), time.nowMs(), time.floorMs(), time.signed()], ['wall', 1_000, 0, null]);
  const askedMonoMs = clock.mono();
  await clock.advance(10_000);
  await time.answered({ timeMs: 5_000_000, askedMonoMs, keys: [hex(key)] });
  assert.equal(time.source(), 'signed');
  assert.equal(time.nowMs(), 5_005_000);
  assert.equal(time.floorMs(), 5_000_000);
  await clock.advance(60_000);
  assert.equal(time.nowMs(), 5_065_000, 'monotonic time moves it on');
  assert.deepEqual(time.signed(), { nowMs: 5_065_000, ageMs: 60_000 });
});

test('an answer of the past, or a lower proof, never sets the clock below its floor', async () => {
  const key = signerNamed('time');
  const { time } = opened(rootWith({ time: [key] }));
  await time.proven({ role: 'director', keys: [hex(signerNamed('director'))], atMs: 9_000_000 });
  await time.answered({ timeMs: 5_000_000, askedMonoMs: 1_000, keys: [hex(key)] });
  assert.equal(time.nowMs(), 9_000_000);
  await time.proven({ role: 'director', keys: [hex(signerNamed('director'))], atMs: 8_000_000 });
  assert.equal(time.floorMs(), 9_000_000);
});

test('the word of a key falls with the key, at once and after a power cut; other floors stand', async () => {
  const thief = signerNamed('time');
  const director = hex(signerNamed('director'));
  const scene = opened(rootWith({ time: [thief] }));
  await scene.time.proven({ role: 'director', keys: [director], atMs: 6_000_000 });
  await scene.time.answered({ timeMs: 4_070_000_000_000, askedMonoMs: 1_000, keys: [hex(thief)] });
  const stored = scene.saved();
  const next = rootWith({ time: [signerNamed('other time')] });
  // The power failed between the root and the floors.
  assert.equal(opened(next, stored).time.floorMs(), 6_000_000);
  await scene.time.follow(next);
  assert.deepEqual([scene.time.source(), scene.time.floorMs()], ['wall', 6_000_000]);
  assert.deepEqual(
    scene.saved().map(({ role }) => role),
    ['director'],
  );
});

test('with a threshold of two, a floor stands while two of those that vouched are named', async () => {
  const [a, b, c] = ['time a', 'time b', 'time c'].map(signerNamed);
  assert.ok(a && b && c);
  const root = rootWith({ time: [a, b, c], threshold: 2 });
  const statement = { schemaVersion: 1 as const, deviceId, region, nonce: '0'.repeat(32), timeMs: 1 };
  const by = [a, b].map((signer) => signTime(statement, signer));
  const envelope = { ...by[0], signatures: by.flatMap(({ signatures }) => signatures) };
  const keys = vouchersOf(envelope as (typeof by)[0], root, 'time');
  assert.deepEqual(keys, [hex(a), hex(b)].sort());
  const { time } = opened(root);
  await time.answered({ timeMs: 7_000, askedMonoMs: 0, keys });
  assert.equal(time.floorMs(), 7_000);
  await time.follow(rootWith({ time: [a, c], threshold: 2 }));
  assert.equal(time.floorMs(), 0);
});

test('property: the floor never falls but where a key was replaced, and the clock is never below it', async () => {
  const times = ['time 1', 'time 2'].map(signerNamed);
  const directors = ['director 1', 'director 2'].map(signerNamed);
  const step = fc.oneof(
    fc.record({ kind: fc.constant('answer' as const), key: fc.nat(1), atMs: fc.nat(10_000_000) }),
    fc.record({ kind: fc.constant('proof' as const), key: fc.nat(1), atMs: fc.nat(10_000_000) }),
    fc.record({ kind: fc.constant('root' as const), time: fc.nat(1), director: fc.nat(1) }),
    fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(100_000) }),
    fc.record({ kind: fc.constant('restart' as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      let named = { time: 0, director: 0 };
      const root = () =>
        rootWith({
          time: [times[named.time] ?? signerNamed('none')],
          director: [directors[named.director] ?? signerNamed('none')],
        });
      let scene = opened(root());
      for (const one of steps) {
        const before = scene.time.floorMs();
        let replaced = false;
        if (one.kind === 'answer') {
          const keys = [hex(times[one.key] ?? signerNamed('none'))];
          await scene.time.answered({ timeMs: one.atMs, askedMonoMs: scene.clock.mono(), keys });
        } else if (one.kind === 'proof') {
          const keys = [hex(directors[one.key] ?? signerNamed('none'))];
          await scene.time.proven({ role: 'director', keys, atMs: one.atMs });
        } else if (one.kind === 'root') {
          replaced = one.time !== named.time || one.director !== named.director;
          named = { time: one.time, director: one.director };
          await scene.time.follow(root());
        } else if (one.kind === 'pass') await scene.clock.advance(one.ms);
        else scene = opened(root(), scene.saved());
        if (!replaced) assert.ok(scene.time.floorMs() >= before, `${one.kind}: ${before} fell`);
        assert.ok(scene.time.nowMs() >= scene.time.floorMs());
        // Only those who are named now can have raised it.
        assert.ok(
          scene.time.floorMs() === 0 ||
            scene
              .saved()
              .some(({ keys }) =>
                [times[named.time], directors[named.director]].some((key) => key && keys.includes(hex(key))),
              ),
        );
      }
    }),
    { numRuns: 60 },
  );
});

test('admission: good dates by signed time, else a session for the time; old signed time is asked again', () => {
  const dates = { notBeforeMs: 1_000, notAfterMs: 2_000 };
  const cases: [string, number, { nowMs: number; ageMs: number } | null][] = [
    ['full', 1_500, null],
    ['time', 900, null],
    ['time', 2_001, null],
    ['full', 9_999, { nowMs: 1_500, ageMs: 1 }],
    ['refused', 1_500, { nowMs: 2_001, ageMs: 1 }],
    ['refused', 1_500, { nowMs: 999, ageMs: 1 }],
    // The machine may have slept, and with it the monotonic clock.
    ['time', 1_500, { nowMs: 999, ageMs: 3_600_000 }],
  ];
  for (const [expected, wallMs, signed] of cases) {
    assert.equal(admitBroker({ dates, wallMs, signed }), expected, `${wallMs} ${JSON.stringify(signed)}`);
  }
  const own = (notAfterMs: number, nowMs: number | null, denied: number, renewalFailed: boolean) =>
    admitSelf({ notAfterMs, signed: nowMs === null ? null : { nowMs }, standing: { denied, renewalFailed } });
  assert.equal(own(100, null, 0, false), 'full');
  assert.equal(own(100, 101, 0, false), 'renewal');
  assert.equal(own(100, 50, 1, false), 'renewal', 'the broker may know better');
  assert.equal(own(100, 101, 0, true), 'full', 'and its own guess may be wrong');
});

interface Asking {
  /** Whether the line is up; the asker is not told. */
  line: { up: boolean };
  clock: HandClock;
  time: TrustedClock;
  asker: TimeAsker;
  nonces: string[];
  refusals: Refusal[];
  answer(nonce: string | undefined, timeMs: number, signer?: Signer): void;
}

function asking(): Asking {
  const key = signerNamed('time');
  const root = rootWith({ time: [key] });
  const { time, clock } = opened(root);
  const nonces: string[] = [];
  const refusals: Refusal[] = [];
  const line = { up: true };
  const asker = createTimeAsker({
    bus: {
      connected: () => line.up,
      publish: async (_topic, payload) => {
        nonces.push(unwrap(parseMessage(timeRequestSchema, payload)).nonce);
      },
      subscribe: () => Promise.reject(new Error('not used')),
    },
    time,
    regionRoot: () => root,
    region,
    deviceId,
    onRefused: (refusal) => refusals.push(refusal),
    onVerified: () => undefined,
    clock,
    entropy: countingEntropy(),
    log: silent,
  });
  return {
    line,
    clock,
    time,
    asker,
    nonces,
    refusals,
    answer: (nonce = '', timeMs, signer = key) => {
      const envelope = signTime({ schemaVersion: 1, deviceId, region, nonce, timeMs }, signer);
      asker.receive(encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: 0, envelope }));
    },
  };
}

test('asking: a question that is due while the line is down waits for the line, and turns in no circle', async () => {
  const { line, clock, asker, nonces } = asking();
  asker.connected();
  await settle();
  let timers = 0;
  const { timer } = clock;
  clock.timer = (ms) => {
    timers += 1;
    return timer(ms);
  };
  line.up = false;
  asker.offline();
  const asked = nonces.length;
  for (let hour = 0; hour < 5; hour += 1) {
    await clock.advance(3_600_000);
    // What is due at once would come again and again.
    for (let turn = 0; turn < 20; turn += 1) await clock.advance(0);
  }
  assert.ok(timers <= 5, `${timers} timers in five hours without a line`);
  line.up = true;
  asker.connected();
  for (let second = 0; second < 5; second += 1) await clock.advance(1_000);
  assert.ok(nonces.length > asked, 'it asks when the line is back');
  const stopping = asker.stop();
  await clock.advance(60_000);
  await stopping;
});

test('asking: one question at a time, a late or second answer moves nothing, silence is asked again later', async () => {
  const { clock, time, asker, nonces, refusals, answer } = asking();
  const first = asker.ask();
  const same = asker.ask();
  await settle();
  assert.equal(nonces.length, 1);
  await clock.advance(30_000);
  assert.equal((await first).ok, false);
  assert.equal((await same).ok, false);
  answer(nonces[0], 5_000_000);
  await settle();
  assert.equal(time.source(), 'wall', 'the answer came too late');
  assert.deepEqual(refusals, []);

  const second = asker.ask();
  await settle();
  answer(nonces[0], 5_000_000);
  await settle();
  assert.deepEqual(
    refusals.map(({ code }) => code),
    ['time-replayed'],
  );
  answer(nonces[1], 6_000_000);
  answer(nonces[1], 6_000_000);
  assert.equal((await second).ok, true);
  assert.equal(time.floorMs(), 6_000_000);
  await asker.stop();
});

test('asking: a stream of forged answers is judged a few times and then not heard', async () => {
  const { clock, asker, nonces, refusals, answer } = asking();
  const asked = asker.ask();
  await settle();
  for (let index = 0; index < 1_000; index += 1) answer(nonces[0], index, signerNamed('stranger'));
  await settle();
  assert.equal(refusals.length, 4);
  await clock.advance(30_000);
  assert.equal((await asked).ok, false);
  await asker.stop();
});

test('asking: after each connection and about once a day', async () => {
  const { clock, asker, nonces, answer } = asking();
  asker.connected();
  await settle();
  assert.equal(nonces.length, 1);
  answer(nonces[0], 5_000_000);
  await settle();
  const dayMs = 86_400_000;
  for (let passed = 0; passed < 0.89 * dayMs; passed += dayMs / 100) await clock.advance(dayMs / 100);
  assert.equal(nonces.length, 1);
  for (let passed = 0; passed < 0.3 * dayMs && nonces.length < 2; passed += dayMs / 100) {
    await clock.advance(dayMs / 100);
  }
  assert.equal(nonces.length, 2);
  await asker.stop();
});
