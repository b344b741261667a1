// Why: the scenario of a pump: what its vibration, heat, current and pressure say each second, and when it is sick.
// Trusts: nothing. Must never: make a fault visible in one channel alone; load and wear move all of them as well.
//
// Load wanders and wear grows for hours: neither is an anomaly. Faults break how the channels hang together: a
// bearing that spalls knocks, a pump that cavitates shakes while its pressure falls, a blocked one pushes harder
// while it takes less current. After a bearing's fault the bearing is new.

import { createNoise, type Noise } from '../sensors/noise.ts';
import type { Cell, Scenario, ScenarioSource } from './scenario.ts';
import { beginMs, between, clamp, createGaps, createWander, round, timeText } from './signals.ts';

const secondMs = 1_000;
/** From one fault's end to the next fault, on average. */
const healthySeconds = 850;
/** A new bearing is worn out after this. */
const lifeSeconds = 15_000;
const repairedAt = 0.9;

const faultKinds = ['bearing', 'cavitation', 'blockage'] as const;

interface Fault {
  kind: (typeof faultKinds)[number];
  secondsLeft: number;
  strength: number;
}

function faultAfter(before: Fault | null, wear: number, noise: Noise): Fault | null {
  if (before !== null)
    return before.secondsLeft <= 1 ? null : { ...before, secondsLeft: before.secondsLeft - 1 };
  if (noise.uniform() >= (0.7 + 0.6 * wear) / healthySeconds) return null;
  const drawn = noise.uniform() - 0.2 * wear;
  const kind = drawn < 0.33 ? 'bearing' : drawn < 0.67 ? 'cavitation' : 'blockage';
  return { kind, secondsLeft: Math.round(between(noise, 20, 75)), strength: between(noise, 0.5, 1.4) };
}

function pump(seed: number): ScenarioSource {
  const noise = createNoise(seed);
  const swing = createWander(noise, 0.995, 0.16);
  const weather = createWander(noise, 0.9995, 2);
  const silent = createGaps(noise, 0.01, 4);
  let wear = between(noise, 0, 0.5);
  let fault: Fault | null = null;
  let heatC = 48;
  let second = 0;
  const next = (): Cell[] => {
    const before = fault;
    fault = faultAfter(fault, wear, noise);
    if (before?.kind === 'bearing' && fault === null) wear = 0;
    wear = wear > repairedAt ? 0 : wear + 1 / lifeSeconds;
    const load = clamp(0.62 + swing(), 0.2, 1);
    const strengthOf = (kind: Fault['kind']): number => (fault?.kind === kind ? fault.strength : 0);
    const [knocks, bubbles, block] = [
      strengthOf('bearing'),
      strengthOf('cavitation'),
      strengthOf('blockage'),
    ];
    const vibration = 1.1 + 1.5 * load + 0.8 * wear + 0.5 * knocks + 0.8 * bubbles;
    const kurtosis = 3 + 0.8 * wear + 2.2 * knocks + 0.4 * bubbles + 0.35 * noise.normal();
    heatC += 0.01 * (31 + weather() + 24 * load + 7 * wear + 12 * knocks - heatC);
    const current = 9 + 11 * load + 0.4 * knocks - 1.5 * bubbles - 1.9 * block;
    const pressure = 2.2 + 3.1 * load - 0.6 * bubbles + 0.6 * block;
    const rms = vibration * (1 + 0.05 * noise.normal());
    const row = [
      timeText(beginMs + second * secondMs),
      round(rms, 3),
      round(rms * (1.9 + 0.45 * Math.sqrt(Math.max(1, kurtosis)) + 0.12 * noise.normal()), 3),
      round(Math.max(1.5, kurtosis), 2),
      silent() ? null : round(heatC + 0.2 * noise.normal(), 1),
      round(current + 0.35 * noise.normal(), 2),
      round(pressure + 0.14 * noise.normal(), 2),
      fault === null ? 0 : 1,
    ];
    second += 1;
    return row;
  };
  return { next };
}

export const industry: Scenario = {
  name: 'industry',
  title: 'Sudden faults of a pump',
  titleZh: '水泵突发故障检测',
  about:
    'A pump each second: vibration (its effective value, peak and kurtosis), the bearing’s temperature, current and ' +
    'pressure. The load wanders and the bearing wears for hours, which is no fault. Learned is how the channels hang ' +
    'together while all is well; reported is when they do not: a bearing that knocks, bubbles, a blockage, together ' +
    '5 % of the seconds. A fault that is missed costs the pump; a false alarm stops the line for nothing.',
  task: 'anomaly',
  recipe: {
    target: 'faulty',
    task: 'anomaly',
    time: 'time',
    hidden: [8, 3, 8],
    activation: 'tanh',
    learningRate: 0.005,
    epochs: 40,
    patience: 8,
  },
  columns: [
    'time',
    'vibration_mm_s',
    'peak_mm_s',
    'kurtosis',
    'bearing_c',
    'current_a',
    'pressure_bar',
    'faulty',
  ],
  texts: [],
  rows: 18_000,
  naive: { about: 'all is well, which is right in 95 seconds of 100 and finds no fault', answer: () => 0 },
  positive: 1,
  source: pump,
};
