// Why: the picture of a run must be well-formed whatever the run says, and must show what happened where.
// Trusts: a run of the small world. Must never: compare pictures byte by byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { brokenRun } from '../../firmware-sim/explore/runner.ts';
import { timelineSvg } from '../../firmware-sim/explore/timeline.ts';
import { placed, timeText, timeTicks, wrapped } from '../../firmware-sim/explore/timeline-layout.ts';
import { timeScale } from '../../firmware-sim/explore/timeline-scale.ts';
import { runSeed } from './one-device-world.ts';

/** Every element is closed in its order; no bare ampersand. */
function requireWellFormed(svg: string): void {
  const open: string[] = [];
  for (const [, end, name = '', , self] of svg.matchAll(
    /<(\/?)([a-z]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/gi,
  )) {
    if (self === '/') continue;
    if (end === '/') assert.equal(open.pop(), name);
    else open.push(name);
  }
  assert.deepEqual(open, []);
  assert.doesNotMatch(svg, /&(?!(amp|lt|gt|quot);)/);
  assert.doesNotMatch(svg.replace(/<\/?[a-z]+(\s+[\w:-]+="[^"<]*")*\s*\/?>/gi, ''), /[<>]/);
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
}

test('a run of the small world: lanes, phases and ticks of time', async () => {
  const svg = timelineSvg(await runSeed({ seed: 11, trace: true }));
  requireWellFormed(svg);
  assert.match(svg, /<title>device<\/title>/);
  assert.match(svg, /alpha fetching, from /);
  assert.match(svg, /boot 1, 0 ms to /);
  assert.match(svg, /every invariant held/);
  assert.match(svg, /prefers-color-scheme:dark/);
});

test('what a run says cannot break the picture', () => {
  const nasty = '</svg><script>alert("&")</script>\u0000 自动更新';
  const svg = timelineSvg({
    ...brokenRun(1, `${nasty} ${'x'.repeat(400)}`),
    endedAtMs: 5_000,
    marks: [
      { atMs: 0, node: nasty, kind: 'boot', text: nasty },
      { atMs: 5, node: nasty, kind: 'phase', text: `${nasty} fetching` },
      { atMs: 9, node: 'device-1', kind: 'fault', text: nasty },
      { atMs: 5_000, node: 'world', kind: 'step', text: nasty },
      { atMs: 5_000, node: 'world', kind: 'violation', text: nasty },
    ],
  });
  requireWellFormed(svg);
  assert.match(svg, /badline/);
});

test('the registry comes first, then devices by number, the world last', () => {
  const names = ['world', 'device-10', 'device-2', 'registry'];
  const marks = names.map((node) => ({ atMs: 0, node, kind: 'boot' as const, text: 'boot 1' }));
  const svg = timelineSvg({ ...brokenRun(1, ''), violation: null, marks });
  const lanes = [...svg.matchAll(/<g transform[^>]*><title>([^<]*)/g)].map(([, name]) => name);
  assert.deepEqual(lanes, ['registry', 'device-2', 'device-10', 'world']);
});

test('a run without marks is a picture too', () => requireWellFormed(timelineSvg(brokenRun(1, 'gone'))));

test('labels of one lane never stand on each other', () => {
  const boxes = Array.from({ length: 50 }, (_, index) => ({ at: 100 + index * 17, width: 90, text: 'x' }));
  const { boxes: done, count } = placed(boxes, 100, 1_000);
  assert.ok(count < 12, `${count} rows`);
  for (const [index, a] of done.entries()) {
    const [fromA, toA] = a.anchorEnd ? [a.at - a.width, a.at] : [a.at, a.at + a.width];
    assert.ok(toA <= 1_000);
    for (const b of done.slice(index + 1).filter(({ row }) => row === a.row)) {
      const [fromB, toB] = b.anchorEnd ? [b.at - b.width, b.at] : [b.at, b.at + b.width];
      assert.ok(toA <= fromB || toB <= fromA);
    }
  }
});

test('times and ticks read well at every scale', () => {
  assert.deepEqual([0, 950, 12_500, 90_000, 5_400_000, 100_000_000].map(timeText), [
    '0 ms',
    '950 ms',
    '12.5 s',
    '1 min 30 s',
    '1 h 30 min',
    '1 d 3 h',
  ]);
  for (const spanMs of [1, 37, 4_000, 1e5, 3e6, 1e8, 4e9, 9e12]) {
    const ticks = timeTicks(spanMs);
    assert.ok(ticks.length >= 2 && ticks.length <= 12, `${ticks.length} ticks for ${spanMs}`);
    assert.ok((ticks.at(-1)?.atMs ?? 0) <= spanMs);
  }
  assert.deepEqual(wrapped('ab cd efghij', 5), ['ab cd', 'efghi', 'j']);
});

test('long stretches without an event are drawn short, and times keep their order', () => {
  const hourMs = 3_600_000;
  const times = [0, 1, 2, 3].flatMap((hour) => [0, 2, 5, 9, 12].map((s) => hour * hourMs + s * 1_000));
  const { x, ticks, breaks } = timeScale(times, 3 * hourMs + 20_000, 100, 1_000);
  assert.equal(breaks.length, 3);
  assert.ok(x(12_000) - x(0) > 100, 'twelve seconds of an hour are seen');
  for (const [index, time] of times.entries()) {
    const next = times[index + 1];
    if (next !== undefined) assert.ok(x(next) > x(time));
  }
  assert.deepEqual([x(0), x(3 * hourMs + 20_000)], [100, 1_100]);
  assert.ok(ticks.length >= 4 && ticks.length <= 5, ticks.map(({ text }) => text).join());
  const even = timeScale([0, 10, 20, 30], 40, 0, 400);
  assert.deepEqual([even.breaks.length, even.x(10)], [0, 100]);
});
