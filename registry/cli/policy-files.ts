// Why: policies and their bundles as files: read, looked at, and on their way from holder to holder.
// Trusts: nothing in a file. Must never: read a bundle as a policy that nobody has to sign.

import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { readPolicy } from '../../shared/trust/region-policy.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import {
  type PolicyBundle,
  type PolicyFinding,
  policyBundleSchema,
  type RegionPolicy,
  regionPolicySchema,
} from '../../shared/wire/region-policy.ts';
import { checkPolicyMeaning } from '../policy/policy-check.ts';
import { readYamlFile } from '../policy/yaml-file.ts';
import { readBytes, writeDocument } from './key-files.ts';

export interface ReadPolicy {
  policy: RegionPolicy;
  /** Messages begin with line and column where the file is YAML. */
  findings: PolicyFinding[];
}

const textOf = (path: string): string => Buffer.from(readBytes(path)).toString('utf8');

/** A policy that a person wrote. Faults: `input-invalid` (no such file), `policy-file-invalid`. */
export function readPolicyFile(path: string): ReadPolicy {
  const file = unwrap(readYamlFile(textOf(path), regionPolicySchema, 'policy-file-invalid'));
  const findings = checkPolicyMeaning(file.data).map(({ path: place, ...finding }) => {
    const { detail } = file.at('policy-file-invalid', place, finding.message).refusal;
    return { ...finding, message: detail };
  });
  return { policy: file.data, findings };
}

/** Null where the file is no JSON, or of another kind. */
function bundleIn(path: string): PolicyBundle | null {
  let body: unknown;
  try {
    body = JSON.parse(textOf(path));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  const kind = typeof body === 'object' && body !== null && 'kind' in body ? body.kind : null;
  if (kind !== 'lepton-policy-bundle') return null;
  const parsed = policyBundleSchema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new FleetError('policy-file-invalid', `${path}: ${describeIssues(parsed.error)}`);
}

/** A bundle with what it holds; null where the file is none. */
export function readPolicyBundle(path: string): (ReadPolicy & { envelope: Envelope }) | null {
  const bundle = bundleIn(path);
  if (bundle === null) return null;
  const policy = unwrap(readPolicy(bundle.envelope));
  const findings = checkPolicyMeaning(policy).map(({ path: _place, ...finding }) => finding);
  return { policy, findings, envelope: bundle.envelope };
}

export function writePolicyBundle(path: string, envelope: Envelope): void {
  const bundle: PolicyBundle = { schemaVersion: 1, kind: 'lepton-policy-bundle', envelope };
  writeDocument(path, bundle);
}
