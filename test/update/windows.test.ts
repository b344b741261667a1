// Why: an update waits for its windows and for whoever says "not now", and nothing that goes back does.
// Trusts: the rig's virtual time; shared/kernel/windows.ts, which has tests of its own. Must never: wait in real time.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type DeviceTime, doorOf, granted } from '../../agent/update/doors.ts';
import {
  type MachineEvent,
  type MachineState,
  newMachine,
  servingTarget,
  step,
} from '../../agent/update/machine.ts';
import type { Fetcher } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import type { ActivationPolicy, AssignedRelease, Assignment } from '../../shared/wire/messages.ts';
import type { WindowPolicy } from '../../shared/wire/windows.ts';
import { createRig } from './rig.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** 1 January 2026, 00:00 UTC. */
const originMs = Date.UTC(2026, 0, 1);
const night: WindowPolicy = {
  download: [{ from: '22:00', to: '01:00' }],
  activate: [{ from: '02:00', to: '05:00' }],
  deferMaxMs: 4 * hourMs,
};

const digest = (name: string) => name.padEnd(64, '0');
const assigned = (
  name: string,
  windows?: WindowPolicy,
  more: Partial<ActivationPolicy> = {},
): AssignedRelease => ({
  as: 'm',
  releaseId: `acme/m@${name.charCodeAt(0)}.0.0`,
  manifestSha256: digest(name),
  manifestBytes: 10,
  counter: 1,
  requires: null,
  rolloutId: 'r',
  policy: {
    deadlinesMs: { fetching: 1_000, probing: 2_000, soaking: 3_000 },
    soakMs: 0,
    ...(windows === undefined ? {} : { windows }),
    ...more,
  },
});
const evidence = {
  goldenCases: 3,
  goldenPassed: 3,
  firstFailure: null,
  latencyP50Ms: 1,
  latencyP95Ms: 2,
  memoryBytesPeak: 1e6,
};
const at = (hours: number): DeviceTime => {
  const ms = originMs + hours * hourMs;
  return { signedMs: ms, wallMs: ms, timezone: 'UTC' };
};
const take = (state: MachineState, event: MachineEvent, time: DeviceTime, nowMs = 0) =>
  step(state, event, nowMs, { journalWritesMax: 40, time });
const play = (state: MachineState, events: MachineEvent[], time: DeviceTime): MachineState =>
  events.reduce((now, event) => take(now, event, time).next, state);
const toProbe: MachineEvent[] = [{ type: 'fetched' }, { type: 'verified' }, { type: 'staged' }];
const probed: MachineEvent = { type: 'probed', evidence, limits: {} };
const served = (name: string): MachineEvent => ({ type: 'served', manifestSha256: digest(name) });
const healthy: MachineEvent = { type: 'health', answer: ok({ requests: 0, errors: 0, latencyP95Ms: null }) };
const installed = (): MachineState =>
  play(
    newMachine('m', 0),
    [
      { type: 'assigned', release: assigned('a') },
      { type: 'agreed' },
      ...toProbe,
      probed,
      served('a'),
      healthy,
    ],
    at(12),
  );

