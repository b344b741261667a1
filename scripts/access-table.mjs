// Writes docs/access.md, which role may use which route. Run after routes or rights changed: npm run build, then
// node scripts/access-table.mjs. A test compares the committed file with what this would write.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { accessTable } from '../dist/registry/api/access-table.js';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'docs');
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'access.md'), accessTable());
console.log('docs/access.md written');
