// Why: whose turn it is, what runs together, when a process is replaced or given up: the decisions alone.
// Trusts: a clock moved by hand. Must never: start a process.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { createBatchTrial } from '../../agent/inference/batch-trial.ts';
import {
  batchPart,
  batchTerms,
  type Candidate,
  cutOutputs,
  joinInputs,
  planBatch,
} from '../../agent/inference/batching.ts';
import { createCrashHistory } from '../../agent/inference/crash-loop.ts';
import { createMemoryJudge, memoryLimits } from '../../agent/inference/memory-budget.ts';
import { createPace, createQueue } from '../../agent/inference/queue.ts';
import { chooseProviders } from '../../agent/inference/session.ts';
import { createTurns, type Player, threadsOf } from '../../agent/inference/turns.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { handClock } from '../agent/hand-clock.ts';

const floats = (name: string, shape: number[], ...data: number[]): Tensor => ({
  name,
  datatype: 'FP32',
  shape,
  data: Float32Array.from(data),
});

describe('turns', () => {
  const rig = (threads: number, turnMs = 1_000) => {
    const clock = handClock();
    const turns = createTurns({ clock, threads, turnMs });
    const woken: string[] = [];
    const join = (name: string, own = 1): Player =>
      turns.join(
        () => own,
        () => void woken.push(name),
      );
    return { clock, woken, join };
  };

  test('one after the other, and who had a turn stands at the end again', () => {
    const { woken, join } = rig(1);
    const [a, b, c] = [join('a'), join('b'), join('c')];
    assert.deepEqual([a.take(), a.take(), b.take(), c.take(), b.take()], [true, true, false, false, false]);
    assert.ok(a.wanted() && a.holds() && !b.holds());
    a.end();
    assert.deepEqual([woken.join(), b.holds(), a.take()], ['b', true, false]);
    b.end();
    c.end();
    a.end();
    assert.deepEqual([woken.join(), a.wanted()], ['b,c,a', false]);
  });

  test('as many at once as their threads allow; a large one is not overtaken for ever', () => {
    const { woken, join } = rig(3);
    const [a, b, large, small] = [join('a'), join('b'), join('large', 2), join('small')];
    assert.deepEqual([a.take(), b.take(), large.take(), small.take()], [true, true, false, false]);
    a.end();
    assert.deepEqual(woken, ['large']);
    b.end();
    assert.deepEqual(woken, ['large', 'small']);
    const huge = join('huge', 64);
    assert.equal(huge.take(), false);
    large.end();
    small.end();
    assert.ok(huge.holds(), 'more threads than there are: it runs alone');
  });

  test('a run that does not end keeps nobody waiting beyond a turn, and its end changes nothing then', async () => {
    const { clock, woken, join } = rig(1);
    const [stuck, a, b] = [join('stuck'), join('a'), join('b')];
    assert.ok(stuck.take());
    await clock.advance(400);
    assert.equal(a.take(), false);
    await clock.advance(500);
    assert.deepEqual(woken, []);
    await clock.advance(100);
    assert.deepEqual(woken, ['a']);
    assert.equal(b.take(), false);
    stuck.end();
    assert.deepEqual(woken, ['a'], 'its place was given away once');
    a.end();
    assert.deepEqual(woken, ['a', 'b']);
  });

  test('whatever players do, nobody waits while there is room, and no more run than there are threads', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(4), fc.boolean()), { maxLength: 80 }), (moves) => {
        const { join } = rig(2);
        const players = Array.from({ length: 5 }, (_, index) => join(String(index)));
        for (const [index, take] of moves) {
          if (take) players[index]?.take();
          else players[index]?.end();
          const running = players.filter((player) => player.holds()).length;
          assert.ok(running <= 2);
          assert.ok(running === 2 || players.every((player) => !player.wanted()));
        }
      }),
    );
  });

  test('threads: what the manifest says, else half of the cores, shared; never more than cores, never none', () => {
    const cases: [number | undefined, number, number, number][] = [
      [undefined, 1, 1, 1],
      [undefined, 2, 1, 1],
      [undefined, 8, 1, 4],
      [undefined, 8, 2, 2],
      [undefined, 8, 9, 1],
      [3, 8, 2, 3],
      [64, 4, 1, 4],
    ];
    for (const [wanted, cores, models, threads] of cases)
      assert.equal(
        threadsOf(wanted, cores, () => models),
        threads,
        `${wanted} ${cores} ${models}`,
      );
  });
});