describe('the machine before closed windows', () => {
  const offered = play(
    installed(),
    [{ type: 'assigned', release: assigned('b', night) }, { type: 'agreed' }],
    at(12),
  );

  test('it stays offered without a deadline, and fetches when the window is open', () => {
    assert.deepEqual(
      [offered.phase, offered.held?.door, offered.deadlineAtMs],
      ['offered', 'download', null],
    );
    assert.equal(take(offered, { type: 'deadline', lastProblem: null }, at(13), 9e9).next, offered);
    assert.equal(take(offered, { type: 'opened' }, at(13)).next, offered, 'not before it is open');
    const { next, effects } = take(offered, { type: 'opened' }, at(22));
    assert.deepEqual([next.phase, next.held, effects], ['fetching', null, ['fetch']]);
  });

  test('a window that closes pauses the download and its deadline', () => {
    const fetching = take(offered, { type: 'opened' }, at(22), 100).next;
    assert.equal(fetching.deadlineAtMs, 1_100);
    assert.equal(take(fetching, { type: 'closed' }, at(23), 300).next, fetching, 'it is open');
    const paused = take(fetching, { type: 'closed' }, at(25), 300);
    assert.deepEqual(
      [paused.next.phase, paused.next.held, paused.effects],
      ['fetching', { door: 'download', leftMs: 800 }, ['await']],
    );
    const resumed = take(paused.next, { type: 'opened' }, at(46), 5_000);
    assert.deepEqual([resumed.next.deadlineAtMs, resumed.effects], [5_800, ['fetch']]);
  });

  test('it is probed at any time and switches in its window alone', () => {
    const waiting = play(offered, [{ type: 'opened' }, ...toProbe, probed], at(22));
    assert.deepEqual([waiting.phase, waiting.held?.door, waiting.probe], ['probing', 'activate', evidence]);
    assert.equal(servingTarget(waiting)?.manifestSha256, digest('a'));
    for (const hours of [25, 25.99, 29])
      assert.equal(take(waiting, { type: 'opened' }, at(hours)).next, waiting);
    assert.equal(take(waiting, { type: 'opened' }, at(26)).next.phase, 'switching');
    const inTime = play(offered, [{ type: 'opened' }, ...toProbe], at(22));
    assert.equal(take(inTime, probed, at(26)).next.phase, 'switching');
  });

  test('terms that ask for a comparison while it waits are kept to', () => {
    const waiting = play(offered, [{ type: 'opened' }, ...toProbe, probed], at(22));
    const shadow = { requests: 3, cpuPercent: 25, timeoutMs: 1_000, agreementMin: null };
    const other = take(waiting, { type: 'assigned', release: assigned('b', night, { shadow }) }, at(23)).next;
    assert.equal(take(other, { type: 'opened' }, at(26)).next.phase, 'staging');
  });

  test('without the region’s time every window is closed', () => {
    for (const wallMs of [0, originMs + 26 * hourMs]) {
      const unknown = { signedMs: null, wallMs, timezone: 'UTC' };
      const { reason, changesAtMs } = doorOf(
        'activate',
        { policy: { ...offered.policy }, deferral: null },
        unknown,
      );
      assert.deepEqual([reason?.code, changesAtMs], ['window-closed', null]);
    }
    assert.match(
      doorOf('activate', { policy: offered.policy, deferral: null }, at(12)).reason?.detail ?? '',
      /^activation window 02:00–05:00 \(UTC\) opens fri 2026-01-02 02:00, 2026-01-02T02:00:00.000Z$/,
    );
  });

  test('what goes back waits for nothing', () => {
    const other = play(offered, [{ type: 'assigned', release: assigned('a', night) }], at(12));
    assert.deepEqual([other.phase, servingTarget(other)?.manifestSha256], ['committed', digest('a')]);
    const soaking = play(offered, [{ type: 'opened' }, ...toProbe, probed], at(22));
    const bad = play(soaking, [{ type: 'opened' }, served('b')], at(26));
    assert.equal(bad.phase, 'soaking');
    const back = take(bad, { type: 'health', answer: refuse('model-crashed', 'again') }, at(12)).next;
    assert.deepEqual([back.phase, servingTarget(back)?.manifestSha256], ['rolling-back', digest('a')]);
  });

  test('reboots while it waits neither begin anything nor use its journal up', () => {
    let state = offered;
    for (let boot = 1; boot <= 100; boot += 1) {
      const { next, effects } = take(state, { type: 'booted' }, at(12), boot);
      assert.deepEqual([next.phase, effects], ['offered', ['settle', 'await']]);
      state = next;
    }
    assert.equal(take(state, { type: 'opened' }, at(22)).next.phase, 'fetching');
  });

  test('other windows for the same bytes are looked at at once', () => {
    const { effects } = take(offered, { type: 'assigned', release: assigned('b') }, at(12));
    assert.deepEqual(effects, ['await']);
    const fetching = take(offered, { type: 'opened' }, at(22)).next;
    assert.deepEqual(take(fetching, { type: 'assigned', release: assigned('b') }, at(22)).effects, ['fetch']);
    assert.deepEqual(take(fetching, { type: 'assigned', release: assigned('b', night) }, at(22)).effects, []);
  });
});

