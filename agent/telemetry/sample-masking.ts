// Why: the region's masking rules on a sample, whose fields are tensors: by their names, or places on their last axis.
// Pure. Trusts: the assignment that the rules came in. Must never: let a confidence out that comes of a masked output.

import type { Masking, MaskingRule } from '../../shared/wire/masking.ts';
import type { CaptureRecord, SampleTensor } from '../../shared/wire/samples.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import type { CapturedSample } from '../inference/sampler.ts';
import { changed, masked, ruleApplies } from './masking.ts';

type Role = 'inputs' | 'outputs';

/** All of a tensor, or one place on its last axis. */
type Reach = 'all' | number;

/** The record of a sample as it may leave the device. */
export function sampleRecord(sample: CapturedSample, masking: Masking | null): TelemetryRecord {
  const { timeMs, release, model, reasons, confidence, comparison } = sample;
  const rules = masking?.rules.filter((rule) => ruleApplies(rule, 'sample', release)) ?? [];
  const tensors = (role: Role): SampleTensor[] =>
    sample[role].flatMap((tensor) => maskedTensor(tensor, role, rules, masking?.key ?? ''));
  const shown = confidence !== null && !rules.some(reaches('outputs', confidence.output));
  const data: CaptureRecord = {
    kind: 'capture',
    model,
    requestId: maskedId(sample, masking),
    reasons,
    confidence: shown ? confidence.value : null,
    ...(comparison === null ? {} : comparison),
    inputs: tensors('inputs'),
    outputs: tensors('outputs'),
  };
  return { timeMs, release, data };
}

const reaches = (role: Role, name: string) => (rule: MaskingRule) => reachOf(rule.field, role, name) !== null;

/** What a rule is about in the tensor; null: nothing. `inputs.NAME`, or `NAME` alone, and perhaps a place behind it. */
function reachOf(field: readonly string[], role: Role, tensor: string): Reach | null {
  const paths = [field];
  if (field[0] === role || field[0] === '*') paths.push(field.slice(1));
  for (const path of paths) {
    if (path.length === 0) return 'all';
    const [last = ''] = path.slice(-1);
    // A name with dots in it is several parts of a path.
    if (path.join('.') === tensor || (path.length === 1 && last === '*')) return 'all';
    const [front, behind] = [path.slice(0, -1), path.slice(0, -2)];
    const isNamed = (parts: readonly string[]): boolean =>
      parts.join('.') === tensor || (parts.length === 1 && parts[0] === '*');
    // In the record the elements stand under `data`.
    if (!isNamed(front) && !(front.at(-1) === 'data' && isNamed(behind))) continue;
    if (last === '*' || last === 'data') return 'all';
    if (/^\d{1,9}$/.test(last)) return Number(last);
  }
  return null;
}

/** None where all of it is dropped; an element that is dropped is null, so that the others keep their places. */
function maskedTensor(
  tensor: SampleTensor,
  role: Role,
  rules: readonly MaskingRule[],
  key: string,
): SampleTensor[] {
  let { data } = tensor;
  const width = tensor.shape.at(-1) ?? 1;
  for (const rule of rules) {
    const reach = reachOf(rule.field, role, tensor.name);
    if (reach === null) continue;
    if (reach === 'all' && rule.do === 'drop') return [];
    data = data.map((value, at) =>
      reach === 'all' || at % width === reach ? element(changed(value, rule, key)) : value,
    );
  }
  return [{ ...tensor, data }];
}

function element(value: unknown): SampleTensor['data'][number] {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
}

/** Clients say `id`, records say `requestId`: a rule may name either. */
function maskedId({ timeMs, release, requestId }: CapturedSample, masking: Masking | null): string | null {
  const given = { id: requestId, requestId };
  const { data } = masked({ timeMs, release, data: given }, 'sample', masking);
  const left = [data['id'], data['requestId']];
  const found = left.find((value) => value !== requestId);
  const value = left.every((one) => one === requestId) ? requestId : found;
  return typeof value === 'string' ? value : null;
}
