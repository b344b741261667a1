// Why: stages of regions, by examples and by random histories of lost, late, repeated and reordered words.
// Trusts: order-sim.ts. Must never: check prose; states, wishes and what regions did only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { abort, pause, resume } from '../../registry/regions/region-commands.ts';
import { type RegionRolloutFact, standingOf } from '../../registry/regions/region-facts.ts';
import { type OrderSim, orderSim, type SimRegion, standing } from './order-sim.ts';

const by = 'tester';
const goOn =
  (without: string[] = []) =>
  (facts: RegionRolloutFact) =>
    resume(facts, by, { without, comment: null });

test('stages follow each other, and soak', () => {
  const sim = orderSim([['home'], ['west', 'east']], { soaksMs: [60_000, 0] });
  sim.settle();
  assert.deepEqual(standing(sim), { home: 'running/run', west: 'waiting/wait', east: 'waiting/wait' });
  sim.become('home', 'succeeded');
  sim.settle();
  assert.deepEqual(standing(sim), { home: 'succeeded/run', west: 'waiting/wait', east: 'waiting/wait' });
  sim.pass(60_000);
  sim.settle();
  assert.deepEqual(standing(sim), { home: 'succeeded/run', west: 'running/run', east: 'running/run' });
  sim.become('west', 'succeeded');
  sim.become('east', 'succeeded');
  sim.settle();
  assert.equal(sim.facts.state, 'succeeded');
});

test('a region that fails pauses the others; they go on with another try of it, or without it', () => {
  const failed = (): OrderSim => {
    const sim = orderSim([['home'], ['west', 'east'], ['south']]);
    sim.settle();
    sim.become('home', 'succeeded');
    sim.settle();
    sim.become('west', 'rolling-back', true);
    sim.settle();
    assert.equal(sim.facts.state, 'paused');
    assert.match(sim.facts.reason ?? '', /^west failed: wave 0/);
    assert.deepEqual(standing(sim), {
      ...{ home: 'succeeded/run', west: 'failed/pause', east: 'paused/pause', south: 'waiting/wait' },
    });
    return sim;
  };
  const again = failed();
  assert.ok(again.say(goOn()));
  again.settle();
  // It still goes back: the next attempt begins when that is over.
  assert.deepEqual([...(again.regions.get('west')?.begun.keys() ?? [])], [1]);
  assert.equal(standing(again)['east'], 'running/run');
  again.become('west', 'failed');
  again.settle();
  assert.deepEqual([...(again.regions.get('west')?.begun.keys() ?? [])], [1, 2]);
  for (const name of ['west', 'east']) again.become(name, 'succeeded');
  again.settle();
  again.become('south', 'succeeded');
  again.settle();
  assert.equal(again.facts.state, 'succeeded');

  const without = failed();
  assert.equal(without.say(goOn(['north'])), false);
  assert.ok(without.say(goOn(['west'])));
  without.settle();
  assert.equal(standing(without)['west'], 'left-out/abort');
  without.become('east', 'succeeded');
  without.settle();
  assert.equal(standing(without)['south'], 'running/run');
  without.become('south', 'succeeded');
  without.settle();
  assert.equal(without.facts.state, 'succeeded');
  assert.equal(without.facts.reason, 'without west');
});

test('a refusal and a local abort count as failures, a local pause does not', () => {
  const sim = orderSim([['west', 'east']]);
  sim.mayBegin = ({ name }) => name !== 'west';
  sim.settle();
  assert.equal(sim.facts.state, 'paused');
  assert.equal(standing(sim)['west'], 'failed/pause');
  // The policy lets it in now, and somebody says that it goes on.
  sim.mayBegin = () => true;
  sim.settle();
  assert.equal(sim.facts.state, 'paused');
  sim.say(goOn());
  sim.settle();
  assert.deepEqual(standing(sim), { west: 'running/run', east: 'running/run' });

  sim.become('west', 'paused');
  sim.settle();
  assert.equal(sim.facts.state, 'running');
  assert.deepEqual(standing(sim), { west: 'paused/run', east: 'running/run' });
  // A word from afar does not undo what people there said.
  sim.say((facts) => pause(facts, by, null));
  sim.settle();
  sim.say(goOn());
  sim.settle();
  assert.deepEqual(standing(sim), { west: 'paused/run', east: 'running/run' });
  sim.become('west', 'aborted');
  sim.settle();
  assert.equal(sim.facts.state, 'paused');
  assert.deepEqual(standing(sim), { west: 'failed/pause', east: 'paused/pause' });
});