describe('not now', () => {
  const fetched = (): MachineState =>
    play(installed(), [{ type: 'assigned', release: assigned('b') }, { type: 'agreed' }, ...toProbe], at(12));

  test('an update is put off in all as long as its rollout allows', () => {
    const { policy } = assigned('b', night);
    const first = granted(policy, null, 3 * hourMs, 0);
    assert.deepEqual(first, { fromMs: 0, untilMs: 3 * hourMs, usedMs: 3 * hourMs });
    const second = granted(policy, first, 3 * hourMs, hourMs);
    assert.deepEqual(
      second,
      { fromMs: hourMs, untilMs: 4 * hourMs, usedMs: 4 * hourMs },
      'two hours are given back',
    );
    assert.equal(granted(policy, second, hourMs, 4 * hourMs), null);
    assert.equal(granted(policy, second, hourMs, 9 * hourMs), null);
    assert.equal(
      granted(assigned('b').policy, null, dayMs, 0)?.untilMs,
      4 * hourMs,
      'where no file names a bound',
    );
  });

  test('it holds the switch, not a download under way, and ends when it is taken back', () => {
    let state = play(installed(), [{ type: 'assigned', release: assigned('b') }, { type: 'agreed' }], at(12));
    state = take(state, { type: 'deferred', forMs: hourMs }, at(12)).next;
    assert.equal(take(state, { type: 'closed' }, at(12)).next, state);
    state = play(state, [...toProbe, probed], at(12));
    assert.deepEqual([state.phase, state.held?.door], ['probing', 'activate']);
    assert.equal(doorOf('activate', state, at(12)).reason?.untilMs, originMs + 13 * hourMs);
    assert.equal(take(state, { type: 'opened' }, at(12.99)).next, state);
    assert.equal(take(state, { type: 'opened' }, at(13)).next.phase, 'switching');
    const back = take(state, { type: 'deferred', forMs: null }, at(12.5));
    assert.deepEqual([back.next.deferral?.usedMs, back.effects], [hourMs / 2, ['await']]);
    assert.equal(take(back.next, { type: 'opened' }, at(12.5)).next.phase, 'switching');
  });

  test('an update that comes meanwhile is put off as well; the next one has a bound of its own', () => {
    const release = assigned('b', night);
    const first = take(installed(), { type: 'assigned', release, deferForMs: 9 * hourMs }, at(12)).next;
    assert.equal(first.deferral?.usedMs, 4 * hourMs);
    const second = take(first, { type: 'assigned', release: assigned('c', night) }, at(13)).next;
    assert.equal(second.deferral, null);
  });

  test('a clock that goes back does not make it longer than it was asked for', () => {
    const state = take(fetched(), { type: 'deferred', forMs: hourMs }, at(500 * 24)).next;
    const set = take(state, { type: 'clock-set' }, at(12)).next;
    assert.equal(set.deferral?.untilMs, originMs + 13 * hourMs);
    assert.equal(take(set, { type: 'clock-set' }, at(12.5)).next, set);
  });

  test('back to the release before is not put off', () => {
    const second = play(
      installed(),
      [
        { type: 'assigned', release: assigned('b') },
        { type: 'agreed' },
        ...toProbe,
        probed,
        served('b'),
        healthy,
      ],
      at(12),
    );
    assert.equal(second.previous?.manifestSha256, digest('a'));
    const back = take(second, { type: 'assigned', release: assigned('a'), deferForMs: hourMs }, at(12)).next;
    assert.deepEqual([back.phase, back.deferral], ['offered', null]);
    assert.equal(take(back, { type: 'deferred', forMs: hourMs }, at(12)).next, back);
  });

  test('however often it is said, the journal of the update is not used up', () => {
    let state = fetched();
    for (let times = 0; times < 100; times += 1)
      state = take(state, { type: 'deferred', forMs: times % 2 === 0 ? hourMs : null }, at(12)).next;
    assert.equal(state.phase, 'probing');
  });

  test('what serves already, or goes back, is not put off', () => {
    assert.equal(take(installed(), { type: 'deferred', forMs: hourMs }, at(12)).journal, false);
    const back = take(
      fetched(),
      { type: 'failed', reason: { code: 'model-invalid', detail: '' } },
      at(12),
    ).next;
    assert.equal(take(back, { type: 'deferred', forMs: hourMs }, at(12)).journal, false);
  });
});

