// Why: what a release answered to a request, what was right, and how good that was: records, label files, answers.
// Trusts: nothing before the schemas. Must never: compare a number and its text as two different classes.

import { z } from 'zod';
import { releaseIdSchema } from './messages.ts';

const requestId = z.string().min(1).max(256);
const classValue = z.union([z.string().min(1).max(256), z.number(), z.boolean()]);

/** One class has one text: 1, "1" and "1.0" are the same, and so are true and "true". */
export function classText(value: string | number | boolean): string {
  const text = String(value).trim();
  return /^-?\d+(\.\d+)?$/.test(text) && Number.isFinite(Number(text)) ? String(Number(text)) : text;
}

/**
 * A record of class `app` or `sample` that can be joined with a label: `id` or `requestId`, and `prediction` or
 * `label`. Its `release` must be named. Anything else may stand beside.
 */
export const predictionRecordSchema = z
  .object({
    id: requestId.optional(),
    requestId: requestId.optional(),
    prediction: classValue.optional(),
    label: classValue.optional(),
  })
  .loose();

export interface Prediction {
  requestId: string;
  prediction: string;
}

/** Null where it is none. `requestId` and `prediction` go before their other names. */
export function predictionOf(data: unknown): Prediction | null {
  const parsed = predictionRecordSchema.safeParse(data);
  if (!parsed.success) return null;
  const id = parsed.data.requestId ?? parsed.data.id;
  const prediction = parsed.data.prediction ?? parsed.data.label;
  return id === undefined || prediction === undefined
    ? null
    : { requestId: id, prediction: classText(prediction) };
}

/** One line of a label file in NDJSON; a CSV file has the same names in its first line. */
export const labelLineSchema = z
  .object({
    id: requestId.optional(),
    requestId: requestId.optional(),
    label: classValue,
    /** When it was found out: Unix milliseconds, or a date and time with its zone. */
    time: z.union([z.number().int().nonnegative(), z.iso.datetime({ offset: true })]).optional(),
  })
  .refine((line) => (line.id ?? line.requestId) !== undefined, { message: 'needs an id or a requestId' });

export const labelsMax = 5_000;
/** `POST /api/v1/labels`. */
export const labelsImportSchema = z.object({
  labels: z
    .array(
      z.object({
        requestId,
        label: z.string().min(1).max(256),
        timeMs: z.number().int().nonnegative().nullable(),
      }),
    )
    .max(labelsMax),
});
export type LabelLine = z.infer<typeof labelsImportSchema>['labels'][number];
const count = z.number().int().nonnegative();
export const labelsImportedSchema = z.object({
  imported: count,
  /** Of them, labels of requests that had another one before. */
  replaced: count,
  /** Of them, labels of requests of which no record came yet: they wait for it. */
  unknown: count,
  /** The first of those. */
  unknownIds: z.array(z.string()),
});
export type LabelsImported = z.infer<typeof labelsImportedSchema>;

const share = z.number().min(0).max(1);
const averages = z.object({ precision: share, recall: share, f1: share });
export const qualitySchema = z.object({
  model: z.string(),
  fromMs: count,
  untilMs: count,
  releases: z.array(
    z.object({
      release: releaseIdSchema,
      windows: z.array(
        z.object({
          fromMs: count,
          untilMs: count,
          /** Records with an answer, and those of them that have a label. */
          predictions: count,
          count,
          /** Null where nothing has a label. */
          accuracy: share.nullable(),
          macro: averages.nullable(),
          classes: z.array(averages.extend({ label: z.string(), support: count, predicted: count })),
        }),
      ),
    }),
  ),
  /** Labels, of any model, of whose request no record came. */
  waitingLabels: count,
  hint: z.string().nullable(),
});
export type QualityView = z.infer<typeof qualitySchema>;