test('what is cut off is waited for, or skipped and waited for at the end', () => {
  const waits = orderSim([['home'], ['west'], ['east']]);
  waits.settle();
  waits.become('home', 'succeeded');
  waits.settle();
  waits.cut('west', true);
  waits.pass(100 * 3_600_000);
  waits.step();
  assert.equal(standing(waits)['east'], 'waiting/wait');

  const skips = orderSim([['home'], ['west'], ['east']], { skipAfterMs: 3_600_000 });
  skips.settle();
  skips.become('home', 'succeeded');
  skips.settle();
  skips.cut('west', true);
  skips.pass(3_599_999);
  skips.step();
  assert.equal(standing(skips)['east'], 'waiting/wait');
  skips.pass(1);
  skips.settle();
  assert.equal(standing(skips)['east'], 'running/run');
  skips.become('east', 'succeeded');
  skips.settle();
  assert.equal(skips.facts.state, 'running');
  skips.cut('west', false);
  skips.become('west', 'succeeded');
  skips.settle();
  assert.equal(skips.facts.state, 'succeeded');
});

test('abort ends every part; with revert it has ended when all have gone back', () => {
  const sim = orderSim([['home'], ['west', 'east'], ['south']]);
  sim.settle();
  sim.become('home', 'succeeded');
  sim.settle();
  sim.become('east', 'succeeded');
  sim.settle();
  assert.ok(sim.say((facts) => abort(facts, by, true)));
  sim.settle();
  assert.equal(sim.facts.state, 'rolling-back');
  assert.equal(sim.regions.get('west')?.rollouts.get(1)?.state, 'rolling-back');
  sim.become('west', 'aborted');
  sim.settle();
  assert.equal(sim.facts.state, 'aborted');
  assert.equal(sim.regions.get('south')?.rollouts.size, 0);
  assert.equal(sim.regions.get('east')?.rollouts.get(1)?.state, 'succeeded');
  assert.equal(sim.say(goOn()), false);
});

test('a coordinator that comes back from a backup pauses what it does not remember', () => {
  const sim = orderSim([['home'], ['west']]);
  sim.settle();
  const old = sim.facts;
  sim.become('home', 'succeeded');
  sim.settle();
  assert.equal(standing(sim)['west'], 'running/run');
  sim.facts = { ...old, nowMs: sim.facts.nowMs };
  sim.given.clear();
  sim.settle();
  assert.equal(sim.facts.state, 'paused');
  assert.deepEqual(standing(sim), { home: 'succeeded/run', west: 'paused/pause' });
  sim.say(goOn());
  sim.settle();
  assert.equal(standing(sim)['west'], 'running/run');
  assert.deepEqual([...(sim.regions.get('west')?.begun ?? [])], [[1, 1]]);
});

type Event = { kind: (typeof kinds)[number]; region: number; at: number };
const kinds = [
  ...[
    'take',
    'take',
    'take',
    'takeAny',
    'act',
    'act',
    'act',
    'hear',
    'hear',
    'hear',
    'step',
    'step',
    'step',
    'step',
  ],
  ...[
    'succeed',
    'succeed',
    'succeed',
    'succeed',
    'fail',
    'failed',
    'gatePause',
    'localPause',
    'localAbort',
    'localResume',
  ],
  ...['cut', 'back', 'pass', 'pause', 'resume', 'resume', 'without', 'abort', 'backup', 'restore', 'hearAny'],
] as const;
const history = fc.record({
  shape: fc.constantFrom([['a'], ['b', 'c']], [['a', 'b'], ['c']], [['a'], ['b'], ['c']]),
  skips: fc.boolean(),
  events: fc.array(fc.record({ kind: fc.constantFrom(...kinds), region: fc.nat(2), at: fc.nat(20) }), {
    minLength: 20,
    maxLength: 160,
  }),
});

/** What must hold after every event. */
function check(sim: OrderSim, before: RegionRolloutFact): void {
  const { facts } = sim;
  const skipped = ({ unreachableSinceMs }: RegionRolloutFact['parts'][number]): boolean =>
    facts.skipAfterMs !== null &&
    unreachableSinceMs !== null &&
    facts.nowMs - unreachableSinceMs >= facts.skipAfterMs;
  for (const part of facts.parts) {
    const old = before.parts.find(({ region }) => region === part.region);
    if (old?.wish === 'wait' && part.wish === 'run') {
      const open = facts.parts.filter(
        (one) =>
          one.stage < part.stage &&
          !one.leftOut &&
          // What really happened there, not what is believed.
          sim.regions.get(one.region)?.rollouts.get(one.attempt)?.state !== 'succeeded' &&
          !skipped(one),
      );
      assert.deepEqual(open, [], `${part.region} was told to run too early`);
    }
  }
  if (facts.state === 'paused')
    for (const part of facts.parts) {
      const standingNow = standingOf(part);
      if (standingNow !== 'succeeded' && standingNow !== 'left-out')
        assert.notEqual(part.wish, 'run', `${part.region} is not told to stop`);
    }
  if (facts.state === 'running')
    assert.ok(
      facts.parts.every((part) => standingOf(part) !== 'failed'),
      'a failure was passed over',
    );
}