describe('queue', () => {
  test('full is full; what comes back goes first, in its order, and is never refused', () => {
    const queue = createQueue<string>(3);
    assert.deepEqual(['a', 'b', 'c', 'd'].map(queue.add), [true, true, true, false]);
    queue.remove('a');
    queue.remove('b');
    queue.add('e');
    queue.add('f');
    queue.giveBack(['a']);
    queue.giveBack(['b']);
    assert.deepEqual(queue.jobs, ['a', 'b', 'c', 'e', 'f']);
    assert.equal(queue.remove('x'), false);
    assert.deepEqual([queue.remove('a'), queue.remove('b')], [true, true]);
    queue.giveBack(['z']);
    assert.deepEqual(queue.clear(), ['z', 'c', 'e', 'f']);
    assert.deepEqual(queue.jobs, []);
  });

  test('the wait is what was seen lately, without the time in which nobody asked', () => {
    const pace = createPace();
    assert.equal(pace.waitMs(10), 1_000, 'a guess before anything was seen');
    pace.begun(0);
    pace.answered(1, 40);
    assert.equal(pace.waitMs(3), 120);
    pace.begun(9_000);
    pace.answered(4, 9_160);
    assert.equal(pace.waitMs(3), 120);
    pace.begun(9_160);
    pace.answered(1, 9_180);
    assert.ok(pace.waitMs(1) < 40 && pace.waitMs(1) > 30);
  });
});

