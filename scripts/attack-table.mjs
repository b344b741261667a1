// Writes the table of attacks into SECURITY.md from the rows in test/attacks. Run after a row changed: npm run build,
// then node scripts/attack-table.mjs. A test compares the committed file with what this would write.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { allCases } from '../dist/test/attacks/all-cases.js';
import { withAttackTable } from '../dist/test/attacks/attack-table.js';

const path = join(dirname(fileURLToPath(import.meta.url)), '..', 'SECURITY.md');
writeFileSync(path, withAttackTable(readFileSync(path, 'utf8'), allCases));
console.log(`SECURITY.md: ${allCases.length} attacks`);