/** A device whose clock stands at noon when it boots. */
async function noonRig(signed = true, slow: (inner: Fetcher) => Fetcher = (inner) => inner) {
  let told = signed;
  const time = (): DeviceTime => {
    const ms = originMs + 12 * hourMs + rig.world.nowMs();
    return { signedMs: told ? ms : null, wallMs: told ? ms : 0, timezone: 'UTC' };
  };
  const clock = { rig: null as Awaited<ReturnType<typeof createRig>> | null };
  const rig = await createRig({
    fetcher: slow,
    parts: { time: () => (clock.rig === null ? { signedMs: null, wallMs: 0, timezone: 'UTC' } : time()) },
  });
  clock.rig = rig;
  const windowed = (epoch: number, key: string, windows?: WindowPolicy): Assignment => {
    const assignment = rig.assignment(epoch, { alpha: key });
    for (const release of assignment.releases) if (windows !== undefined) release.policy.windows = windows;
    return assignment;
  };
  const model = () => rig.updater.models()[0] ?? assert.fail();
  return {
    rig,
    windowed,
    model,
    time,
    tell: () => {
      told = true;
      rig.updater.timeTold();
    },
    until: (hours: number) => rig.world.run((hours - 12) * hourMs),
  };
}

const hoursOf = (ms = 0): number => Math.round(((ms - originMs) / hourMs) * 100) / 100;

