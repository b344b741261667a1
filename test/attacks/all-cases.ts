// Why: every row of the attack suite in one list, for the tests, the table in SECURITY.md and the mutation run.
// Trusts: nothing. Must never: hold two rows of one id.

import type { AttackCase } from './attack-case.ts';
import { ceremonyFollowAttacks } from './ceremony-follow.ts';
import { ceremonyKeyAttacks } from './ceremony-keys.ts';
import { assignmentAttacks } from './fleet-assignments.ts';
import { authorityAttacks } from './fleet-authority.ts';
import { copyAttacks } from './fleet-copies.ts';
import { moveAttacks } from './fleet-moves.ts';
import { regionAttacks } from './fleet-region.ts';
import { renewalAttacks } from './fleet-renewal.ts';
import { reportAttacks } from './fleet-reports.ts';
import { telemetryAttacks } from './fleet-telemetry.ts';
import { wireAttacks } from './fleet-wire.ts';
import { publisherSteps } from './publisher-steps.ts';
import { publisherTools } from './publisher-tools.ts';
import { auditAttacks } from './region-audit.ts';
import { regionWordAttacks } from './region-words.ts';
import { cryptoAttacks } from './repository-crypto.ts';
import { delegationAttacks } from './repository-delegations.ts';
import { formatAttacks } from './repository-format.ts';
import { freshnessAttacks } from './repository-freshness.ts';
import { refreshAttacks } from './repository-refresh.ts';
import { rootAttacks } from './repository-roots.ts';
import { storeAttacks } from './repository-store.ts';
import { storedAttacks } from './repository-stored.ts';
import { transportAttacks } from './repository-transport.ts';
import { walkAttacks } from './repository-walk.ts';

export const repositoryCases: readonly AttackCase[] = [
  ...rootAttacks,
  ...freshnessAttacks,
  ...delegationAttacks,
  ...formatAttacks,
  ...cryptoAttacks,
  ...transportAttacks,
  ...storeAttacks,
  ...storedAttacks,
  ...refreshAttacks,
  ...walkAttacks,
];

/** Over the wire, and on the deciding functions alone. */
export const fleetCases: readonly AttackCase[] = [
  ...wireAttacks,
  ...assignmentAttacks,
  ...authorityAttacks,
  ...regionAttacks,
  ...moveAttacks,
  ...copyAttacks,
  ...renewalAttacks,
  ...reportAttacks,
  ...telemetryAttacks,
];

/** What regions take from each other, and what an auditor reads. */
export const regionCases: readonly AttackCase[] = [...regionWordAttacks, ...auditAttacks];

/** On the registry's decisions alone; the rows of uploads over HTTP are to stand beside them. */
export const publisherCases: readonly AttackCase[] = [...publisherSteps, ...publisherTools];

/** What holders are asked to sign and the registry to install. */
export const ceremonyCases: readonly AttackCase[] = [...ceremonyKeyAttacks, ...ceremonyFollowAttacks];

export const allCases: readonly AttackCase[] = [
  ...repositoryCases,
  ...fleetCases,
  ...regionCases,
  ...publisherCases,
  ...ceremonyCases,
];
