// Why: the table of the update machine: every state is reached, every reboot resumes, nothing unproven
// becomes active. Trusts: step() to be pure. Must never: repeat the table's own words as its proof.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type MachineEvent,
  type MachineState,
  newMachine,
  type ReleaseRef,
  servingTarget,
  step,
  table,
} from '../../agent/update/machine.ts';
import type { ShadowEvidence } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { type AssignedRelease, type MachineStateName, machineStates } from '../../shared/wire/messages.ts';

const digest = (name: string) => name.padEnd(64, '0');
const assigned = (name: string, rolloutId: string | null = 'r', soakMs = 0): AssignedRelease => ({
  as: 'm',
  releaseId: `acme/m@${name.charCodeAt(0)}.0.0`,
  manifestSha256: digest(name),
  manifestBytes: 10,
  counter: 1,
  requires: null,
  rolloutId,
  policy: { deadlinesMs: { fetching: 1_000, probing: 2_000, soaking: 3_000 }, soakMs },
});
const evidence = {
  goldenCases: 3,
  goldenPassed: 3,
  firstFailure: null,
  latencyP50Ms: 1,
  latencyP95Ms: 2,
  memoryBytesPeak: 1e6,
};
const agreeing: ShadowEvidence = {
  requests: 50,
  compared: 30,
  skipped: 20,
  failed: 0,
  agreement: 1,
  firstFailure: null,
  latencyP95Ms: 2,
  activeLatencyP95Ms: 2,
  differences: [],
};
const shadowPolicy = { requests: 30, cpuPercent: 25, timeoutMs: 4_000, agreementMin: 0.95 };
const withShadow = (name: string, rolloutId = 's'): AssignedRelease => {
  const release = assigned(name, rolloutId);
  return { ...release, policy: { ...release.policy, shadow: shadowPolicy } };
};
const healthy: MachineEvent = { type: 'health', answer: ok({ requests: 0, errors: 0, latencyP95Ms: null }) };
const served = (name: string | null): MachineEvent => ({
  type: 'served',
  manifestSha256: name === null ? null : digest(name),
});
const crashLooped = (name: string, fallback: string | null): MachineEvent => ({
  type: 'crash-looped',
  manifestSha256: digest(name),
  reason: { code: 'model-crash-loop', detail: 'again' },
  fallback: fallback === null ? null : digest(fallback),
});
const failed: MachineEvent = { type: 'failed', reason: { code: 'model-invalid', detail: 'no' } };

/** The way of a release from its assignment to a good probe. */
const probedWith = (release: AssignedRelease): MachineEvent[] => [
  { type: 'assigned', release },
  { type: 'agreed' },
  { type: 'fetched' },
  { type: 'verified' },
  { type: 'staged' },
  { type: 'probed', evidence, limits: {} },
];

function play(state: MachineState, events: MachineEvent[], nowMs = 0): MachineState {
  return events.reduce((at, event) => step(at, event, nowMs).next, state);
}
function install(state: MachineState, name: string, rolloutId = 'r'): MachineState {
  return play(state, [...probedWith(assigned(name, rolloutId)), served(name), healthy]);
}
const fresh = () => newMachine('m', 0);
const idOf = (ref: ReleaseRef | null) => ref?.manifestSha256 ?? null;

