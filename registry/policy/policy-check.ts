// Why: what is wrong, or dangerous, in a policy that its schema lets pass: found before anybody signs it.
// Trusts: the schema. Must never: stay silent where raw telemetry is let out.

import type { FlowRule, PolicyFinding, RegionPolicy } from '../../shared/wire/region-policy.ts';
import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import { isCommonLicence } from './licences.ts';
import { isRaw, matches } from './region-decisions.ts';

type Finding = PolicyFinding & { path: readonly (string | number)[] };

/** Whether earlier rules decide everything that this one names. */
function isShadowed(rule: FlowRule, before: readonly FlowRule[], region: string): boolean {
  return rule.classes.every((flow) =>
    rule.destinations.every(
      // `*` as a destination asks for a rule that names all; the region itself is never asked about.
      (destination) => destination === region || before.some((one) => matches(one, flow, destination)),
    ),
  );
}

function flowFindings({ metadata, spec }: RegionPolicy): Finding[] {
  const found: Finding[] = [];
  const seen = new Set<string>();
  for (const [index, rule] of spec.flows.entries()) {
    const path = ['spec', 'flows', index];
    const where = `flows/${rule.id}`;
    if (seen.has(rule.id))
      found.push({
        ...{ level: 'problem', code: 'duplicate-id', where, path },
        message: `two rules are called ${rule.id}: a refusal could not say which one decided`,
      });
    seen.add(rule.id);
    if (isShadowed(rule, spec.flows.slice(0, index), metadata.region))
      found.push({
        ...{ level: 'problem', code: 'never-matches', where, path },
        message: `rule ${rule.id} never decides: rules before it name all of its classes and destinations, or it names only this region`,
      });
    const raw = rule.allow ? rule.classes.filter(isRaw) : [];
    if (raw.length > 0)
      found.push({
        ...{ level: 'warning', code: 'raw-leaves', where, path },
        message: `RAW TELEMETRY LEAVES: ${raw.join(', ')} of the people and machines of ${metadata.region} may go to ${
          rule.destinations.includes('*') ? 'EVERY region' : rule.destinations.join(', ')
        } (${rule.because})`,
      });
  }
  return found;
}

function purposeFindings({ spec }: RegionPolicy): Finding[] {
  const told = new Set(spec.purposes.flatMap(({ classes }) => classes));
  const level = spec.requirePurpose ? ('problem' as const) : ('warning' as const);
  return telemetryClasses.flatMap((one): Finding[] => {
    if (told.has(one)) return [];
    const kept = spec.retention[one] ?? 'until it is erased';
    return [
      {
        ...{ level, code: 'no-purpose', where: `retention/${one}`, path: ['spec', 'purposes'] },
        message: `records of class ${one} are kept (${kept}) and no purpose says what for`,
      },
    ];
  });
}

function releaseFindings({ spec }: RegionPolicy): Finding[] {
  const { publishers, licences } = spec.releases;
  const none = (names: readonly string[], name: 'publishers' | 'licences'): Finding[] =>
    names.length > 0
      ? []
      : [
          {
            ...{ level: 'problem', code: 'nothing-allowed', where: `releases/${name}` },
            path: ['spec', 'releases', name],
            message: `no ${name} are listed: nothing could be installed; leave it out, or list '*'`,
          },
        ];
  return [
    ...none(publishers, 'publishers'),
    ...none(licences, 'licences'),
    ...licences.flatMap((one, index): Finding[] =>
      one === '*' || isCommonLicence(one)
        ? []
        : [
            {
              ...{ level: 'warning', code: 'unknown-licence', where: 'releases/licences' },
              path: ['spec', 'releases', 'licences', index],
              message: `${one} is none of the usual SPDX identifiers: is it spelled as spdx.org/licenses has it?`,
            },
          ],
    ),
  ];
}

function maskingFindings({ spec }: RegionPolicy): Finding[] {
  const spelled = spec.masking.map((rule) => JSON.stringify(rule));
  return spelled.flatMap((one, index): Finding[] =>
    spelled.indexOf(one) === index
      ? []
      : [
          {
            ...{ level: 'problem', code: 'duplicate-rule', where: `masking/${index}` },
            path: ['spec', 'masking', index],
            message: 'the same masking rule stands there twice',
          },
        ],
  );
}

/** In the order of the file; `problem` makes `lepton policy check` and `put` fail. */
export function checkPolicyMeaning(policy: RegionPolicy): Finding[] {
  return [
    ...flowFindings(policy),
    ...maskingFindings(policy),
    ...purposeFindings(policy),
    ...releaseFindings(policy),
  ];
}
