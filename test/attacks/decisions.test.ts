// Why: the rows of fleet and uploads that need no broker, and what holds for every row.
// Trusts: the rows. Must never: let two rows share an id, which names them in SECURITY.md.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { auditFindings } from '../../shared/trust/audit-chain.ts';
import { projectFolder } from '../support/data.ts';
import { allCases, ceremonyCases, fleetCases, publisherCases, regionCases } from './all-cases.ts';
import { withAttackTable } from './attack-table.ts';
import { directBench } from './direct-bench.ts';
import { runGroup } from './run-group.ts';

const direct = (one: { where: string }): boolean => one.where === 'direct';
runGroup('attacks on the fleet, by the deciding functions', fleetCases.filter(direct), () => directBench);
runGroup('attacks on what regions say, by the deciding functions', regionCases, () => directBench);
runGroup('attacks by uploads, by the deciding functions', publisherCases.filter(direct), () => directBench);
runGroup('attacks on key ceremonies, by the deciding functions', ceremonyCases, () => directBench);

test('rows: ids are unique, codes exist, each attack is one line', () => {
  const ids = allCases.map((one) => one.id);
  assert.deepEqual(
    ids.filter((id, index) => ids.indexOf(id) !== index),
    [],
  );
  for (const one of allCases) {
    const isFinding = one.group === 'audit' && auditFindings.some((kind) => kind === one.code);
    assert.ok(isFinding || isErrorCode(one.code), one.id);
    assert.match(one.id, /^[a-z0-9-]+$/);
    assert.doesNotMatch(one.attack, /[\n|]/, one.id);
  }
});

test('SECURITY.md holds the table that scripts/attack-table.mjs would write', () => {
  const text = readFileSync(join(projectFolder, 'SECURITY.md'), 'utf8');
  assert.equal(text, withAttackTable(text, allCases), 'run: npm run build && node scripts/attack-table.mjs');
});