describe('the way of an update', () => {
  test('a good release goes through every state in order and is committed', () => {
    const release = assigned('a', 'r', 500);
    const seen: MachineStateName[] = [];
    let state = fresh();
    const take = (event: MachineEvent, nowMs = 0) => {
      state = step(state, event, nowMs).next;
      seen.push(state.phase);
    };
    take({ type: 'assigned', release });
    take({ type: 'agreed' });
    take({ type: 'described', requires: { arch: ['x64'] }, device: { arch: 'x64' } });
    take({ type: 'fetched' });
    take({ type: 'verified' });
    take({ type: 'staged' });
    take({ type: 'probed', evidence, limits: { latencyP95Ms: 5 } });
    assert.equal(idOf(state.active), null);
    assert.equal(servingTarget(state)?.manifestSha256, digest('a'));
    take(served('a'));
    assert.equal(state.active?.manifestSha256, digest('a'));
    assert.equal(idOf(state.lastGood), null, 'not proven before the soak ended');
    take(healthy, 499);
    take(healthy, 500);
    assert.deepEqual(seen, [
      'offered',
      'fetching',
      'fetching',
      'verifying',
      'staging',
      'probing',
      'switching',
      'soaking',
      'soaking',
      'committed',
    ]);
    assert.equal(state.lastGood?.manifestSha256, digest('a'));
    assert.deepEqual(state.probe, evidence);
    assert.ok(state.journalWrites <= 9, `${state.journalWrites} writes`);
  });

  test('every state is reached, and each knows where a reboot resumes', () => {
    const good = install(fresh(), 'a');
    const reached = new Set<string>();
    const queue = [fresh(), good];
    const events: MachineEvent[] = [
      ...probedWith(withShadow('b')),
      { type: 'shadowed', evidence: agreeing },
      served('a'),
      served('b'),
      healthy,
      failed,
    ];
    for (let state = queue.pop(); state !== undefined; state = queue.pop()) {
      if (reached.has(state.phase)) continue;
      reached.add(state.phase);
      assert.ok(machineStates.includes(table[state.phase].resume));
      for (const event of events) queue.push(step(state, event, 0).next);
    }
    assert.deepEqual(
      machineStates.filter((name) => !reached.has(name)),
      [],
    );
  });

  const shadowing = (from: MachineState): MachineState => play(from, [...probedWith(withShadow('b'))]);

  test('a candidate is shadowed where something serves, and switched on when it agrees', () => {
    assert.equal(shadowing(fresh()).phase, 'switching', 'there are no live inputs to copy');
    const state = shadowing(install(fresh(), 'a'));
    assert.equal(state.phase, 'shadowing');
    assert.equal(servingTarget(state)?.manifestSha256, digest('a'));
    const entered = step(shadowing(install(fresh(), 'a')), { type: 'booted' }, 0);
    assert.equal(entered.next.phase, 'staging', 'a child does not survive a reboot');
    const agreed = play(state, [{ type: 'shadowed', evidence: agreeing }]);
    assert.deepEqual([agreed.phase, agreed.shadow], ['switching', agreeing]);
  });

  test('a candidate that disagrees, or was hardly tried, is not switched on', () => {
    const table: [Partial<ShadowEvidence>, string | null][] = [
      [{ agreement: 0.9 }, 'shadow-disagreement'],
      [{ agreement: null, compared: 0, failed: 30 }, 'shadow-disagreement'],
      [{ compared: 19 }, 'shadow-insufficient'],
      [{ compared: 10, failed: 10, agreement: 0.96 }, null],
      [{ compared: 20, agreement: 0.95 }, null],
    ];
    for (const [changed, code] of table) {
      const next = play(shadowing(install(fresh(), 'a')), [
        { type: 'shadowed', evidence: { ...agreeing, ...changed } },
      ]);
      assert.equal(next.phase, code === null ? 'switching' : 'rolling-back', JSON.stringify(changed));
      assert.equal(next.reason?.code ?? null, code);
      assert.equal(idOf(next.active), digest('a'));
      if (code !== null) assert.equal(next.rejected?.manifestSha256, digest('b'));
    }
    const bounded = shadowing(install(fresh(), 'a'));
    const unbounded = { ...shadowPolicy, agreementMin: null };
    const measured = { ...bounded, policy: { ...bounded.policy, shadow: unbounded } };
    const passed = play(measured, [
      { type: 'shadowed', evidence: { ...agreeing, compared: 0, agreement: null } },
    ]);
    assert.equal(passed.phase, 'switching', 'without a bound it is only measured');
  });

  test('a runtime that does not end shadowing is not waited for', () => {
    const state = shadowing(install(fresh(), 'a'));
    assert.equal(step(state, { type: 'deadline', lastProblem: null }, 63_999).next.phase, 'shadowing');
    const missed = step(state, { type: 'deadline', lastProblem: null }, 64_000).next;
    assert.deepEqual([missed.phase, missed.reason?.code], ['rolling-back', 'deadline-missed']);
  });

  test('any failure before the switch leaves the active release alone', () => {
    const good = install(fresh(), 'a');
    const way: MachineEvent[] = [...probedWith(assigned('b', 's'))];
    for (let length = 1; length <= way.length; length += 1) {
      const back = step(play(good, way.slice(0, length)), failed, 0);
      assert.equal(back.next.phase, 'rolling-back');
      assert.equal(servingTarget(back.next)?.manifestSha256, digest('a'));
      assert.equal(back.next.candidate, null);
      const rest = step(back.next, served('a'), 0).next;
      assert.equal(rest.phase, 'idle');
      assert.equal(rest.reason?.code, 'model-invalid');
    }
  });

  test('a failure while soaking goes back to the last good release', () => {
    const soaking = play(install(fresh(), 'a'), [...probedWith(assigned('b', 's', 9_000)), served('b')]);
    assert.equal(soaking.active?.manifestSha256, digest('b'));
    const sick: MachineEvent = { type: 'health', answer: refuse('model-crashed', 'again') };
    const back = step(soaking, sick, 1).next;
    assert.equal(back.reason?.code, 'soak-errors');
    assert.equal(back.active?.manifestSha256, digest('a'));
  });

  test('while nothing serves no soak passes', () => {
    const soaking = play(install(fresh(), 'a'), [...probedWith(assigned('b', 's', 9_000)), served('b')]);
    const endMs = soaking.soakUntilMs ?? assert.fail();
    const after = (nowMs: number, stoodStillMs: number) =>
      step(soaking, { ...healthy, stoodStillMs }, nowMs).next.phase;
    assert.deepEqual(
      [after(endMs, 0), after(endMs + 999, 1_000), after(endMs + 1_000, 1_000)],
      ['committed', 'soaking', 'committed'],
    );
  });

  test('a committed release that cannot be kept alive gives way to the one before it, once', () => {
    const second = install(install(fresh(), 'a', 'r'), 'b', 's');
    assert.deepEqual([idOf(second.lastGood), idOf(second.previous)], [digest('b'), digest('a')]);
    for (const event of [crashLooped('a', 'a'), crashLooped('b', null), crashLooped('b', 'c')])
      assert.equal(
        step(second, event, 1).next,
        second,
        'another release, nothing allowed, or not the one before',
      );
    const back = step(second, crashLooped('b', 'a'), 1);
    assert.deepEqual([back.next.phase, back.effects], ['rolling-back', ['settle']]);
    const { active, lastGood, previous, reason } = step(back.next, served('a'), 2).next;
    assert.deepEqual([idOf(active), idOf(lastGood), previous], [digest('a'), digest('a'), null]);
    assert.equal(reason?.code, 'model-crash-loop');
    const rest = step(back.next, served('a'), 2).next;
    const again = step(rest, { type: 'assigned', release: assigned('b', 's') }, 3);
    assert.equal(again.next.phase, 'idle', 'not tried again for the same rollout');
    assert.equal(step(rest, { type: 'assigned', release: assigned('b', 't') }, 3).next.phase, 'offered');
    assert.equal(step(rest, crashLooped('a', null), 4).next, rest, 'there is none before it');
  });

  test('a refused candidate stays refused when what serves in its stead gives way', () => {
    const second = install(install(fresh(), 'a', 'r'), 'b', 's');
    const refused = play(second, [{ type: 'assigned', release: assigned('c', 't') }, failed, served('b')]);
    assert.deepEqual([refused.phase, idOf(refused.previous)], ['idle', digest('a')]);
    const back = play(refused, [crashLooped('b', 'a'), served('a')]);
    assert.deepEqual([back.phase, idOf(back.active)], ['idle', digest('a')]);
    assert.equal(step(back, { type: 'assigned', release: assigned('c', 't') }, 5).next.phase, 'idle');
  });

  test('a rotten file sends it back to fetching', () => {
    const verifying = play(fresh(), [
      { type: 'assigned', release: assigned('a') },
      { type: 'agreed' },
      { type: 'fetched' },
    ]);
    assert.equal(step(verifying, { type: 'damaged' }, 0).next.phase, 'fetching');
  });
});

