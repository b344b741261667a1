// Why: the fleet's rows that need a broker. Trusts: the rows. Must never: share a device between two rows.

import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { fleetCases } from './all-cases.ts';
import { runGroup } from './run-group.ts';
import { openWireBench, type WireBench } from './wire-bench.ts';

describe('attacks on the fleet', () => {
  let bench: WireBench | null = null;
  before(async () => {
    bench = await openWireBench();
  });
  after(() => bench?.close());
  const overWire = fleetCases.filter((one) => one.where === 'wire');
  runGroup('over the wire', overWire, () => {
    assert.ok(bench);
    return bench;
  });
});
