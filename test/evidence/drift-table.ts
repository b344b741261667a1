// Why: prints the table of alarms on real recordings (scripts/drift-table.mjs).
// Trusts: recordings.ts. Must never: run where the recordings are absent without saying so.

import { verdictTerms } from '../../shared/stats/drift.ts';
import { watchTerms } from '../../shared/stats/drift-watch.ts';
import { dataMissing } from '../support/data.ts';
import { driftTable, tableText } from './recordings.ts';

if (dataMissing !== false) {
  process.stderr.write(`${dataMissing}\n`);
  process.exitCode = 1;
} else {
  const { windowRowsMin, windowsInARow } = watchTerms;
  const { psi, js, ks } = verdictTerms;
  process.stdout.write(
    `${tableText(driftTable())}\n\nwindows of ${windowRowsMin} rows, ${windowsInARow} in a row; ` +
      `psi > ${psi}, js > ${js} or ks > ${ks}, and above mean + 3 sigma of the reference's own parts\n`,
  );
}
