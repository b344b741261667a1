// Why: what a region's policy says to a question, as a function of the policy alone: every answer names the rule that gave it.
// Trusts: the schema of the policy. Must never: let raw telemetry out where no rule of the policy says so.

import { parseReleaseId } from '../../shared/kernel/releases.ts';
import {
  type FlowClass,
  type FlowRule,
  type RegionPolicy,
  retentionMsOf,
} from '../../shared/wire/region-policy.ts';
import { type TelemetryClass, telemetryClasses } from '../../shared/wire/telemetry.ts';
import { readCardFields } from './card-fields.ts';
import type { Decision, PolicedRelease } from './flows.ts';
import { isListed } from './licences.ts';

export const rawClasses: ReadonlySet<string> = new Set(telemetryClasses);
export const isRaw = (flow: FlowClass): flow is TelemetryClass => rawClasses.has(flow);

/** Without a policy: devices of a cell. */
export const devicesMinDefault = 5;

export const matches = (rule: FlowRule, flow: FlowClass, destination: string): boolean =>
  rule.classes.includes(flow) && (rule.destinations.includes('*') || rule.destinations.includes(destination));

/** `policy` null: none is in force, and the defaults decide. */
export function decideFlow(
  policy: RegionPolicy | null,
  region: string,
  flow: FlowClass,
  destination: string,
): Decision {
  if (destination === region)
    return { allowed: true, rule: 'default/own-region', reason: `${flow} stays in ${region}` };
  const rule = policy?.spec.flows.find((one) => matches(one, flow, destination));
  if (rule !== undefined) return { allowed: rule.allow, rule: `flows/${rule.id}`, reason: rule.because };
  if (isRaw(flow))
    return {
      allowed: false,
      rule: 'default/raw-stays',
      reason: `raw telemetry stays in ${region} unless its policy lets it go`,
    };
  const k = policy?.spec.cells.devicesMin ?? devicesMinDefault;
  const reason =
    flow === 'cells' ? `cells of at least ${k} devices may leave ${region}` : `${flow} goes between regions`;
  return { allowed: true, rule: `default/${flow}`, reason };
}

export function decideRetention(
  policy: RegionPolicy | null,
  telemetryClass: TelemetryClass,
): { ms: number | null; rule: string } {
  const ms = retentionMsOf(policy?.spec.retention[telemetryClass]);
  return { ms, rule: ms === null ? 'default/until-erased' : `retention/${telemetryClass}` };
}

const allows = (rule: string, reason: string): Decision => ({ allowed: true, rule, reason });
const denies = (rule: string, reason: string): Decision => ({ allowed: false, rule, reason });

/** Whether the release may be taken and installed. A card that cannot be read is as good as none. */
export function decideRelease(policy: RegionPolicy | null, { releaseId, card }: PolicedRelease): Decision {
  if (policy === null) return allows('default/any-release', 'no policy says what may be installed');
  const { publishers, licences, requireCard } = policy.spec.releases;
  const namespace = parseReleaseId(releaseId)?.namespace;
  if (!publishers.includes('*') && (namespace === undefined || !publishers.includes(namespace)))
    return denies('releases/publishers', `${releaseId}: the policy does not list its publisher`);
  const anyLicence = licences.includes('*');
  if (anyLicence && requireCard.length === 0)
    return allows('releases/publishers', `${releaseId} may be installed`);
  const read = readCardFields(card);
  if (!read.ok)
    return denies(
      anyLicence ? 'releases/requireCard' : 'releases/licences',
      `${releaseId}: its model card cannot be read: ${read.refusal.detail}`,
    );
  const fields = read.value;
  if (!anyLicence) {
    if (fields.licences.length === 0)
      return denies('releases/licences', `${releaseId}: its model card names no licence in its front matter`);
    const other = fields.licences.find((one) => !isListed(one, licences));
    if (other !== undefined)
      return denies(
        'releases/licences',
        `${releaseId}: the policy does not list the licence ${other.slice(0, 100)}`,
      );
  }
  const lacking = requireCard.filter((name) => fields.field(name) === undefined);
  if (lacking.length > 0)
    return denies(
      'releases/requireCard',
      `${releaseId}: its model card says nothing under ${lacking.join(', ')}`,
    );
  return allows(anyLicence ? 'releases/requireCard' : 'releases/licences', `${releaseId} may be installed`);
}

/** Name of a masking rule of the policy: what it does to which field. */
export const maskingRuleName = ({ do: what, field }: RegionPolicy['spec']['masking'][number]): string =>
  `masking/${what}:${field.join('.')}`;
