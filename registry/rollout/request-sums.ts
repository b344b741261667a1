// Why: rollups of requests added up for a gate: how many, how many of them failed, and how long the answers took.
// Trusts: the rollups, which ingest fills in the transaction of each batch. Must never: blame a release for its clients.

import {
  createSketch,
  mergeSketch,
  type SketchJson,
  sketchFromJson,
  sketchToJson,
} from '../../shared/stats/sketch.ts';
import { fromColumn, fromNullableColumn } from '../fleet/columns.ts';
import { blamed, type RequestSums } from './evidence-gates.ts';

export interface RequestsRow {
  device: string;
  requests: number;
  /** By code, JSON. */
  errors: string;
  /** SketchJson; null where nothing was answered. */
  latency: string | null;
}

export function sumRequests(rows: readonly RequestsRow[]): RequestSums {
  const latency = createSketch();
  let [requests, errors] = [0, 0];
  for (const row of rows) {
    const byCode = Object.entries(fromColumn<Record<string, number>>(row.errors));
    const failed = byCode.filter(([code]) => blamed(code)).reduce((sum, [, count]) => sum + count, 0);
    const refused = byCode.reduce((sum, [, count]) => sum + count, 0) - failed;
    requests += row.requests - refused;
    errors += failed;
    const sketch = fromNullableColumn<SketchJson>(row.latency);
    if (sketch !== null) mergeSketch(latency, sketchFromJson(sketch));
  }
  return {
    devices: new Set(rows.map(({ device }) => device)).size,
    ...{ requests, errors },
    latency: latency.count === 0 ? null : sketchToJson(latency),
  };
}
