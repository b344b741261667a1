// Why: the scenarios that there are, by name.
// Trusts: each scenario's own file. Must never: hold two of one name.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { cityAir } from './city-air.ts';
import { energy } from './energy.ts';
import { finance } from './finance.ts';
import { industry } from './industry.ts';
import { medicine } from './medicine.ts';
import type { Scenario } from './scenario.ts';
import { traffic } from './traffic.ts';

export const scenarios: readonly Scenario[] = [finance, medicine, traffic, energy, cityAir, industry];

/** Refusal: `config-invalid`, with the names that there are. */
export function findScenario(name: string): Result<Scenario> {
  const found = scenarios.find((one) => one.name === name);
  if (found !== undefined) return ok(found);
  const names = scenarios.map((one) => one.name).join(', ');
  return refuse('config-invalid', `no scenario ${JSON.stringify(name.slice(0, 80))}; there are ${names}`);
}
