// Why: what is trained on the real tables for the tests, the benchmark and the comparison with scikit-learn, in one list.
// Trusts: the data folder. Must never: choose a test part by its result.

import { createReadStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Metrics } from '../../registry/learn/evaluation.ts';
import { readTable } from '../../registry/learn/reading/read-table.ts';
import { parseRecipe, type Recipe } from '../../registry/learn/recipe.ts';
import type { Table } from '../../registry/learn/table.ts';
import { unwrap } from '../../shared/kernel/errors.ts';

export interface RealTask {
  name: string;
  /** Below the data folder. */
  file: string;
  recipe: Record<string, unknown>;
  /** The file's bytes as they are trained on: labels that stand in another file are put beside the rows. */
  labelled?: (data: string) => string;
}

/** NAB's labels: windows of time by file. */
function machineTemperature(data: string): string {
  const read = (path: string): string => readFileSync(join(data, 'datasets', path), 'utf8');
  const windows = JSON.parse(read('nab_labels_combined_windows.json')) as Record<string, [string, string][]>;
  const own = windows['realKnownCause/machine_temperature_system_failure.csv'] ?? [];
  const [head, ...lines] = read('industrial/nab_machine_temperature_system_failure.csv')
    .trim()
    .split(/\r?\n/);
  const isIn = (time: string): boolean =>
    own.some(([from, to]) => from.slice(0, 19) <= time && time <= to.slice(0, 19));
  return [`${head},label`, ...lines.map((line) => `${line},${isIn(line.slice(0, 19)) ? 1 : 0}`)].join('\n');
}

const pump = [
  ...['Accelerometer1RMS', 'Accelerometer2RMS', 'Current', 'Pressure'],
  ...['Temperature', 'Thermocouple', 'Voltage', 'Volume Flow RateRMS'],
];

/** Patience is left out where scikit-learn is compared: both run all epochs on the same rows. */
export const realTasks: readonly RealTask[] = [
  {
    name: 'credit default',
    file: 'finance/uci_credit_card_default.csv',
    recipe: {
      target: 'Y',
      task: 'classification',
      hidden: [64, 32],
      epochs: 12,
      batch: 200,
      decay: 0.01,
      patience: null,
    },
  },
  {
    name: 'influenza, 4 weeks ahead',
    file: 'medical/cdc_ilinet_weekly.csv',
    recipe: {
      ...{ target: '% WEIGHTED ILI', task: 'forecast', horizon: 4, window: 12, features: ['% WEIGHTED ILI'] },
      ...{ hidden: [16], epochs: 60, batch: 32, patience: null, decay: 1 },
    },
  },
  {
    name: 'road occupancy, 30 minutes ahead',
    file: 'traffic/nab_occupancy_6005.csv',
    recipe: {
      target: 'value',
      task: 'forecast',
      horizon: 6,
      window: 36,
      hidden: [16],
      epochs: 40,
      batch: 64,
      patience: null,
      decay: 1,
    },
  },
  {
    name: 'oil temperature, 24 hours ahead',
    file: 'energy/ETTh1.csv',
    recipe: {
      ...{
        target: 'OT',
        task: 'forecast',
        horizon: 24,
        window: 48,
        features: ['OT'],
        windowFeatures: ['changes'],
      },
      ...{ hidden: [16], epochs: 20, batch: 200, decay: 1, patience: null },
    },
  },
  {
    name: 'benzene from raw air quality',
    file: 'air/AirQualityUCI_raw.csv',
    recipe: { target: 'C6H6(GT)', task: 'regression', hidden: [32], epochs: 40, patience: null },
  },
  {
    name: 'machine temperature failures',
    file: 'industrial/nab_machine_temperature_system_failure.csv',
    labelled: machineTemperature,
    recipe: {
      ...{
        target: 'label',
        task: 'anomaly',
        window: 144,
        windowFeatures: ['mean', 'deviation', 'minimum', 'maximum'],
      },
      ...{ hidden: [8, 2, 8], activation: 'tanh', split: 0.1, epochs: 100, patience: null },
    },
  },
  {
    name: 'pump valve',
    file: 'industrial/skab/valve1_0.csv',
    recipe: {
      target: 'anomaly',
      task: 'anomaly',
      features: pump,
      window: 8,
      hidden: [12],
      split: 0.4,
      epochs: 60,
      patience: null,
    },
  },
];

/** What a task is compared by, and what the naive guess has of it: area under the curve, or R². */
export function scoreOf(metrics: Metrics): { score: number; naive: number } {
  if (metrics.task === 'classification') return { score: metrics.rocAuc ?? 0, naive: 0.5 };
  if (metrics.task === 'anomaly') return { score: metrics.rocAuc ?? 0, naive: metrics.baseline.rocAuc };
  return { score: metrics.r2 ?? 0, naive: metrics.baselines[0]?.r2 ?? 0 };
}

export const recipeFor = (task: RealTask): Recipe => unwrap(parseRecipe(task.recipe));

export async function tableFor(task: RealTask, data: string): Promise<Table> {
  const chunks =
    task.labelled === undefined
      ? createReadStream(join(data, 'datasets', task.file))
      : Readable.from([Buffer.from(task.labelled(data))]);
  return unwrap(await readTable(chunks)).table;
}
