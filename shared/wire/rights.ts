// Why: what a region gives out about one device, for the person behind it: sections, each in words that need no manual.
// Trusts: nothing before the schemas. Must never: have a section that nobody can explain.

import { z } from 'zod';

/** In the order in which they come. */
export const rightsSections = {
  device:
    'the device itself: its public key, labels, time zone, whether it is connected, what it last reported of itself',
  'claim-uses': 'the enrolment claims by which it joined, and the certificates it got for them',
  claims: 'those claims: labels they gave, who made them and when',
  certificates: 'every certificate it was given, with its dates',
  models: 'the models it runs and ran before, as it reported them',
  desired: 'the releases it should run',
  assignments: 'the signed assignment that it holds',
  'rollout-membership': 'the rollouts it is or was a part of, and how far each came on it',
  rollouts: 'those rollouts',
  'rollout-history': 'who did what in those rollouts, with the reasons they gave',
  moves: 'moves to or from another region that it was part of, and how far each came',
  'move-orders': 'the signed orders of those moves',
  'moved-enrolments': 'its enrolments here that ended with a move',
  'telemetry-chains': 'how many batches of records it sent, lost, and had erased',
  'telemetry-batches': 'each batch: its class, size and times',
  'telemetry-lost': 'batches that were lost when the registry was restored from a backup',
  records:
    'every record it sent that still opens here: events, statistics, samples, logs, records of the application',
  samples:
    'requests that it kept for people to look at, with inputs and outputs, and what people said of them',
  predictions: 'where its records say what a model answered to a request',
  'ground-truth': 'what people said later was right for those requests',
  'request-counts': 'requests, errors and latencies for each hour',
  'feature-counts': 'counts of input and output values for each hour',
  energy: 'energy for each hour',
  drift: 'how its inputs compare with those that the model was trained on',
  events: 'what the registry noticed about it, and what it refused',
  'telemetry-keys':
    'the periods of its telemetry keys (their secret halves are not given out), and which were deleted',
  erasures: 'what was erased of it here, with the signed certificates',
  'peer-erasures': 'what other regions say they erased of it',
  'erasure-requests': 'erasures of it that were asked of every region',
  audit: 'entries of the audit record about it',
} as const;
export type RightsSection = keyof typeof rightsSections;

const sectionNames = Object.keys(rightsSections);
const isSection = (name: string): name is RightsSection => sectionNames.includes(name);

/** A line of `GET /api/v1/rights/export`. The last one is `end`: what breaks off before it is not whole. */
export const rightsLineSchema = z.union([
  z.object({
    section: z.string().refine(isSection, 'no section of this version'),
    data: z.record(z.string(), z.unknown()),
  }),
  z.object({ section: z.literal('end'), counts: z.record(z.string(), z.number().int().nonnegative()) }),
]);
export type RightsLine = z.infer<typeof rightsLineSchema>;

/** `index.json` of an export. */
export const rightsIndexSchema = z.object({
  schemaVersion: z.literal(1),
  region: z.string(),
  exportedAtMs: z.number().int(),
  devices: z.array(
    z.object({
      device: z.string(),
      files: z.array(
        z.object({
          path: z.string(),
          section: z.string(),
          entries: z.number().int(),
          bytes: z.number().int(),
          sha256: z.string(),
        }),
      ),
    }),
  ),
});
export type RightsIndex = z.infer<typeof rightsIndexSchema>;
