// Why: everything that makes one training what it is, in one value: flags and recipe files say the same. Pure.
// Trusts: nothing before `parseRecipe`. Must never: leave open what changes the model that comes out.

import { z } from 'zod';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { describeIssues } from '../../shared/wire/messages.ts';

export const tasks = ['classification', 'regression', 'forecast', 'anomaly'] as const;
export type Task = (typeof tasks)[number];

/** What is computed of each numeric column over a window. `changes`: each earlier value less the last one. */
export const windowFeatures = [
  'lags',
  'changes',
  'mean',
  'deviation',
  'minimum',
  'maximum',
  'bands',
] as const;
export type WindowFeature = (typeof windowFeatures)[number];

/** The transform stands in the graph as two matrices of its square. */
const bandsWindowMax = 1_024;

const name = z.string().min(1).max(512);

export const recipeSchema = z
  .object({
    /** The column that is predicted; of anomalies the column that labels them (0 or 1), which is not trained on. */
    target: name,
    task: z.enum(tasks),
    /** Columns that are used; null: all but the target and the time. */
    features: z.array(name).min(1).max(4_096).nullable().default(null),
    /** The column of time, by which rows are ordered and split; null: rows stand for themselves. */
    time: name.nullable().default(null),
    /** Rows in one window; null: the model sees one row. */
    window: z.number().int().min(2).max(4_096).nullable().default(null),
    /** How many rows ahead is predicted. */
    horizon: z.number().int().min(1).max(100_000).default(1),
    windowFeatures: z
      .array(z.enum(windowFeatures))
      .min(1)
      .default(['lags', 'mean', 'deviation', 'minimum', 'maximum']),
    /** Bands of equal width in frequency, for `bands`. */
    bands: z.number().int().min(1).max(64).default(4),
    normalise: z.enum(['standard', 'min-max', 'robust']).default('standard'),
    duplicates: z.enum(['drop', 'keep']).default('drop'),
    missing: z.enum(['median', 'mean', 'most-frequent']).default('median'),
    outliers: z.enum(['keep', 'clip']).default('keep'),
    /** Values that stand for a missing one. */
    sentinels: z.union([z.enum(['auto', 'none']), z.array(z.number()).max(16)]).default('auto'),
    hidden: z.array(z.number().int().min(1).max(4_096)).max(8).default([32]),
    activation: z.enum(['relu', 'sigmoid', 'tanh']).default('relu'),
    optimizer: z.enum(['sgd', 'adam']).default('adam'),
    learningRate: z.number().positive().max(100).default(0.001),
    epochs: z.number().int().min(1).max(100_000).default(50),
    batch: z.number().int().min(1).max(1_000_000).default(64),
    /** Weight decay (L2), per example as scikit-learn's `alpha`. */
    decay: z.number().min(0).max(100).default(1e-4),
    /** Epochs without a better validation loss after which training ends; null: all epochs are run. */
    patience: z.number().int().min(1).max(10_000).nullable().default(10),
    classWeights: z.enum(['none', 'balanced']).default('none'),
    /** The part that is trained on; the rest is tested on, and of the part a tenth validates. */
    split: z.number().min(0.1).max(0.95).default(0.7),
    seed: z.number().int().min(0).max(0xffff_ffff).default(1),
  })
  .strict()
  .refine(({ task, window }) => task !== 'forecast' || window !== null, {
    path: ['window'],
    message: 'a forecast needs a window of past rows',
  })
  .refine(
    ({ window, windowFeatures: features }) => (window ?? 0) <= bandsWindowMax || !features.includes('bands'),
    {
      path: ['window'],
      message: `bands are computed of at most ${bandsWindowMax} rows`,
    },
  );

export type Recipe = z.infer<typeof recipeSchema>;

/** Fills in what is not given. Refusal: `config-invalid`, naming the first wrong key. */
export function parseRecipe(body: unknown): Result<Recipe> {
  const parsed = recipeSchema.safeParse(body);
  if (parsed.success) return ok(parsed.data);
  return refuse('config-invalid', describeIssues(parsed.error));
}
