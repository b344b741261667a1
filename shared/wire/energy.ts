// Why: energy of a release as devices tell it (class `stats`) and as the registry adds it up.
// Trusts: nothing before the schemas. Must never: let a modelled number pass for a measured one.

import { z } from 'zod';
import { releaseIdSchema } from './messages.ts';

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);

/**
 * `rapl`: the package's counter, by the share of the CPU time that the release's process had of all that was busy.
 * `cpu-time`, `per-request`: models that the manifest names. `none`: nothing to go by.
 */
export const energyMethods = ['rapl', 'cpu-time', 'per-request', 'none'] as const;
export type EnergyMethod = (typeof energyMethods)[number];

export type EnergySource = 'measured' | 'modelled' | 'unknown';
export const energySources = {
  rapl: 'measured',
  'cpu-time': 'modelled',
  'per-request': 'modelled',
  none: 'unknown',
} as const satisfies Record<EnergyMethod, EnergySource>;
const sourceSchema = z.enum(['measured', 'modelled', 'unknown']);

/** A window's joules; a rack of servers uses less. */
const joules = z.number().nonnegative().max(1e9);

/** One window of one served release in which it answered something. */
export const energyStatsSchema = z
  .object({
    kind: z.literal('energy'),
    model: z.string().min(1).max(512),
    windowMs: z.number().nonnegative(),
    /** Answered. */
    requests: count,
    source: sourceSchema,
    method: z.enum(energyMethods),
    /** Null where the source is unknown. */
    joules: joules.nullable(),
    /** Of the release's processes; null where the system does not tell. */
    cpuMs: z.number().nonnegative().max(1e12).nullable(),
  })
  .refine(({ source, method }) => energySources[method] === source, 'source and method do not match')
  .refine(
    ({ source, joules: used }) => (source === 'unknown') === (used === null),
    'joules do not match the source',
  );
export type EnergyStats = z.infer<typeof energyStatsSchema>;

/** Of the manifest, for devices whose counters cannot be read. */
export const energyModelSchema = z.discriminatedUnion('model', [
  z.object({ model: z.literal('cpu-time'), wattsPerCore: z.number().positive().max(1_000) }).strict(),
  z.object({ model: z.literal('per-request'), joules: z.number().positive().max(1e6) }).strict(),
]);
export type EnergyModel = z.infer<typeof energyModelSchema>;

export const energySchema = z.object({
  model: z.string(),
  fromMs: count,
  untilMs: count,
  releases: z.array(
    z.object({
      release: releaseIdSchema,
      /** Never added to one another. */
      methods: z.array(
        z.object({
          source: sourceSchema,
          method: z.enum(energyMethods),
          devices: count,
          requests: count,
          joules: z.number().nonnegative().nullable(),
          joulesPer1000: z.number().nonnegative().nullable(),
          cpuMsPer1000: z.number().nonnegative().nullable(),
        }),
      ),
    }),
  ),
  hint: z.string().nullable(),
});
export type EnergyView = z.infer<typeof energySchema>;