type Happening = (sim: OrderSim, name: string, at: number) => void;
const happenings: Record<(typeof kinds)[number], Happening> = {
  take: (sim, name) => sim.take(name),
  takeAny: (sim, name, at) => sim.take(name, at % Math.max(1, sim.given.get(name)?.length ?? 1)),
  act: (sim, name) => sim.act(name),
  hear: (sim, name) => sim.hear(name),
  hearAny: (sim, name, at) => sim.hear(name, at % Math.max(1, sim.told.get(name)?.length ?? 1)),
  step: (sim) => {
    const before = sim.facts;
    sim.step();
    check(sim, before);
  },
  succeed: (sim, name) => sim.become(name, 'succeeded'),
  fail: (sim, name) => sim.become(name, 'rolling-back', true),
  failed: (sim, name) => sim.become(name, 'failed', true),
  gatePause: (sim, name) => sim.become(name, 'paused', true),
  localPause: (sim, name) => sim.become(name, 'paused'),
  localAbort: (sim, name) => sim.become(name, 'aborted'),
  localResume: (sim, name) => sim.become(name, 'running'),
  cut: (sim, name) => sim.cut(name, true),
  back: (sim, name) => sim.cut(name, false),
  pass: (sim, _name, at) => sim.pass(at * 600_000),
  pause: (sim) => void sim.say((facts) => pause(facts, by, null)),
  resume: (sim) => void sim.say(goOn()),
  without: (sim, name) => void sim.say(goOn([name])),
  // Rare: nothing happens after it.
  abort: (sim, _name, at) => void (at < 2 && sim.say((facts) => abort(facts, by, at === 0))),
  backup: (sim) => sim.backup(),
  restore: (sim) => sim.restore(),
};

function happen(sim: OrderSim, { kind, region, at }: Event): void {
  const names = [...sim.regions.keys()];
  happenings[kind](sim, names[region % names.length] ?? '', at);
}

const onlyOnce = ({ begun }: SimRegion): boolean => [...begun.values()].every((count) => count === 1);

test('any history: no stage too early, nothing begun twice, a failure stops the others, all ends when all is well', () => {
  const ends: Record<string, number> = {};
  fc.assert(
    fc.property(history, ({ shape, skips, events }) => {
      const sim = orderSim(shape, { skipAfterMs: skips ? 3_600_000 : null });
      for (const event of events) {
        happen(sim, event);
        assert.ok([...sim.regions.values()].every(onlyOnce));
      }
      // Everything heals, nobody says anything more but that it goes on, and whatever runs succeeds.
      for (const name of sim.regions.keys()) sim.cut(name, false);
      for (let round = 0; round < 6 && sim.facts.endedAtMs === null; round += 1) {
        sim.settle();
        for (const [name, { rollouts }] of sim.regions) {
          const own = [...rollouts.values()].at(-1);
          if (own?.state === 'rolling-back') sim.become(name, 'failed');
          else if (!own?.waveFailed) sim.become(name, 'succeeded');
        }
        sim.settle();
        if (sim.facts.state === 'paused') sim.say(goOn());
      }
      assert.notEqual(sim.facts.endedAtMs, null, JSON.stringify(standing(sim)));
      assert.ok([...sim.regions.values()].every(onlyOnce));
      const { state, parts } = sim.facts;
      if (state === 'succeeded')
        for (const part of parts)
          if (!part.leftOut)
            assert.equal(sim.regions.get(part.region)?.rollouts.get(part.attempt)?.state, 'succeeded');
      if (state === 'aborted')
        assert.ok(parts.every((part) => standingOf(part) === 'succeeded' || part.wish !== 'run'));
      ends[state] = (ends[state] ?? 0) + 1;
    }),
    { numRuns: 200, seed: 11 },
  );
  assert.ok((ends['succeeded'] ?? 0) > 50 && (ends['aborted'] ?? 0) > 10, JSON.stringify(ends));
});
