// Why: what a run of many seeds reached of everything there is, so that a world that misses a path says so.
// Trusts: the names that a world counts under. Must never: call a thing reached that no seed counted.

import { expected } from './expected.ts';
import { explained, seldom } from './explained.ts';
import type { Coverage } from './seed-run.ts';

export interface CoverageReport {
  seeds: number;
  /** Everything that was counted, by name. */
  counts: Coverage;
  /** Expected, never counted, and nobody said why. */
  missed: string[];
  /** Explained as out of reach, and reached: the explanation is wrong. */
  stale: string[];
  /** Expected, never counted, with the reason. */
  explained: { name: string; why: string }[];
  /** Expected, reached by few seeds of ten thousand, and by none of these. */
  seldom: string[];
}

export function addCoverage(to: Coverage, more: Coverage): void {
  for (const [name, count] of Object.entries(more)) to[name] = (to[name] ?? 0) + count;
}

export function judgeCoverage(
  counts: Coverage,
  seeds: number,
  of: {
    expected: readonly string[];
    explained: ReadonlyMap<string, string>;
    seldom: ReadonlySet<string>;
  } = { expected, explained, seldom },
): CoverageReport {
  const reached = (name: string) => (counts[name] ?? 0) > 0;
  const never = of.expected.filter((name) => !reached(name));
  const sorted = Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    seeds,
    counts: Object.fromEntries(sorted),
    missed: never.filter((name) => !of.explained.has(name) && !of.seldom.has(name)),
    seldom: never.filter((name) => of.seldom.has(name)),
    stale: [...of.explained.keys()].filter(reached),
    explained: never.flatMap((name) => {
      const why = of.explained.get(name);
      return why === undefined ? [] : [{ name, why }];
    }),
  };
}

/** Lines for a person. */
export function coverageLines(report: CoverageReport): string[] {
  const lines: string[] = [];
  for (const [area, names] of byArea(expected)) {
    const reached = names.filter((name) => (report.counts[name] ?? 0) > 0);
    lines.push(`${area}: ${reached.length} of ${names.length} reached`);
  }
  const reasons = new Map<string, string[]>();
  for (const { name, why } of report.explained) reasons.set(why, [...(reasons.get(why) ?? []), name]);
  for (const [why, names] of reasons) lines.push(`out of reach (${names.length}): ${why}`);
  const rare = expected.filter((name) => {
    const count = report.counts[name] ?? 0;
    return count > 0 && count * 100 < report.seeds;
  });
  for (const name of rare) lines.push(`rare: ${name}: ${report.counts[name]} in ${report.seeds} seeds`);
  if (report.seldom.length > 0) lines.push(`seldom, and not by these seeds: ${report.seldom.join(', ')}`);
  for (const name of report.missed) lines.push(`never reached: ${name}`);
  for (const name of report.stale) lines.push(`explained as out of reach, but reached: ${name}`);
  const verdict =
    report.missed.length + report.stale.length === 0
      ? 'everything was reached or is explained'
      : `${report.missed.length} never reached, ${report.stale.length} wrongly explained`;
  lines.push(`${report.seeds} seeds: ${verdict}`);
  return lines;
}

function byArea(names: readonly string[]): Map<string, string[]> {
  const areas = new Map<string, string[]>();
  for (const name of names) {
    const area = name.split(' ')[0] ?? name;
    areas.set(area, [...(areas.get(area) ?? []), name]);
  }
  return areas;
}