describe('assignments', () => {
  const bad = play(install(fresh(), 'a'), [
    { type: 'assigned', release: assigned('b', 's') },
    { type: 'agreed' },
    failed,
    served('a'),
  ]);

  test('the same bytes for the same rollout are not tried twice; another rollout may', () => {
    assert.equal(bad.phase, 'idle');
    const again = step(bad, { type: 'assigned', release: assigned('b', 's') }, 5);
    assert.deepEqual([again.journal, again.effects], [false, []]);
    const retry = step(bad, { type: 'assigned', release: assigned('b', 's-retry') }, 5);
    assert.equal(retry.next.phase, 'offered');
    assert.equal(retry.next.journalWrites, 1, 'a new update has a new budget');
  });

  test('the way back to the last good release needs no download', () => {
    const back = step(bad, { type: 'assigned', release: assigned('a', 't') }, 5);
    assert.equal(back.next.phase, 'committed');
    assert.equal(back.next.reason, null);
    assert.deepEqual(back.effects, ['settle', 'collect']);
  });

  test('re-issued unchanged it costs no journal write', () => {
    const good = install(fresh(), 'a');
    assert.equal(step(good, { type: 'assigned', release: assigned('a') }, 5).journal, false);
  });

  test('a new release in mid-update supersedes; the same one goes on under the new terms', () => {
    const fetching = play(install(fresh(), 'a'), [
      { type: 'assigned', release: assigned('b', 's') },
      { type: 'agreed' },
    ]);
    const other = step(fetching, { type: 'assigned', release: assigned('c', 't') }, 5).next;
    assert.equal(other.phase, 'offered');
    assert.equal(other.candidate?.manifestSha256, digest('c'));
    assert.equal(other.attempt, fetching.attempt + 1);
    const same = step(fetching, { type: 'assigned', release: assigned('b', 't') }, 5);
    assert.equal(same.next.phase, 'fetching');
    assert.equal(same.next.rolloutId, 't');
    assert.deepEqual(same.effects, []);
  });

  test('new terms in mid-soak: it soaks as long as the new ones ask, from when it began', () => {
    const soaking = play(install(fresh(), 'a'), [...probedWith(assigned('b', 's', 4_000)), served('b')]);
    const { soakUntilMs, deadlineAtMs } = soaking;
    assert.ok(soakUntilMs !== null && deadlineAtMs !== null);
    const longer = step(soaking, { type: 'assigned', release: assigned('b', 't', 9_000) }, 10).next;
    assert.equal(longer.soakUntilMs, soakUntilMs + 5_000);
    assert.equal(longer.deadlineAtMs, deadlineAtMs + 5_000);
    assert.equal(step(longer, healthy, soakUntilMs).next.phase, 'soaking');
    assert.equal(step(longer, healthy, soakUntilMs + 5_000).next.phase, 'committed');
  });

  test('superseded while soaking: the last good one takes over; where there is none, it serves on', () => {
    const soak = (from: MachineState) => play(from, [...probedWith(assigned('b', 's', 9_000)), served('b')]);
    const next: MachineEvent = { type: 'assigned', release: assigned('c', 't') };
    const second = step(soak(install(fresh(), 'a')), next, 1);
    assert.equal(second.next.active?.manifestSha256, digest('a'));
    assert.ok(second.effects.includes('settle'));
    const first = step(soak(fresh()), next, 1).next;
    assert.equal(first.active?.manifestSha256, digest('b'));
    assert.equal(step(first, failed, 2).next.active, null);
  });

  test('removed: nothing serves, then the model is forgotten', () => {
    for (const from of [
      install(fresh(), 'a'),
      bad,
      step(fresh(), { type: 'assigned', release: assigned('a') }, 0).next,
    ]) {
      const removed = step(from, { type: 'removed' }, 1);
      assert.equal(servingTarget(removed.next), null);
      assert.ok(removed.effects.includes('settle'));
      assert.deepEqual(step(removed.next, served(null), 2).effects, ['forget']);
    }
  });
});

