// Why: each scenario is what it says: one seed one life, plausible values, as much missing and as many positives
// as promised, and data from which something can be learned that the naive rule does not know.
// Trusts: linear-fit.ts. Must never: judge a scenario by the seed that its numbers were chosen with alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFeed, fedColumns } from '../../firmware-sim/scenarios/feeding.ts';
import { findScenario, scenarios } from '../../firmware-sim/scenarios/known.ts';
import { type Cell, recipeYaml, type Scenario, scenarioCsv } from '../../firmware-sim/scenarios/scenario.ts';
import { parseRecipe, recipeSchema } from '../../registry/learn/recipe.ts';
import { readYamlFile } from '../../registry/policy/yaml-file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { linearFit, meanAbsoluteError, rankArea } from './linear-fit.ts';

const scenarioNamed = (name: string): Scenario => unwrap(findScenario(name));
const targetOf = (scenario: Scenario): string => unwrap(parseRecipe(scenario.recipe)).target;

function rowsOf(scenario: Scenario, rows: number, seed: number): Cell[][] {
  const source = scenario.source(seed);
  return Array.from({ length: rows }, () => source.next());
}

function columnOf(scenario: Scenario, rows: Cell[][], column: string): Cell[] {
  const at = scenario.columns.indexOf(column);
  assert.ok(at >= 0, `${scenario.name} has a column ${column}`);
  return rows.map((row) => row[at] ?? null);
}

test('six scenarios, each with a name of its own, and an unknown one is refused with their names', () => {
  assert.deepEqual(scenarios.map(({ name }) => name).sort(), [
    'city-air',
    'energy',
    'finance',
    'industry',
    'medicine',
    'traffic',
  ]);
  const refused = findScenario('Finance');
  assert.ok(!refused.ok && refused.refusal.code === 'config-invalid');
  assert.match(refused.refusal.detail, /"Finance"; there are finance, medicine/);
});

for (const scenario of scenarios) {
  test(`${scenario.name}: one seed is one life, another seed another, and a source shares nothing with the next`, () => {
    const rows = rowsOf(scenario, 400, 7);
    assert.deepEqual(rowsOf(scenario, 400, 7), rows);
    assert.notDeepEqual(rowsOf(scenario, 400, 8), rows);
    const [one, other] = [scenario.source(7), scenario.source(7)];
    for (const row of rows) assert.deepEqual([one.next(), other.next()], [row, row]);
  });

  test(`${scenario.name}: its rows have its columns, texts where it says so, and the truth is never missing`, () => {
    const { time } = unwrap(parseRecipe(scenario.recipe));
    const target = targetOf(scenario);
    for (const row of rowsOf(scenario, 3_000, 3)) {
      assert.equal(row.length, scenario.columns.length);
      for (const [at, column] of scenario.columns.entries()) {
        const cell = row[at] ?? null;
        if (column === target) assert.notEqual(cell, null);
        else if (column === time || scenario.texts.includes(column))
          assert.ok(cell === null || typeof cell === 'string', column);
        else assert.ok(cell === null || (typeof cell === 'number' && Number.isFinite(cell)), column);
      }
    }
  });

  test(`${scenario.name}: its recipe is one, and its YAML says the same`, () => {
    const recipe = unwrap(parseRecipe(scenario.recipe));
    assert.equal(recipe.task, scenario.task);
    const named = [recipe.target, ...(recipe.time === null ? [] : [recipe.time]), ...(recipe.features ?? [])];
    for (const column of named) assert.ok(scenario.columns.includes(column), column);
    const text = recipeYaml(scenario);
    assert.deepEqual(unwrap(readYamlFile(text, recipeSchema, 'config-invalid')).data, recipe);
    assert.ok(text.includes(scenario.titleZh) && text.startsWith('# '));
    assert.ok(text.split('\n').every((line) => line.length <= 120));
  });

  test(`${scenario.name}: its time, where it has one, goes on by equal steps`, () => {
    const { time } = unwrap(parseRecipe(scenario.recipe));
    if (time === null) {
      assert.equal(scenario.columns.includes('time'), false);
      return;
    }
    const times = columnOf(scenario, rowsOf(scenario, 300, 2), time).map((text) => Date.parse(String(text)));
    const steps = new Set(times.slice(1).map((ms, at) => ms - (times[at] ?? 0)));
    assert.equal(steps.size, 1);
    assert.ok([...steps].every((ms) => ms >= 1_000));
  });
}

