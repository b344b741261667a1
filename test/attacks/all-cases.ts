// Why: every row of the attack suite in one list, for the tests, the table in SECURITY.md and the mutation run.
// Trusts: nothing. Must never: hold two rows of one id.

import type { AttackCase } from './attack-case.ts';
import { cryptoAttacks } from './repository-crypto.ts';
import { delegationAttacks } from './repository-delegations.ts';
import { formatAttacks } from './repository-format.ts';
import { freshnessAttacks } from './repository-freshness.ts';
import { rootAttacks } from './repository-roots.ts';
import { storeAttacks } from './repository-store.ts';
import { transportAttacks } from './repository-transport.ts';

export const repositoryCases: readonly AttackCase[] = [
  ...rootAttacks,
  ...freshnessAttacks,
  ...delegationAttacks,
  ...formatAttacks,
  ...cryptoAttacks,
  ...transportAttacks,
  ...storeAttacks,
];

export const allCases: readonly AttackCase[] = [...repositoryCases];
