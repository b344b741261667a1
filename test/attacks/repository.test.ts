// Why: each attack on the catalogue's repository meets its refusal, in memory and over the real wire.
// Trusts: the rows. Must never: run a row over one of the two alone.

import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { repositoryCases } from './all-cases.ts';
import { directBench } from './direct-bench.ts';
import { runGroup } from './run-group.ts';
import { openWireBench, type WireBench } from './wire-bench.ts';

runGroup('attacks on the repository, in memory', repositoryCases, () => directBench);

describe('attacks on the repository', () => {
  let bench: WireBench | null = null;
  before(async () => {
    bench = await openWireBench();
  });
  after(() => bench?.close());
  const overWire = repositoryCases.filter((one) => one.where === 'wire');
  runGroup('over the wire', overWire, () => {
    assert.ok(bench);
    return bench;
  });
});
