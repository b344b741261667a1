// Why: which devices a rollout is for: by their labels as Kubernetes label selectors mean it, by id, by group, by what
// they can do. Trusts: both sides were validated. Must never: match a device that one line does not.

import type { Labels, Report } from '../../shared/wire/messages.ts';
import { isOlder } from '../../shared/wire/requires.ts';
import type { Selector } from '../../shared/wire/rollout-file.ts';

/** A device as a selector sees it. */
export interface Selectable {
  id: string;
  /** Whose registry knows it. */
  region: string;
  labels: Labels;
  /** As it last reported. */
  agent: Report['agent'];
}

/** Named selectors; one that is gone matches nothing. */
export type Groups = ReadonlyMap<string, Selector>;

/** Whether the device fulfils every line of the selector; one without lines matches everything. */
export function matches(selector: Selector, device: Selectable, groups: Groups): boolean {
  if (selector.regions !== undefined && !selector.regions.includes(device.region)) return false;
  if (selector.devices !== undefined && !selector.devices.includes(device.id)) return false;
  if (selector.groups !== undefined && !selector.groups.some((name) => isIn(groups, name, device)))
    return false;
  return can(selector, device) && hasLabels(selector, device.labels);
}

/** A group names no groups: that is refused where it is made. */
function isIn(groups: Groups, name: string, device: Selectable): boolean {
  const group = groups.get(name);
  return group !== undefined && group.groups === undefined && matches(group, device, groups);
}

function can({ capabilities }: Selector, { agent }: Selectable): boolean {
  if (capabilities === undefined) return true;
  const { arch, agent: version, runtime, memoryMiB, providers } = capabilities;
  if (arch !== undefined && !arch.includes(agent.arch)) return false;
  if (version !== undefined && isOlder(agent.version, version)) return false;
  // One that never told is not taken on a guess.
  if (memoryMiB !== undefined && (agent.memoryMiB ?? 0) < memoryMiB) return false;
  if (providers !== undefined && !providers.some((name) => agent.providers?.includes(name) === true))
    return false;
  return runtime === undefined || !isOlder(runtimeOf(agent.runtime), runtime);
}

/** Of what an agent says it runs models with, such as `onnxruntime 1.30.0, node 20.20.2`. */
function runtimeOf(told: string): string {
  return /^onnxruntime (\S+?),?(?: |$)/.exec(told)?.[1] ?? told;
}

function hasLabels(selector: Selector, labels: Labels): boolean {
  const has = (key: string): boolean => Object.hasOwn(labels, key);
  const allLabels = Object.entries(selector.matchLabels).every(
    ([key, value]) => has(key) && labels[key] === value,
  );
  if (!allLabels) return false;
  return selector.matchExpressions.every((line) => holds(line, has(line.key) ? labels[line.key] : undefined));
}

/** Whether one line holds for the label's value, undefined where the device has no such label. */
function holds(line: Selector['matchExpressions'][number], value: string | undefined): boolean {
  switch (line.operator) {
    case 'In':
      return value !== undefined && line.values.includes(value);
    case 'NotIn':
      // As in Kubernetes: a device without the label is not in the list either.
      return value === undefined || !line.values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}
