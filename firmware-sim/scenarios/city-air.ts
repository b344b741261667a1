// Why: the scenario of a city's air: cheap gas sensors beside a reference instrument, which they are to replace.
// Trusts: nothing. Must never: let a sensor be a clean measure of one gas; none is.
//
// After the setting of De Vito et al., On field calibration of an electronic nose for benzene estimation in an urban
// pollution monitoring scenario (Sensors and Actuators B 129, 2008): five metal oxide sensors that answer to several
// gases, to temperature and to humidity, and drift; a missing value is written as −200.

import { createNoise } from '../sensors/noise.ts';
import type { Cell, Scenario, ScenarioSource } from './scenario.ts';
import {
  beginMs,
  bump,
  clamp,
  createGaps,
  createWander,
  dayOf,
  dayWave,
  hourMs,
  hourOf,
  round,
  timeText,
  weekdayOf,
} from './signals.ts';

export const missingMark = -200;
const yearDays = 365.25;

interface Sensor {
  base: number;
  /** The part of its signal for a typical concentration of CO, nitrogen oxides and ozone. */
  co: number;
  nox: number;
  ozone: number;
  /** Exponent: metal oxides answer less and less to more gas. */
  power: number;
  /** Relative change per °C above 15, and per percent of humidity above 50. */
  perDegree: number;
  perHumidity: number;
  /** Relative change in a year. */
  drift: number;
}

const sensors: Sensor[] = [
  { base: 620, co: 430, nox: 60, ozone: 0, power: 0.62, perDegree: 0.004, perHumidity: 0.0022, drift: -0.06 },
  { base: 420, co: 520, nox: 40, ozone: 0, power: 0.8, perDegree: 0.01, perHumidity: 0.001, drift: 0.05 },
  {
    base: 1_500,
    co: -240,
    nox: -420,
    ozone: 0,
    power: 0.5,
    perDegree: -0.006,
    perHumidity: -0.001,
    drift: 0.08,
  },
  { base: 700, co: 210, nox: 470, ozone: 60, power: 0.7, perDegree: 0.012, perHumidity: 0.003, drift: -0.1 },
  {
    base: 480,
    co: 120,
    nox: 330,
    ozone: 300,
    power: 0.75,
    perDegree: -0.008,
    perHumidity: 0.004,
    drift: 0.1,
  },
];

function trafficAt(ms: number): number {
  const hour = hourOf(ms);
  const rush = bump(hour, 8.3, 1.6) + 1.15 * bump(hour, 18.6, 2.2);
  return (weekdayOf(ms) >= 5 ? 0.55 : 1) * rush + 0.35 * bump(hour, 13, 4) + 0.12;
}

function street(seed: number): ScenarioSource {
  const noise = createNoise(seed);
  const still = createWander(noise, 0.96, 0.42);
  const front = createWander(noise, 0.985, 3);
  const wet = createWander(noise, 0.95, 11);
  const mixture = createWander(noise, 0.9, 0.22);
  const gaps = sensors.map(() => createGaps(noise, 0.035, 8));
  let hours = 0;
  const next = (): Cell[] => {
    const ms = beginMs + hours * hourMs;
    hours += 1;
    const season = -Math.cos((2 * Math.PI * (dayOf(ms) - 20)) / yearDays);
    const wave = dayWave(hourOf(ms), 15);
    const temperatureC = 16 + 8 * season + 4.5 * wave + front();
    const humidity = clamp(54 - 9 * season - 14 * wave + wet(), 10, 98);
    // Cold, still air keeps what the cars put into it.
    const co = clamp(1.7 * trafficAt(ms) * Math.exp(still() - 0.25 * season) + 0.25, 0.1, 12);
    const nox = (co / 2) ** 0.9 * Math.exp(mixture());
    const ozone = clamp((0.9 + 0.5 * season) * (0.6 + 0.5 * wave) - 0.25 * nox, 0.05, 3);
    const signals = sensors.map((one, at) => {
      const gas =
        one.co * (co / 2) ** one.power + one.nox * nox ** one.power + one.ozone * ozone ** one.power;
      const weather = 1 + one.perDegree * (temperatureC - 15) + one.perHumidity * (humidity - 50);
      const aged = 1 + (one.drift * hours) / (24 * yearDays);
      const signal = Math.max(150, one.base + gas * weather) * aged * (1 + 0.035 * noise.normal());
      return gaps[at]?.() === true ? missingMark : round(signal, 0);
    });
    return [
      timeText(ms),
      ...signals,
      round(temperatureC + 0.2 * noise.normal(), 1),
      round(humidity, 1),
      round(co, 2),
    ];
  };
  return { next };
}

export const cityAir: Scenario = {
  name: 'city-air',
  title: 'Calibration of cheap gas sensors',
  titleZh: '低成本气体传感器校准',
  about:
    'Five metal oxide sensors at a street, each hour: every one answers to several gases, to temperature and to ' +
    'humidity, and drifts over the months; what is missing is written as −200. Predicted is what the reference ' +
    'instrument beside them says of carbon monoxide, in mg/m³. A reading that is too low keeps a street open that ' +
    'makes people ill; one that is too high closes it, and the next warning is not believed.',
  task: 'regression',
  recipe: {
    target: 'co_mg_m3',
    task: 'regression',
    time: 'time',
    sentinels: [missingMark],
    hidden: [32, 16],
    learningRate: 0.003,
    epochs: 60,
    patience: 10,
  },
  columns: [
    'time',
    'co_sensor',
    'hydrocarbon_sensor',
    'nox_sensor',
    'no2_sensor',
    'ozone_sensor',
    'temperature_c',
    'humidity_percent',
    'co_mg_m3',
  ],
  texts: [],
  rows: 8_760,
  naive: { about: 'the concentration is always its mean over the year, 1.5 mg/m³', answer: () => 1.5 },
  positive: null,
  source: street,
};
