// Writes the tables of firmware-sim/README.md from kept-seeds.json and planted-results.json. Run after either changed:
// npm run build, then node scripts/sim-readme.mjs. A test compares the committed file with what this would write.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseKeptSeeds } from '../dist/firmware-sim/explore/kept-seeds.js';
import {
  betweenMarkers,
  foundBugsTable,
  plantedBugsTable,
} from '../dist/firmware-sim/explore/readme-tables.js';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'firmware-sim');
const read = (file) => readFileSync(join(folder, file), 'utf8');
const kept = parseKeptSeeds(read('kept-seeds.json'));
const planted = JSON.parse(read('planted-results.json'));
const withFound = betweenMarkers(read('README.md'), 'found-bugs', foundBugsTable(kept));
writeFileSync(
  join(folder, 'README.md'),
  betweenMarkers(withFound, 'planted-bugs', plantedBugsTable(planted)),
);
console.log(`firmware-sim/README.md: ${kept.length} bugs found, ${planted.length} planted`);
