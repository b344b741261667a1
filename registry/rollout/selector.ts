// Why: which devices a rollout is for, by their labels, as Kubernetes label selectors mean it.
// Trusts: both sides were validated. Must never: match a device by anything but its labels.

import type { Labels } from '../../shared/wire/messages.ts';
import type { Selector } from '../../shared/wire/rollout-file.ts';

/** Whether labels fulfil every line of the selector; one without lines matches everything. */
export function matches(selector: Selector, labels: Labels): boolean {
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