test('a recipe of texts that need quotes, and of what YAML cannot hold', () => {
  const odd = {
    ...scenarioNamed('finance'),
    recipe: { target: 'a: "b" # c', task: 'regression', time: null },
  };
  const { data } = unwrap(readYamlFile(recipeYaml(odd), recipeSchema, 'config-invalid'));
  assert.equal(data.target, 'a: "b" # c');
  assert.equal(data.time, null);
  assert.throws(() => recipeYaml({ ...odd, recipe: { target: { a: 1 } } }), /target/);
  assert.throws(() => recipeYaml({ ...odd, recipe: { decay: Number.NaN } }), /decay/);
});

test('a table: head and rows, nothing where a cell is missing, quotes where a text needs them', () => {
  const scenario: Scenario = {
    ...scenarioNamed('finance'),
    columns: ['a', 'b,c'],
    source: () => ({ next: () => [null, 'say "so"'] }),
  };
  assert.equal([...scenarioCsv(scenario, 2, 1)].join(''), 'a,"b,c"\n,"say ""so"""\n,"say ""so"""\n');
  assert.equal([...scenarioCsv(scenarioNamed('energy'), 30, 1)].length, 31);
});

/** What a value may be, in the column's unit, and which part of the column is missing. */
const promised: Record<string, Record<string, { low: number; high: number; missing: number }>> = {
  finance: {
    age: { low: 18, high: 90, missing: 0 },
    income_eur: { low: 5_000, high: 400_000, missing: 0.08 },
    amount_eur: { low: 500, high: 90_000, missing: 0 },
    months: { low: 12, high: 60, missing: 0 },
    card_utilisation: { low: 0, high: 1, missing: 0 },
  },
  medicine: {
    pulse_bpm: { low: 35, high: 180, missing: 0.015 },
    breaths_per_min: { low: 5, high: 45, missing: 0.03 },
    oxygen_percent: { low: 70, high: 100, missing: 0.04 },
    temperature_c: { low: 35, high: 41.5, missing: 0.01 },
    systolic_mmhg: { low: 50, high: 200, missing: 0.03 },
  },
  traffic: {
    vehicles: { low: 0, high: 650, missing: 0.02 },
    occupancy_percent: { low: 0, high: 95, missing: 0 },
    speed_kmh: { low: 4, high: 140, missing: 0.035 },
    day_sin: { low: -1, high: 1, missing: 0 },
  },
  energy: {
    load_kw: { low: 15, high: 300, missing: 0 },
    temperature_c: { low: -25, high: 45, missing: 0.015 },
    temperature_tomorrow_c: { low: -25, high: 45, missing: 0 },
  },
  'city-air': {
    co_sensor: { low: 150, high: 4_000, missing: 0.035 },
    nox_sensor: { low: 100, high: 4_000, missing: 0.035 },
    temperature_c: { low: -15, high: 50, missing: 0 },
    humidity_percent: { low: 10, high: 98, missing: 0 },
    co_mg_m3: { low: 0.1, high: 12.5, missing: 0 },
  },
  industry: {
    vibration_mm_s: { low: 0.5, high: 9, missing: 0 },
    kurtosis: { low: 1.5, high: 14, missing: 0 },
    bearing_c: { low: 20, high: 95, missing: 0.01 },
    current_a: { low: 4, high: 25, missing: 0 },
    pressure_bar: { low: 0.5, high: 9, missing: 0 },
  },
};

