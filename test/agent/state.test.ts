// Why: numbers that a device signs once are never used twice, and none is passed over without a reason: a device
// that skips ahead at each start hides a copy of itself. Trusts: real files and SQLite. Must never: share a folder.

import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openState } from '../../agent/state.ts';
import { folderPlace } from '../../shared/host/place.ts';
import { silent } from './hand-clock.ts';

const counterOf = 'SELECT counter FROM report_counter WHERE id = 1';

/** One start that signs so many reports; the counters that it used. */
async function startOf(folder: string, reports: number): Promise<number[]> {
  const { keeper, close } = await openState(folderPlace(folder), silent);
  await keeper.booted();
  const used: number[] = [];
  for (let at = 0; at < reports; at += 1) {
    const counter = await keeper.store.tx((db) => {
      db.run('UPDATE report_counter SET counter = counter + 1 WHERE id = 1');
      return db.get<{ counter: number }>(counterOf)?.counter ?? 0;
    });
    await keeper.reserve(counter);
    used.push(counter);
  }
  await close();
  return used;
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-state-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('start after start, the counters of reports follow each other', async (t) => {
  const folder = folderOf(t);
  assert.deepEqual(await startOf(folder, 3), [1, 2, 3]);
  assert.deepEqual(await startOf(folder, 2), [4, 5]);
  assert.deepEqual(await startOf(folder, 1), [6]);
});

test('a store that was lost, or is of an older start, is not asked which counters were used', async (t) => {
  const folder = folderOf(t);
  const store = join(folder, 'state.sqlite');
  await startOf(folder, 3);
  copyFileSync(store, join(folder, 'older'));
  const inOrder = [...(await startOf(folder, 40)), ...(await startOf(folder, 2))];
  copyFileSync(join(folder, 'older'), store);
  const afterOlder = await startOf(folder, 2);
  rmSync(store);
  const afterLoss = await startOf(folder, 1);
  const used = [...inOrder, ...afterOlder, ...afterLoss];
  assert.equal(used.length, 45);
  assert.deepEqual(
    used,
    [...new Set(used)].sort((a, b) => a - b),
    'each once, and always higher',
  );
});

test('what was being written when the state was closed is written by then, and nothing after it', async (t) => {
  const folder = folderOf(t);
  const { keeper, close } = await openState(folderPlace(folder), silent);
  const saving = [1, 2, 3].map((epoch) => keeper.outboxBegun(`device-${epoch}`, epoch));
  const ended = Promise.allSettled(saving);
  await close();
  // As a test does, or a device that was taken out of use; a write that goes on would make the folder again.
  rmSync(folder, { recursive: true });
  await ended;
  assert.equal(existsSync(folder), false);
});
