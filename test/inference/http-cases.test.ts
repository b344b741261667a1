// Why: every real model and case by the Open Inference Protocol, beside ONNX Runtime called directly.
// Trusts: case-table.ts. Must never: pass where the cases were not found.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dataMissing } from '../support/data.ts';
import { assertTable, printTable, runTable } from './case-table.ts';

test('every real case through HTTP, as JSON, binary and packed', { skip: dataMissing }, async () => {
  const rows = await runTable('models', (index) => index % 4 === 0);
  printTable('models', rows);
  assert.ok(rows.length >= 15, `${rows.length}`);
  assert.ok(rows.every(({ direct }) => direct.result === 'passed'));
  assertTable(rows);
});

test('every case of scikit-learn’s own suite', { skip: dataMissing }, async () => {
  const rows = await runTable('suite', (index) => index % 10 === 0);
  printTable('suite', rows);
  assert.ok(rows.length >= 25, `${rows.length}`);
  assertTable(rows);
});