for (const [name, columns] of Object.entries(promised)) {
  test(`${name}: values are plausible, and as much is missing as promised`, () => {
    const scenario = scenarioNamed(name);
    const rows = [1, 2, 3].flatMap((seed) => rowsOf(scenario, 8_000, seed));
    for (const [column, { low, high, missing }] of Object.entries(columns)) {
      const cells = columnOf(scenario, rows, column);
      const given = cells.filter((cell) => cell !== null && cell !== -200).map(Number);
      const [least, most] = [Math.min(...given), Math.max(...given)];
      assert.ok(least >= low && most <= high, `${column}: ${least} to ${most}`);
      const rate = 1 - given.length / cells.length;
      assert.ok(Math.abs(rate - missing) <= 0.35 * missing, `${column}: ${rate} is missing`);
    }
  });
}

for (const [name, share] of Object.entries({ finance: 0.2, medicine: 0.07, industry: 0.05 })) {
  test(`${name}: ${share} of the rows are positive`, () => {
    const scenario = scenarioNamed(name);
    const rows = [4, 5, 6, 7].flatMap((seed) => rowsOf(scenario, 25_000, seed));
    const cells = columnOf(scenario, rows, targetOf(scenario));
    const part = cells.filter((cell) => cell === scenario.positive).length / cells.length;
    assert.ok(Math.abs(part - share) < 0.12 * share, `${part}`);
  });
}

interface Learned {
  inputs: number[][];
  truth: Cell[];
  naive: Cell[];
}

/** Inputs as a model gets them, with gaps filled by the last value seen, and texts as columns of 0 and 1. */
function examples(scenario: Scenario, count: number, seed: number): Learned {
  const feed = createFeed(scenario, seed);
  const width = fedColumns(scenario).numbers.length;
  const last = new Float64Array(width);
  const kinds: string[] = [];
  const learned: Learned = { inputs: [], truth: [], naive: [] };
  for (let at = 0; at < count; at += 1) {
    const { request, truth, naive } = feed.next();
    const [values, texts] = request.inputs.map(({ data }) => data as Float32Array | string[]);
    const numbers = Array.from(values as Float32Array, (value, index) => {
      if (!Number.isNaN(value) && value !== -200) last[index % width] = value;
      return last[index % width] ?? 0;
    });
    const said = ((texts ?? []) as string[]).map((text, index) => `${index} ${text}`);
    for (const kind of said) if (!kinds.includes(kind)) kinds.push(kind);
    learned.inputs.push([...numbers, ...said.map((kind) => kinds.indexOf(kind))]);
    learned.truth.push(truth);
    learned.naive.push(naive);
  }
  if (kinds.length > 0)
    learned.inputs = learned.inputs.map((input) => {
      const known = new Set(input.slice(width));
      return [...input.slice(0, width), ...kinds.map((_, at) => (known.has(at) ? 1 : 0))];
    });
  return learned;
}

function halves({ inputs, truth, naive }: Learned) {
  const middle = Math.floor(truth.length / 2);
  return {
    learn: { inputs: inputs.slice(0, middle), truth: truth.slice(0, middle) },
    judge: { inputs: inputs.slice(middle), truth: truth.slice(middle), naive: naive.slice(middle) },
  };
}

for (const [name, bound] of Object.entries({ traffic: 0.9, 'city-air': 0.5 })) {
  test(`${name}: a linear fit errs less than ${bound} of what the naive rule does, and not by nothing`, (t) => {
    const scenario = scenarioNamed(name);
    const { learn, judge } = halves(examples(scenario, 6_000, 11));
    const fit = linearFit(learn.inputs, learn.truth.map(Number));
    const truth = judge.truth.map(Number);
    const fitted = meanAbsoluteError(judge.inputs.map(fit), truth);
    const naive = meanAbsoluteError(judge.naive.map(Number), truth);
    t.diagnostic(`${name}: fit ${fitted.toFixed(3)}, naive ${naive.toFixed(3)}`);
    assert.ok(fitted < bound * naive, `${fitted} against ${naive}`);
    assert.ok(fitted > 0.05 * naive, `${fitted} against ${naive}: it is trivial`);
  });
}

