// Why: reads the file in which an operator says what goes out to whom, and says where it is wrong.
// Trusts: nothing in the text. Must never: ignore a section silently; what is not applied is refused by name.

import { z } from 'zod';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type RolloutFile, type RolloutSpec, rolloutFileSchema } from '../../shared/wire/rollout-file.ts';
import { orderFileMax } from '../../shared/wire/rollout-orders.ts';
import { readYamlFile } from '../policy/yaml-file.ts';
import { evidenceGates } from './evidence-gates.ts';
import { wavesOf } from './waves.ts';

type Path = readonly PropertyKey[];

/** Sections of the contract that this version does not apply: where they stand and why they are refused. */
const unsupported: readonly { path: Path; given: (spec: RolloutSpec) => boolean; why: string }[] = [
  {
    path: ['windows'],
    given: (spec) => spec.windows !== undefined && spec.remove !== undefined,
    why: 'a window for taking a model away',
  },
  {
    path: ['gates', 'agreement'],
    given: (spec) => spec.gates.agreement !== undefined && spec.shadow === undefined,
    why: 'agreement without shadow, which measures it,',
  },
];

/** Gates that ask what a release did, which nothing did where a model is taken away. */
function removalMeasures({ gates }: RolloutSpec): string | null {
  const asked = [...evidenceGates, 'agreement' as const].find((gate) => gates[gate] !== undefined);
  return asked === undefined ? null : `gates.${asked}`;
}

/** What does not go with several releases, or with these. */
function severalMeasures(spec: RolloutSpec): { path: (string | number)[]; why: string } | null {
  const named = (spec.releases ?? []).map((releaseId) => parseReleaseId(releaseId));
  const unnamed = named.indexOf(null);
  if (unnamed >= 0) return { path: ['releases', unnamed], why: 'expected NS/NAME@VERSION' };
  const names = named.map((one) => one?.name ?? '');
  const twice = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (twice >= 0) return { path: ['releases', twice], why: `${names[twice]} is served once on a device` };
  if (names.length > 32) return { path: ['releases'], why: 'at most 32 switch together' };
  if (spec.as !== undefined && names.length > 1)
    return { path: ['as'], why: 'several releases are served by their own names' };
  return null;
}

/** What is wrong with the order of regions. */
function regionMeasures(spec: RolloutSpec): { path: (string | number)[]; why: string } | null {
  const { regions, selector } = spec;
  if (regions === undefined)
    return spec.onUnreachable === undefined
      ? null
      : { path: ['onUnreachable'], why: 'this file names no regions' };
  const seen = new Set<string>();
  for (const [stage, { names }] of regions.entries())
    for (const region of names) {
      const why = seen.has(region)
        ? `${region} is named twice`
        : selector.regions !== undefined && !selector.regions.includes(region)
          ? `selector.regions leaves out every device of ${region}`
          : null;
      if (why !== null) return { path: ['regions', stage], why };
      seen.add(region);
    }
  return null;
}

/**
 * What one region of several gets: the same file, as JSON, without the order of regions. Refusals: those of
 * `parseRolloutFile`.
 */
export function regionalFile(text: string): Result<{ text: string; file: RolloutFile }> {
  const schema = z.looseObject({ spec: z.looseObject({}) });
  const read = readYamlFile(text, schema, 'rollout-file-invalid');
  if (!read.ok) return read;
  const { regions: _regions, onUnreachable: _unreachable, ...spec } = read.value.data.spec;
  const regional = JSON.stringify({ ...read.value.data, spec });
  if (regional.length > orderFileMax)
    return refuse('rollout-file-invalid', `longer than ${orderFileMax} characters as JSON`);
  const parsed = parseRolloutFile(regional);
  return parsed.ok ? ok({ text: regional, file: parsed.value }) : parsed;
}

/** The file as it is applied. Refusals: `rollout-file-invalid`, `rollout-unsupported`, each with its place. */
export function parseRolloutFile(text: string): Result<RolloutFile> {
  const read = readYamlFile(text, rolloutFileSchema, 'rollout-file-invalid');
  if (!read.ok) return read;
  const { data, at } = read.value;
  const { spec } = data;
  for (const { path, given, why } of unsupported) {
    if (!given(spec)) continue;
    const full = ['spec', ...path];
    return at(
      'rollout-unsupported',
      full,
      `${full.map(String).join('.')}: ${why} is not supported by this version`,
    );
  }
  const across = regionMeasures(spec);
  if (across !== null)
    return at(
      'rollout-file-invalid',
      ['spec', ...across.path],
      `spec.${across.path.join('.')}: ${across.why}`,
    );
  const missing = spec.approvals?.waves?.findIndex((wave) => wave >= wavesOf(spec).length) ?? -1;
  if (missing >= 0)
    return at(
      'rollout-file-invalid',
      ['spec', 'approvals', 'waves', missing],
      `spec.approvals.waves: there is no wave ${spec.approvals?.waves?.[missing]}; the first is 0`,
    );
  if (spec.remove !== undefined) {
    const measured = spec.shadow !== undefined ? 'shadow' : removalMeasures(spec);
    return measured === null
      ? ok(data)
      : at(
          'rollout-file-invalid',
          ['spec', ...measured.split('.')],
          `spec.${measured}: nothing runs that could be measured`,
        );
  }
  if (spec.releases !== undefined) {
    const wrong = severalMeasures(spec);
    return wrong === null
      ? ok(data)
      : at(
          'rollout-file-invalid',
          ['spec', ...wrong.path],
          `spec.${wrong.path.map(String).join('.')}: ${wrong.why}`,
        );
  }
  if (spec.release === undefined || parseReleaseId(spec.release) === null)
    return at('rollout-file-invalid', ['spec', 'release'], 'spec.release: expected NS/NAME@VERSION');
  return ok(data);
}
