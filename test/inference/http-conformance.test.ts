// Why: ONNX's backend tests cover types and operators that our real models do not have: through HTTP they must be
// what ONNX Runtime makes of them. Trusts: case-table.ts. Must never: pass where the cases were not found.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dataMissing } from '../support/data.ts';
import { assertTable, printTable, runTable } from './case-table.ts';

test('ONNX’s backend tests through HTTP', { skip: dataMissing }, async () => {
  const rows = await runTable('conformance', (index) => index % 6 === 0);
  printTable('conformance', rows);
  assert.ok(rows.length >= 36, `${rows.length}`);
  assertTable(rows);
});