describe('the device', () => {
  test('downloads and switches in its windows and says what it waits for', async () => {
    const { rig, windowed, model, until } = await noonRig();
    const assigning = rig.updater.assign(windowed(1, 'alpha/good/0', night));
    await until(21.9);
    await assigning;
    assert.deepEqual([model().state, model().reason?.code], ['offered', 'window-closed']);
    assert.equal(model().reason?.untilMs, originMs + 22 * hourMs);
    assert.equal(rig.asked.size, 0);
    await until(23);
    assert.deepEqual([model().state, model().reason?.untilMs], ['probing', originMs + 26 * hourMs]);
    assert.ok(rig.asked.size > 0);
    await until(25.99);
    assert.equal(rig.runtime.serving.size, 0);
    await until(26.1);
    assert.equal(model().state, 'committed');
  });

  test('goes on with a download in the next window, and asks for nothing outside', async () => {
    const askedAt: number[] = [];
    const { rig, windowed, model, until } = await noonRig(true, (inner) => ({
      range: async (...of) => {
        askedAt.push((rig.world.nowMs() / hourMs + 12) % 24);
        await new Promise<void>((resolve) => rig.world.later(20_000, resolve));
        return inner.range(...of);
      },
    }));
    const brief = { download: [{ from: '12:00', to: '12:01' }], deferMaxMs: 0 };
    const assigning = rig.updater.assign(windowed(1, 'alpha/good/0', brief));
    await until(13);
    await assigning;
    const first = askedAt.length;
    assert.deepEqual([model().state, model().reason?.untilMs], ['fetching', originMs + 36 * hourMs]);
    assert.ok(first > 0);
    await until(12 + 24 * 30);
    assert.equal(model().state, 'committed');
    assert.ok(askedAt.length > first);
    for (const hour of askedAt) assert.ok(hour >= 12 && hour < 12 + 1 / 60, `asked at ${hour}`);
  });

  test('waits for the region’s time, and looks when it is told', async () => {
    const { rig, windowed, model, until, tell } = await noonRig(false);
    const open = { activate: [{ from: '00:00', to: '00:00' }], deferMaxMs: 0 };
    const assigning = rig.updater.assign(windowed(1, 'alpha/good/0', open));
    await until(13);
    await assigning;
    assert.deepEqual([model().state, model().reason?.code], ['probing', 'window-closed']);
    tell();
    await until(13.1);
    assert.equal(model().state, 'committed');
  });

  test('asks both authorities again when its window opens', async () => {
    const { rig, windowed, model, until } = await noonRig();
    const assigning = rig.updater.assign(
      windowed(1, 'alpha/good/0', { ...night, download: [{ from: '12:00', to: '13:00' }] }),
    );
    await until(20);
    await assigning;
    assert.equal(model().state, 'probing');
    rig.catalogue.agree = () => refuse('release-withdrawn', 'meanwhile');
    await until(26.1);
    assert.deepEqual([model().state, model().reason?.code], ['idle', 'release-withdrawn']);
  });

  test('a deferral outlives a restart', async () => {
    const { rig, windowed, until, time } = await noonRig();
    const saying = rig.updater.defer(2 * hourMs);
    await until(12.0001);
    const said = await saying;
    assert.ok(said.ok && said.value.updates.length === 0);
    const assigning = rig.updater.assign(windowed(1, 'alpha/good/0', { deferMaxMs: 3 * hourMs }));
    await until(12.5);
    await assigning;
    let switchedAtMs: number | null = null;
    rig.onChange = ([one]) => {
      if (one?.state === 'switching') switchedAtMs ??= rig.world.nowMs();
    };
    await rig.reboot({ parts: { time } });
    assert.ok(switchedAtMs !== null && switchedAtMs >= 2 * hourMs, `switched after ${switchedAtMs} ms`);
    const later = rig.updater.assign(windowed(2, 'alpha/good/1'));
    await rig.settle(later);
    assert.ok(rig.world.nowMs() < 3 * hourMs, 'it is over for the next one');
  });

  test('a deferral is bounded for each update, said, and given back', async () => {
    const { rig, windowed, model, until } = await noonRig();
    const assigning = rig.updater.assign(windowed(1, 'alpha/good/0', { ...night, deferMaxMs: 3 * hourMs }));
    await until(21.5);
    await assigning;
    const asking = rig.updater.defer(5 * hourMs);
    await until(22.5);
    const asked = await asking;
    assert.ok(asked.ok);
    assert.equal(hoursOf(asked.value.updates[0]?.untilMs), 24.5, 'three hours in all');
    assert.deepEqual([model().state, model().reason?.code], ['offered', 'update-deferred']);
    const over = rig.updater.defer(null);
    await until(22.6);
    assert.ok((await over).ok);
    assert.deepEqual([model().state, rig.updater.deferral()], ['probing', null]);
    await until(24);
    const rest = rig.updater.defer(5 * hourMs);
    await until(24.1);
    const had = await rest;
    assert.ok(had.ok);
    assert.equal(hoursOf(had.value.updates[0]?.untilMs), 26, 'one hour was used');
    await until(26.1);
    assert.equal(model().state, 'committed');
  });

  test('where nothing is left to defer that is refused', async () => {
    const { rig, windowed, until } = await noonRig();
    const assigning = rig.updater.assign(windowed(1, 'alpha/good/0', { ...night, deferMaxMs: 0 }));
    await until(12.5);
    await assigning;
    const asking = rig.updater.defer(hourMs);
    await until(12.6);
    const refused = await asking;
    assert.equal(refused.ok ? 'ok' : refused.refusal.code, 'defer-exhausted');
    assert.equal(rig.updater.deferral(), null);
  });
});
