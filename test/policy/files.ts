// Why: policies as people write them, for the tests of this folder.
// Trusts: the reader of such files. Must never: stand in for a part that is under test.

import { readYamlFile } from '../../registry/policy/yaml-file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type RegionPolicy, regionPolicySchema } from '../../shared/wire/region-policy.ts';

/** `spec` in YAML, its lines without indentation. */
export function policyText(spec: string, about: { region?: string; version?: number } = {}): string {
  const { region = 'test', version = 1 } = about;
  return [
    'apiVersion: lepton/v1',
    'kind: RegionPolicy',
    `metadata: {region: ${region}, name: law, version: ${version}}`,
    ...(spec === '' ? [] : ['spec:', ...spec.split('\n').map((line) => `  ${line}`)]),
    '',
  ].join('\n');
}

export function policyOf(spec: string, about: Parameters<typeof policyText>[1] = {}): RegionPolicy {
  return unwrap(readYamlFile(policyText(spec, about), regionPolicySchema, 'policy-file-invalid')).data;
}
