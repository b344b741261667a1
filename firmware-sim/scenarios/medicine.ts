// Why: the scenario of a ward: the vital signs of one bed each minute, and whether its patient deteriorates soon.
// Trusts: nothing. Must never: be taken for physiology; it is as false as it needs to be to be learned from.
//
// Patients come to the bed one after the other. Some get worse: over one to two hours the pulse and breathing
// quicken, oxygen and pressure fall, and at the end of it the patient is moved to intensive care and the next
// one comes. Walks raise the pulse for some minutes and a fever raises it for hours, and both mean nothing; and of
// those who go home some got half as bad and better again.

import { createNoise, type Noise } from '../sensors/noise.ts';
import type { Cell, Scenario } from './scenario.ts';
import { beginMs, between, clamp, createGaps, createWander, round, timeText } from './signals.ts';

const minuteMs = 60_000;
const warnedMinutes = 30;
const deteriorates = 0.7;

interface Patient {
  pulse: number;
  breaths: number;
  oxygen: number;
  temperature: number;
  pressure: number;
  /** Minutes until they leave the bed, from now. */
  leavesIn: number;
  /** Minutes over which they get worse before they leave; null: they go home well. */
  worsensFor: number | null;
  /** When they are worst and get better again, in minutes before they go home; null: they never are. */
  rallies: number | null;
  fever: number;
  /** How strongly each sign answers to getting worse. */
  response: number[];
}

function admit(noise: Noise): Patient {
  const worsens = noise.uniform() < deteriorates;
  return {
    pulse: clamp(76 + 9 * noise.normal(), 52, 104),
    breaths: clamp(15.5 + 1.8 * noise.normal(), 11, 21),
    oxygen: clamp(96.6 + 1 * noise.normal(), 93, 99),
    temperature: 36.8 + 0.25 * noise.normal(),
    pressure: clamp(124 + 12 * noise.normal(), 96, 160),
    leavesIn: Math.round(between(noise, 180, 420)),
    worsensFor: worsens ? Math.round(between(noise, 60, 120)) : null,
    rallies: !worsens && noise.uniform() < 0.6 ? between(noise, 60, 150) : null,
    fever: noise.uniform() < 0.25 ? between(noise, 0.6, 1.6) : 0,
    response: Array.from({ length: 5 }, () => between(noise, 0.1, 1.3)),
  };
}

/** How far the patient has got worse: 0 not at all, 1 at the moment of deterioration. */
function progress({ worsensFor, rallies, leavesIn }: Patient): number {
  if (rallies !== null) return 0.6 * Math.exp(-(((leavesIn - rallies) / 25) ** 2));
  return worsensFor === null ? 0 : clamp(1 - leavesIn / worsensFor, 0, 1);
}

function bed(seed: number): { next(): Cell[] } {
  const noise = createNoise(seed);
  const unrest = createWander(noise, 0.9, 1);
  const breathing = createWander(noise, 0.8, 1);
  const tone = createWander(noise, 0.95, 1);
  const gaps = [
    createGaps(noise, 0.015, 3),
    createGaps(noise, 0.03, 4),
    createGaps(noise, 0.04, 5),
    createGaps(noise, 0.01, 10),
    createGaps(noise, 0.03, 4),
  ];
  let patient = admit(noise);
  // The first patient lies there already.
  patient.leavesIn = Math.round(between(noise, 60, 420));
  let walk = 0;
  let minute = 0;
  const next = (): Cell[] => {
    const worse = progress(patient);
    walk = walk > 0 ? walk - 1 : noise.uniform() < 1 / 240 ? Math.round(between(noise, 5, 15)) : 0;
    const effort = walk > 0 && worse < 0.3 ? 1 : 0;
    const [toPulse = 1, toBreaths = 1, toOxygen = 1, toHeat = 1, toPressure = 1] = patient.response;
    const signs = [
      round(patient.pulse + 20 * toPulse * worse + 22 * effort + 8 * patient.fever + 3.5 * unrest(), 0),
      round(patient.breaths + 6 * toBreaths * worse + 5 * effort + patient.fever + 1.3 * breathing(), 0),
      round(clamp(patient.oxygen - 3.6 * toOxygen * worse ** 1.3 + 0.7 * noise.normal(), 70, 100), 0),
      round(patient.temperature + patient.fever + 0.9 * toHeat * worse + 0.08 * noise.normal(), 1),
      round(patient.pressure - 18 * toPressure * worse ** 1.5 + 6 * effort + 4 * tone(), 0),
    ];
    const soon = patient.worsensFor !== null && patient.leavesIn <= warnedMinutes;
    const row = [
      timeText(beginMs + minute * minuteMs),
      ...signs.map((sign, at) => (gaps[at]?.() === true ? null : sign)),
      soon ? 1 : 0,
    ];
    minute += 1;
    patient.leavesIn -= 1;
    if (patient.leavesIn <= 0) patient = admit(noise);
    return row;
  };
  return { next };
}

export const medicine: Scenario = {
  name: 'medicine',
  title: 'Deterioration on a ward',
  titleZh: '病情恶化早期预警',
  about:
    'The monitor of one bed: pulse, breathing, oxygen, temperature and pressure each minute, patient after patient. ' +
    'What a loose probe spoils is missing. Predicted from a quarter of an hour is whether the patient deteriorates ' +
    'within the next 30 minutes, which is so in 7 % of the minutes. A warning that is missed costs the half hour in ' +
    'which help is easy; a false one costs a walk to the bed, and the trust of those who walk.',
  task: 'classification',
  recipe: {
    target: 'deteriorates',
    task: 'classification',
    time: 'time',
    window: 15,
    windowFeatures: ['mean', 'deviation', 'minimum', 'maximum'],
    hidden: [24],
    learningRate: 0.003,
    epochs: 25,
    patience: 6,
    classWeights: 'balanced',
  },
  columns: [
    'time',
    'pulse_bpm',
    'breaths_per_min',
    'oxygen_percent',
    'temperature_c',
    'systolic_mmhg',
    'deteriorates',
  ],
  texts: [],
  rows: 20_000,
  naive: { about: 'all is well, which is right in 93 minutes of 100 and finds nobody', answer: () => 0 },
  positive: 1,
  source: bed,
};
