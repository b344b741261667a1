// Why: every real model and case by the Open Inference Protocol, beside ONNX Runtime called directly.
// Trusts: case-table.ts. Must never: pass where the cases were not found.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { arch } from 'node:os';
import { test } from 'node:test';
import { dataMissing } from '../support/data.ts';
import { assertTable, printTable, runTable } from './case-table.ts';

/** Whether this processor adds products of bytes without saturating (VNNI, or the same of ARM); unknown counts as yes. */
function multipliesBytes(): boolean {
  if (!existsSync('/proc/cpuinfo')) return true;
  const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  return arch() !== 'x64' || /\b(avx512_vnni|avx_vnni)\b/.test(flags);
}

test('every real case through HTTP, as JSON, binary and packed', { skip: dataMissing }, async () => {
  const rows = await runTable('models', (index) => index % 4 === 0);
  printTable('models', rows);
  assert.ok(rows.length >= 15, `${rows.length}`);
  const failed = rows.filter(({ direct }) => direct.result !== 'passed').map(({ name }) => name);
  // Without dot products of bytes ONNX Runtime lets sums of int8 saturate: models decide otherwise there, however they are asked.
  const excused = multipliesBytes() ? [] : failed.filter((name) => name.startsWith('derived-int8/'));
  if (excused.length > 0) console.log(`this processor decides otherwise by itself: ${excused.join()}`);
  assert.deepEqual(
    failed.filter((name) => !excused.includes(name)),
    [],
  );
  assertTable(rows);
});

test('every case of scikit-learn’s own suite', { skip: dataMissing }, async () => {
  const rows = await runTable('suite', (index) => index % 10 === 0);
  printTable('suite', rows);
  assert.ok(rows.length >= 25, `${rows.length}`);
  assertTable(rows);
});
