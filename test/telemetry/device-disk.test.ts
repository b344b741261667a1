// Why: a device's disk after a week, in a thief's hands: records that came and went, were dropped, packed, cut off by a
// crash. Trusts: outbox-scene.ts for a region that checks everything. Must never: look at fewer bytes than there are.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { nothingOpens } from './device-secrets.ts';
import { scene, until } from './outbox-scene.ts';

const marker = 'ward-7-bed-3-f00d5a1d';
const [dayMs, everyMs, appendedAtOnce] = [86_400_000, 10_000, 60];
const startMs = Date.UTC(2026, 0, 5);

/** As it is, as the application may have written it, and as a column or a log may hold it. */
const disguises = [
  Buffer.from(marker, 'utf8'),
  Buffer.from(marker, 'utf16le'),
  Buffer.from(Buffer.from(marker).toString('hex')),
  ...[0, 1, 2].map((shift) =>
    // The middle of its base64, whatever stands before it.
    Buffer.from(
      Buffer.from(`${'x'.repeat(shift)}${marker}`)
        .toString('base64')
        .slice(4, -6),
    ),
  ),
];

test('after a week of records nothing on a device’s disk is in clear, and nothing there opens what is sealed', async (t) => {
  const one = await scene(t, { limits: { outboxBytesMax: 400_000 } });
  let files = 0;
  const look = (when: string): void => {
    for (const name of readdirSync(one.folder)) {
      const bytes = readFileSync(join(one.folder, name));
      files += 1;
      for (const form of disguises) assert.equal(bytes.includes(form), false, `${name} ${when}`);
    }
  };
  let made = 0;
  const record = (): TelemetryRecord => {
    made += 1;
    const data = { patient: marker, pulse: 60 + ((made * 7_919) % 400) / 10, note: `${marker} ${made}` };
    return { timeMs: startMs + made * everyMs, release: null, data };
  };
  const wordsOfRegion = (): string => JSON.stringify(one.region.stored.at(-1)?.records[0]?.data);
  for (let day = 0; day < 7; day += 1) {
    // Two days on the line, one without; the last two without, so that there is something to steal.
    one.region.online = day % 3 !== 2 && day < 5;
    if (one.region.online) one.sender.connected();
    for (let at = 0; at < dayMs / everyMs; at += appendedAtOnce)
      unwrap(await one.outbox.append('app', Array.from({ length: appendedAtOnce }, record)));
    if (one.region.online) {
      await until('the day has arrived', () => one.outbox.counters().pendingBatches === 0);
      assert.ok(wordsOfRegion().includes(marker), 'the region reads it');
    }
    look(`at the end of day ${day}`);
    if (day % 2 === 1) {
      await one.crash();
      look(`after a crash on day ${day}`);
      await one.again();
    }
  }
  const { droppedRecords } = one.outbox.counters();
  assert.equal(made, (7 * dayMs) / everyMs);
  assert.ok(droppedRecords > 0, 'the cap was reached');
  await one.crash();
  look('when it was stolen');
  assert.ok(files > 20);
  await one.again();
  await nothingOpens(one.folder, marker);
});
