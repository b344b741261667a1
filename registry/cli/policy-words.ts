// Why: what a policy says, in the words that its signers and readers see.
// Trusts: the policy, which its schema has passed. Must never: leave out a rule.

import type { PolicyFinding, PolicyVersion, RegionPolicy } from '../../shared/wire/region-policy.ts';
import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import { maskingRuleName } from '../policy/region-decisions.ts';
import { asTyped, table, when } from './output.ts';

const list = (names: readonly string[]): string => (names.length === 0 ? '-' : names.join(', '));

export function policyText({ metadata, spec }: RegionPolicy): string {
  const { flows, cells, masking, retention, purposes, releases } = spec;
  return [
    `policy ${metadata.name}, version ${metadata.version}, of region ${metadata.region}`,
    '',
    'flows, the first that matches decides; else raw telemetry stays and the rest goes:',
    table(
      ['RULE', 'CLASSES', 'TO', 'SAYS', 'BECAUSE'],
      flows.map((one) => [
        ...[one.id, one.classes.join(', '), one.destinations.join(', ')],
        ...[one.allow ? 'allow' : 'deny', asTyped(one.because)],
      ]),
    ),
    '',
    table(
      ['CLASS', 'KEPT', 'PURPOSE (LAWFUL BASIS)'],
      telemetryClasses.map((kind) => [
        ...[kind, retention[kind] ?? 'until erased'],
        list(
          purposes
            .filter(({ classes }) => classes.includes(kind))
            .map(({ purpose, lawfulBasis }) => `${purpose} (${lawfulBasis})`),
        ),
      ]),
    ),
    '',
    `cells: at least ${cells.devicesMin} devices`,
    `masking: ${list(masking.map(maskingRuleName))}`,
    `releases: publishers ${list(releases.publishers)}; licences ${list(releases.licences)}; cards say ${list(releases.requireCard)}`,
  ].join('\n');
}

export const findingText = ({ level, where, message }: PolicyFinding): string =>
  `${level === 'problem' ? 'PROBLEM' : 'WARNING'} ${where}: ${message}`;

export const versionTable = (versions: readonly PolicyVersion[]): string =>
  table(
    ['VERSION', 'NAME', 'SHA-256', 'SIGNED BY', 'ROOT', 'PUT BY', 'TIME'],
    versions.map(({ version, name, sha256, signedBy, rootVersion, putBy, putAtMs }) => [
      ...[String(version), name, sha256, signedBy.map((keyId) => keyId.slice(0, 16)).join(' ')],
      ...[String(rootVersion), putBy, when(putAtMs)],
    ]),
  );