for (const [name, [low, high]] of Object.entries({ finance: [0.75, 0.93], medicine: [0.85, 0.99] })) {
  test(`${name}: a linear fit ranks the positives above the others, and not perfectly`, (t) => {
    const scenario = scenarioNamed(name);
    const { learn, judge } = halves(examples(scenario, 12_000, 12));
    const isPositive = (cell: Cell): boolean => cell === scenario.positive;
    const fit = linearFit(
      learn.inputs,
      learn.truth.map((cell) => (isPositive(cell) ? 1 : 0)),
    );
    const area = rankArea(judge.inputs.map(fit), judge.truth.map(isPositive));
    t.diagnostic(`${name}: area under the ROC curve ${area.toFixed(3)}`);
    assert.ok(area > (low ?? 1) && area < (high ?? 0), `${area}`);
  });
}

test('energy: a linear fit for each hour of the day errs less than 0.7 of what the naive rule does', (t) => {
  const scenario = scenarioNamed('energy');
  const width = fedColumns(scenario).numbers.length;
  const { learn, judge } = halves(examples(scenario, 17_472, 11));
  // One row is seen each hour, so that every 24th example is of one hour.
  const ofHour = <T>(all: T[], hour: number): T[] => all.filter((_, at) => at % 24 === hour);
  const truth = judge.truth.map(Number);
  const fits = Array.from({ length: 24 }, (_, hour) =>
    linearFit(
      ofHour(learn.inputs, hour).map((input) => input.slice(-width)),
      ofHour(learn.truth, hour).map(Number),
    ),
  );
  const predicted = judge.inputs.map((input, at) => fits[at % 24]?.(input.slice(-width)) ?? Number.NaN);
  const fitted = meanAbsoluteError(predicted, truth);
  const naive = meanAbsoluteError(judge.naive.map(Number), truth);
  t.diagnostic(`energy: fit ${fitted.toFixed(3)}, naive ${naive.toFixed(3)}`);
  assert.ok(fitted < 0.7 * naive && fitted > 0.05 * naive, `${fitted} against ${naive}`);
});

test('finance: a linear fit is right more often than the rule that nobody defaults', (t) => {
  const scenario = scenarioNamed('finance');
  const { learn, judge } = halves(examples(scenario, 12_000, 13));
  const fit = linearFit(
    learn.inputs,
    learn.truth.map((cell) => (cell === 'yes' ? 1 : 0)),
  );
  const right = judge.inputs.filter(
    (input, at) => (fit(input) > 0.5 ? 'yes' : 'no') === judge.truth[at],
  ).length;
  const naive = judge.naive.filter((cell, at) => cell === judge.truth[at]).length;
  t.diagnostic(`finance: ${right} against ${naive} of ${judge.truth.length}`);
  assert.ok(right > naive + 0.01 * judge.truth.length);
});

test('industry: what each channel makes of the others finds faults better than any channel alone', (t) => {
  const scenario = scenarioNamed('industry');
  const { learn, judge } = halves(examples(scenario, 20_000, 14));
  const healthy = learn.inputs.filter((_, at) => learn.truth[at] === 0);
  const without = (input: number[], channel: number) => input.filter((_, at) => at !== channel);
  const channels = healthy[0]?.map((_, at) => at) ?? [];
  const judges = channels.map((channel) => {
    const fit = linearFit(
      healthy.map((input) => without(input, channel)),
      healthy.map((input) => input[channel] ?? 0),
    );
    const residual = (input: number[]) => (input[channel] ?? 0) - fit(without(input, channel));
    const scale = healthy.reduce((sum, input) => sum + residual(input) ** 2, 0) / healthy.length;
    return (input: number[]) => residual(input) ** 2 / scale;
  });
  const faulty = judge.truth.map((cell) => cell === 1);
  const scores = judge.inputs.map((input) => judges.reduce((sum, one) => sum + one(input), 0));
  const together = rankArea(scores, faulty);
  const alone = channels.map((channel) => {
    const area = rankArea(
      judge.inputs.map((input) => input[channel] ?? 0),
      faulty,
    );
    return Math.max(area, 1 - area);
  });
  t.diagnostic(`industry: together ${together.toFixed(3)}, alone ${alone.map((one) => one.toFixed(3))}`);
  assert.ok(together > 0.9, `${together}`);
  assert.ok(together > Math.max(...alone) + 0.03, `${together} against ${alone}`);
});
