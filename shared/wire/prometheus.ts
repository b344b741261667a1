// Why: the Prometheus text format, version 0.0.4, in one place: names, escaping, cumulative buckets.
// Trusts: its callers for label values whose number is bounded. Must never: write a family twice.

import type { Histogram } from '../stats/histogram.ts';

export const prometheusContentType = 'text/plain; version=0.0.4; charset=utf-8';

export type Labels = Record<string, string>;

export interface MetricsText {
  /** One sample each; a family without samples is left out. */
  gauge(name: string, help: string, samples: readonly (readonly [Labels, number])[]): void;
  counter(name: string, help: string, samples: readonly (readonly [Labels, number])[]): void;
  /** `scale` turns the histogram's unit into the metric's: 0.001 for milliseconds to seconds. */
  histogram(
    name: string,
    help: string,
    samples: readonly (readonly [Labels, Histogram])[],
    scale: number,
  ): void;
  summary(
    name: string,
    help: string,
    samples: readonly (readonly [
      Labels,
      { quantiles: Record<string, number>; sum: number; count: number },
    ])[],
  ): void;
  text(): string;
}

/** Backslash, newline and, in a label's value, the quote. */
const escaped = (text: string): string => text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n');

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${escaped(value).replace(/"/g, '\\"')}"`,
  );
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  if (value === Number.NEGATIVE_INFINITY) return '-Inf';
  return String(value);
}

/** Without the digits that a multiplication by the scale adds (0.2 ms is 0.0002 s). */
const scaled = (value: number, scale: number): string => numberText(Number((value * scale).toPrecision(12)));

export function createMetricsText(): MetricsText {
  const lines: string[] = [];
  const begin = (name: string, help: string, type: string): void => {
    lines.push(`# HELP ${name} ${escaped(help)}`, `# TYPE ${name} ${type}`);
  };
  const plain =
    (type: 'gauge' | 'counter') =>
    (name: string, help: string, samples: readonly (readonly [Labels, number])[]): void => {
      if (samples.length === 0) return;
      begin(name, help, type);
      for (const [labels, value] of samples) lines.push(`${name}${labelText(labels)} ${numberText(value)}`);
    };
  return {
    gauge: plain('gauge'),
    counter: plain('counter'),
    histogram: (name, help, samples, scale) => {
      if (samples.length === 0) return;
      begin(name, help, 'histogram');
      for (const [labels, { edges, counts, sum, count }] of samples) {
        let below = 0;
        for (const [index, edge] of edges.entries()) {
          below += counts[index] ?? 0;
          lines.push(`${name}_bucket${labelText({ ...labels, le: scaled(edge, scale) })} ${below}`);
        }
        lines.push(
          `${name}_bucket${labelText({ ...labels, le: '+Inf' })} ${count}`,
          `${name}_sum${labelText(labels)} ${scaled(sum, scale)}`,
          `${name}_count${labelText(labels)} ${count}`,
        );
      }
    },
    summary: (name, help, samples) => {
      if (samples.length === 0) return;
      begin(name, help, 'summary');
      for (const [labels, { quantiles, sum, count }] of samples) {
        for (const [quantile, value] of Object.entries(quantiles))
          lines.push(`${name}${labelText({ ...labels, quantile })} ${numberText(value)}`);
        lines.push(
          `${name}_sum${labelText(labels)} ${numberText(sum)}`,
          `${name}_count${labelText(labels)} ${count}`,
        );
      }
    },
    text: () => `${lines.join('\n')}\n`,
  };
}