describe('time and reboots', () => {
  test('a deadline is of this state, and an early timer changes nothing', () => {
    const fetching = play(fresh(), [{ type: 'assigned', release: assigned('a') }, { type: 'agreed' }], 100);
    assert.equal(fetching.deadlineAtMs, 1_100);
    const lastProblem = { code: 'bus-offline', detail: 'no line' };
    assert.equal(step(fetching, { type: 'deadline', lastProblem }, 1_099).next, fetching);
    const missed = step(fetching, { type: 'deadline', lastProblem }, 1_100).next;
    assert.equal(missed.phase, 'rolling-back');
    assert.equal(missed.reason?.code, 'deadline-missed');
    assert.match(missed.reason?.detail ?? '', /bus-offline/);
  });

  test('after a reboot the time that was left counts on, from another clock', () => {
    const fetching = play(fresh(), [{ type: 'assigned', release: assigned('a') }, { type: 'agreed' }], 100);
    const later = step(fetching, { type: 'assigned', release: assigned('a', 'r2') }, 700).next;
    assert.equal(step(later, { type: 'booted' }, 5_000_000).next.deadlineAtMs, 5_000_000 + 400);
  });

  test('the soak may be longer than its deadline', () => {
    const soaking = play(fresh(), [...probedWith(assigned('a', 'r', 86_400_000)), served('a')]);
    assert.equal(soaking.deadlineAtMs, 86_400_000 + 3_000);
  });

  test('reboots are counted: over the budget the old release is back', () => {
    let state = play(install(fresh(), 'a'), [
      { type: 'assigned', release: assigned('b', 's') },
      { type: 'agreed' },
    ]);
    let reboots = 0;
    for (; state.phase === 'fetching'; reboots += 1)
      state = step(state, { type: 'booted' }, reboots, { journalWritesMax: 10 }).next;
    assert.equal(reboots, 9);
    assert.equal(state.reason?.code, 'journal-budget-exceeded');
    assert.equal(servingTarget(state)?.manifestSha256, digest('a'));
  });

  test('at rest a reboot writes nothing', () => {
    const boot = step(install(fresh(), 'a'), { type: 'booted' }, 9);
    assert.equal(boot.journal, false);
    assert.ok(boot.effects.includes('settle'));
  });

  const name = fc.constantFrom('a', 'b', 'c');
  const reason = { code: 'model-invalid', detail: '' };
  const anyEvent: fc.Arbitrary<MachineEvent> = fc.oneof(
    fc.constant<MachineEvent>({ type: 'booted' }),
    fc.record({
      type: fc.constant('assigned' as const),
      release: fc
        .tuple(name, fc.constantFrom('r', 's'), fc.boolean())
        .map(([n, r, shadow]) => (shadow ? withShadow(n, r) : assigned(n, r, 10))),
    }),
    fc.constant<MachineEvent>({ type: 'removed' }),
    fc.constant<MachineEvent>({ type: 'deadline', lastProblem: null }),
    fc.constantFrom<MachineEvent>(
      { type: 'agreed' },
      { type: 'fetched' },
      { type: 'verified' },
      { type: 'damaged' },
      { type: 'staged' },
      { type: 'failed', reason },
      { type: 'described', requires: { arch: ['z80'] }, device: { arch: 'x64' } },
    ),
    fc
      .constantFrom(evidence, { ...evidence, goldenPassed: 1 })
      .map((of): MachineEvent => ({ type: 'probed', evidence: of, limits: {} })),
    fc
      .constantFrom(agreeing, { ...agreeing, agreement: 0.1 })
      .map((of): MachineEvent => ({ type: 'shadowed', evidence: of })),
    fc.option(name).map((n): MachineEvent => served(n)),
    name.map((n): MachineEvent => ({ type: 'serve-failed', manifestSha256: digest(n), reason })),
    fc.constantFrom<MachineEvent>(healthy, { type: 'health', answer: refuse('model-crashed', '') }),
    fc.tuple(name, fc.option(name)).map(([n, f]): MachineEvent => crashLooped(n, f)),
  );

  /** The event that moves this state on: chance alone seldom gets as far as a soak. */
  function progress(state: MachineState): MachineEvent {
    const next: { [S in MachineStateName]?: MachineEvent } = {
      idle: { type: 'assigned', release: assigned('a', 'r', 10) },
      offered: { type: 'agreed' },
      fetching: { type: 'fetched' },
      verifying: { type: 'verified' },
      staging: { type: 'staged' },
      probing: { type: 'probed', evidence, limits: {} },
      shadowing: { type: 'shadowed', evidence: agreeing },
      soaking: healthy,
    };
    return next[state.phase] ?? { type: 'served', manifestSha256: idOf(servingTarget(state)) };
  }
  const mostlyProgress = fc.oneof(
    { weight: 12, arbitrary: fc.constant('go' as const) },
    { weight: 1, arbitrary: anyEvent },
  );
  let commits = 0;

  test('whatever happens in whatever order, what serves has passed its probe', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(mostlyProgress, fc.nat(100)), { maxLength: 60 }), (events) => {
        const proven = new Set<string>();
        let state = fresh();
        let nowMs = 0;
        for (const [drawn, ms] of events) {
          nowMs += ms;
          const before = state;
          const event = drawn === 'go' ? progress(before) : drawn;
          const { next, effects, journal } = step(state, event, nowMs);
          state = next;
          if (event.type === 'probed' && before.phase === 'probing' && next.candidate !== null) {
            proven.add(before.candidate?.manifestSha256 ?? '');
          }
          const target = servingTarget(next);
          if (target !== null) assert.ok(proven.has(target.manifestSha256));
          assert.ok(next.lastGood !== null || before.lastGood === null || event.type === 'removed');
          const moving: MachineStateName[] = [
            'offered',
            'fetching',
            'verifying',
            'staging',
            'probing',
            'switching',
          ];
          assert.equal(next.candidate !== null, moving.includes(next.phase));
          if (next.phase === 'committed') commits += 1;
          if (next.phase !== before.phase) assert.ok(journal && effects.length > 0);
          if (!journal) assert.equal(next.phase, before.phase);
        }
      }),
      { numRuns: 2_000 },
    );
    assert.ok(commits > 300, `only ${commits} commits were seen`);
  });
});
