// Why: what production demands of a catalogue beyond TUF, in the one shape that the client core takes.
// Trusts: nothing. Must never: be loosened for a repository that does not fit; that is what policies are for.

import { houseFormat, parseTargets, type TargetsMetadata } from './metadata.ts';
import { checkDelegations } from './namespaces.ts';
import type { TufPolicy } from './policy.ts';
import { parseRootFile } from './repository.ts';
import { verifyHouseKey } from './signatures.ts';

export const housePolicy: TufPolicy<TargetsMetadata> = {
  ...houseFormat,
  verify: verifyHouseKey,
  parseRoot: parseRootFile,
  parseTargets,
  checkTopTargets: checkDelegations,
};
