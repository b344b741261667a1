// Writes the tables of states into ARCHITECTURE.md from the code. Run after a change of state was added: npm run build,
// then node scripts/state-table.mjs. A test compares the committed file with what this would write.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withStateTable } from '../dist/test/rollout/state-table.js';

const path = join(dirname(fileURLToPath(import.meta.url)), '..', 'ARCHITECTURE.md');
writeFileSync(path, withStateTable(readFileSync(path, 'utf8')));
console.log('ARCHITECTURE.md: the tables of states');
