// Why: on real recordings the alarms that the registry would raise are mostly right, and a quiet machine beside its own
// reference raises none.
// Trusts: recordings.ts for data and profiles. Must never: hide how many anomalies are not found: scripts/drift-table.mjs shows it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dataMissing } from '../support/data.ts';
import { driftTable, tableText } from './recordings.ts';

test('alarms on real recordings', { skip: dataMissing }, (t) => {
  const judged = driftTable();
  t.diagnostic(tableText(judged));
  const named = (name: string) => judged.find((one) => one.name === name);
  assert.equal(named('skab valve1_0')?.found, 1, 'the closed valve is noticed');
  assert.ok((named('machine_temperature')?.found ?? 0) >= 1, 'a failing machine is noticed');
  const quiet = named('skab anomaly-free, reference of all of it');
  assert.ok(quiet !== undefined && quiet.windows > 50);
  assert.equal(quiet.alarms, 0);
  const labelled = judged.filter((one) => one.labelled > 0);
  const sum = (pick: (one: (typeof labelled)[number]) => number) =>
    labelled.reduce((all, one) => all + pick(one), 0);
  assert.ok(sum((one) => one.right) * 2 > sum((one) => one.alarms), 'most alarms are right');
});