describe('batches', () => {
  const signature = (...shapes: number[][]) => ({
    inputs: shapes.map((shape, index) => ({ name: `x${index}`, datatype: 'FP32' as const, shape })),
    outputs: [{ name: 'y', datatype: 'FP32' as const, shape: [-1, 3] }],
  });
  const one = (key: string, rows: number, arrivedAtMs = 0): Candidate & { key: string } => ({
    key,
    part: { key, rows },
    arrivedAtMs,
  });
  const keys = (plan: ReturnType<typeof planBatch<ReturnType<typeof one>>>): string =>
    plan === null
      ? 'none'
      : 'run' in plan
        ? plan.run.map((job) => job.key).join()
        : `wait ${plan.waitUntilMs}`;

  test('only where every first dimension is free and the manifest asks for it', () => {
    assert.deepEqual(batchTerms(signature([-1, 2]), { maxBatch: 8, maxDelayMs: 2 }), {
      rowsMax: 8,
      delayMs: 2,
    });
    assert.deepEqual(batchTerms(signature([-1, 2]), { maxBatch: 8 }), { rowsMax: 8, delayMs: 0 });
    assert.equal(batchTerms(signature([-1, 2]), {}), null);
    assert.equal(batchTerms(signature([-1, 2]), { maxBatch: 1 }), null);
    assert.equal(batchTerms(signature([-1, 2], [1, 2]), { maxBatch: 8 }), null);
    assert.equal(batchTerms(signature([-1, 2], []), { maxBatch: 8 }), null);
  });

  test('requests differ in their rows only; the order of inputs is no difference', () => {
    const [a, b] = [floats('a', [2, 1], 1, 2), floats('b', [2, 2], 1, 2, 3, 4)];
    assert.deepEqual(batchPart([a, b]), batchPart([b, a]));
    assert.equal(batchPart([a, b])?.rows, 2);
    assert.equal(batchPart([a, floats('b', [1, 2], 1, 2)]), null, 'not so many rows');
    assert.equal(batchPart([floats('a', [0, 1])]), null);
    assert.equal(batchPart([floats('a', [])]), null);
    assert.notEqual(batchPart([a])?.key, batchPart([floats('a', [1, 2], 1, 2)])?.key);
  });

  test('the first that waits decides; who has no room closes the batch; alone is alone', () => {
    const terms = { rowsMax: 4, delayMs: 0 };
    assert.equal(keys(planBatch([], terms, 0)), 'none');
    assert.equal(
      keys(planBatch([one('a', 1), one('b', 1), one('a', 2), one('a', 1), one('a', 1)], terms, 0)),
      'a,a,a',
    );
    assert.equal(keys(planBatch([one('a', 2), one('a', 3), one('a', 1)], terms, 0)), 'a');
    assert.equal(keys(planBatch([one('a', 9), one('a', 1)], terms, 0)), 'a');
    assert.equal(keys(planBatch([{ ...one('a', 1), part: null }, one('a', 1)], terms, 0)), 'a');
    assert.equal(keys(planBatch([one('a', 1), one('a', 1)], null, 0)), 'a');
  });

  test('it waits for others until its delay is over or the batch is full', () => {
    const terms = { rowsMax: 2, delayMs: 5 };
    assert.equal(keys(planBatch([one('a', 1, 10)], terms, 12)), 'wait 15');
    assert.equal(keys(planBatch([one('a', 1, 10), one('b', 1, 11)], terms, 14)), 'wait 15');
    assert.equal(keys(planBatch([one('a', 1, 10), one('a', 1, 11)], terms, 12)), 'a,a');
    assert.equal(keys(planBatch([one('a', 1, 10)], terms, 15)), 'a');
  });

  test('joined and cut again, every row is back where it came from', () => {
    const tensorOf = fc.integer({ min: 1, max: 4 }).chain((rows) =>
      fc
        .array(fc.tuple(fc.double({ noNaN: true }), fc.double({ noNaN: true }), fc.string()), {
          minLength: rows,
          maxLength: rows,
        })
        .map((values): Tensor[] => [
          floats('a', [rows, 2], ...values.flatMap((value) => value.slice(0, 2) as number[])),
          { name: 'b', datatype: 'BYTES', shape: [rows], data: values.map(([, , text]) => text) },
        ]),
    );
    fc.assert(
      fc.property(fc.array(tensorOf, { minLength: 1, maxLength: 5 }), (requests) => {
        const rows = requests.map((inputs) => inputs[0]?.shape[0] ?? 0);
        const shuffled = requests.map((inputs, index) => (index % 2 ? [...inputs].reverse() : inputs));
        assert.deepEqual(cutOutputs(joinInputs(shuffled), rows), requests);
      }),
    );
    assert.equal(cutOutputs([floats('y', [1, 2], 1, 2)], [1, 1]), null);
    assert.equal(cutOutputs([floats('y', [], 1)], [1]), null);
  });

  test('a batch is believed after two like it agreed; equal requests prove nothing about differing ones', () => {
    const reasons: string[] = [];
    const trial = createBatchTrial(true, (reason) => reasons.push(reason));
    const [a, b] = [[floats('y', [1], 1)], [floats('y', [1], 2)]];
    const believed = () => [trial.trusts([a, a]), trial.trusts([a, b])];
    trial.tried([a, a]);
    assert.deepEqual(believed(), [false, false]);
    trial.tried([b, b]);
    assert.deepEqual(believed(), [true, false]);
    trial.tried([a, b]);
    trial.compare(a, [floats('y', [1], 1.0000001), floats('more', [1], 7)]);
    assert.deepEqual(believed(), [true, false]);
    trial.tried([a, b]);
    assert.deepEqual(believed(), [true, true]);
    trial.compare(a, b);
    trial.refuse('again');
    assert.deepEqual([trial.on(), ...believed()], [false, false, false]);
    assert.equal(reasons.length, 1);
    assert.equal(createBatchTrial(false, () => undefined).on(), false);
  });
});

