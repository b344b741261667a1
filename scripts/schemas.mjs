// Writes schemas/*.json from the zod schemas in shared/wire. Run after a format changed: npm run build, then
// node scripts/schemas.mjs. A test compares the committed files with what this would write.
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jsonSchemaFiles } from '../dist/shared/wire/json-schemas.js';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'schemas');
mkdirSync(folder, { recursive: true });
const files = jsonSchemaFiles();
for (const [name, text] of files) writeFileSync(join(folder, name), text);
for (const name of readdirSync(folder)) if (!files.has(name)) rmSync(join(folder, name));
console.log(`schemas: ${files.size} files written`);