describe('memory', () => {
  const MiB = 1024 * 1024;
  const judge = (terms = {}) =>
    createMemoryJudge({ softBytes: null, requests: null, everyMs: 60_000, ...terms });
  const seen = (mib: number, answered: number, nowMs: number) => ({
    rssBytes: mib * MiB,
    limitBytes: 1_000 * MiB,
    answered,
    nowMs,
  });

  test('the limit: what the manifest says, else twice what it requires, else half of the device', () => {
    const of = (limits: object, requires: object) => {
      const { servingBytes, tryingBytes } = memoryLimits({ limits, requires }, 4_000 * MiB);
      assert.equal(tryingBytes / MiB, 2_000, 'while it is probed only the device is protected');
      return servingBytes / MiB;
    };
    assert.equal(of({ memoryMiB: 100 }, { memoryMiB: 10 }), 100);
    assert.equal(of({}, { memoryMiB: 300 }), 600);
    assert.equal(of({}, { memoryMiB: 3_000 }), 2_000);
    assert.equal(of({}, {}), 2_000);
  });

  test('over the limit it is ended; grown over its first size it is replaced, not before its time', () => {
    const one = judge();
    one.renewed(0);
    assert.equal(one.look(seen(1_001, 0, 1)), 'kill');
    assert.equal(one.look(seen(100, 50, 1_000)), 'fine');
    assert.equal(one.look(seen(900, 60, 59_000)), 'fine', 'too soon');
    assert.equal(one.look(seen(164, 60, 60_000)), 'fine', 'within its budget');
    assert.equal(one.look(seen(165, 60, 60_000)), 'recycle');
  });

  test('each replacement for growth doubles the time to the next: what simply needs it is left alone', () => {
    const one = judge();
    let recycled = 0;
    for (let atMs = 0, sinceMs = 0; atMs < 24 * 3_600_000; atMs += 1_000) {
      if (atMs === 0) one.renewed(0);
      const answered = (atMs - sinceMs) / 100;
      if (one.look(seen(answered < 100 ? 100 : 300, answered, atMs)) === 'fine') continue;
      recycled += 1;
      sinceMs = atMs;
      one.renewed(atMs);
    }
    assert.ok(recycled > 5 && recycled < 30, `${recycled} times in a day`);
  });

  test('near the limit what has grown is replaced sooner, so that the limit ends nobody’s request', () => {
    const one = judge();
    one.renewed(0);
    assert.equal(one.look(seen(880, 50, 500)), 'fine');
    assert.equal(one.look(seen(960, 60, 6_000)), 'fine', 'it was that large when it was warm');
    assert.equal(one.look(seen(970, 60, 6_000)), 'recycle');
  });

  test('after so many requests, or over a budget of its own, where that is wanted', () => {
    const counted = judge({ requests: 100 });
    counted.renewed(0);
    assert.equal(counted.look(seen(100, 99, 60_000)), 'fine');
    assert.equal(counted.look(seen(100, 100, 60_000)), 'recycle');
    const bounded = judge({ softBytes: 120 * MiB });
    bounded.renewed(0);
    assert.equal(bounded.look(seen(120, 0, 60_000)), 'fine');
    assert.equal(bounded.look(seen(121, 0, 60_000)), 'recycle');
  });
});

test('crash loop: at once, then ever later; three deaths in five minutes are a loop, also slow ones', () => {
  const terms = { deaths: 3, windowMs: 300_000 };
  const fast = createCrashHistory(terms);
  const delays = [1, 2, 3, 4].map((second) => {
    fast.died(second * 1_000, 500);
    return [fast.delayMs(second * 1_000), fast.looping(second * 1_000)];
  });
  assert.deepEqual(delays, [
    [0, false],
    [0, false],
    [1_000, true],
    [1_000, true],
  ]);
  for (let times = 0; times < 50; times++) fast.died(9_000, 1);
  assert.equal(fast.delayMs(9_000), 30_000);
  const slow = createCrashHistory(terms);
  for (const minute of [1, 3, 5]) slow.died(minute * 60_000, 100_000);
  assert.deepEqual([slow.looping(300_000), slow.delayMs(300_000)], [true, 1_000], 'never without a pause');
  const rare = createCrashHistory(terms);
  for (const minute of [1, 4, 7]) rare.died(minute * 60_000, 100_000);
  assert.deepEqual([rare.looping(420_000), rare.delayMs(420_000)], [false, 0]);
});

test('providers: in the order of the manifest, without those that are not here, the CPU behind', () => {
  const offered = ['cpu', 'webgpu', 'cuda'];
  assert.deepEqual(chooseProviders(['tpu', 'cuda', 'cuda', 'cpu', 'webgpu'], offered), {
    wanted: ['cuda', 'cpu'],
    skipped: [{ name: 'tpu', reason: 'this runtime does not have it' }],
  });
  assert.deepEqual(chooseProviders([], offered), { wanted: ['cpu'], skipped: [] });
});
