// Why: the scenario of a grid: the hourly load of one transformer, and what it will be tomorrow at this hour.
// Trusts: nothing. Must never: give away tomorrow's load; tomorrow's calendar and weather forecast are known today.

import { createNoise } from '../sensors/noise.ts';
import type { Cell, Scenario, ScenarioSource } from './scenario.ts';
import {
  beginMs,
  bump,
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

const aheadHours = 24;
const yearDays = 365.25;

/** Days of the first year on which nobody works, counted from 0; the same days after each 366. */
const holidays = new Set([0, 91, 120, 121, 129, 140, 227, 276, 304, 358, 359, 365]);

function isWorkday(ms: number): boolean {
  return weekdayOf(ms) < 5 && !holidays.has(dayOf(ms) % 366);
}

/** What a day would be like without weather fronts, °C. */
function climateC(ms: number): number {
  const season = -Math.cos((2 * Math.PI * (dayOf(ms) - 20)) / yearDays);
  return 11 + 10 * season + (3 + 1.5 * season) * dayWave(hourOf(ms), 15);
}

/** kW, of homes that heat and cool with electricity and of shops and offices. */
function loadKw(ms: number, temperatureC: number): number {
  const hour = hourOf(ms);
  const homes = 62 + 40 * bump(hour, 19, 2.4) + 18 * bump(hour, 7.5, 1.6) - 20 * bump(hour, 3, 2.5);
  const work = isWorkday(ms) ? 78 * bump(hour, 12.5, 3.6) : 24 * bump(hour, 13, 3);
  const heating = 3.1 * Math.max(0, 15 - temperatureC) * (0.8 + 0.3 * bump(hour, 7, 2.5));
  const cooling = 4.2 * Math.max(0, temperatureC - 22) * (0.3 + 0.9 * bump(hour, 15, 4));
  return homes + work + heating + cooling;
}

interface Hour {
  ms: number;
  temperatureC: number;
  kw: number;
}

function transformer(seed: number): ScenarioSource {
  const noise = createNoise(seed);
  const front = createWander(noise, 0.985, 3.2);
  const habit = createWander(noise, 0.9, 0.03);
  const unplugged = createGaps(noise, 0.015, 5);
  let made = 0;
  const makeHour = (): Hour => {
    const ms = beginMs + made * hourMs;
    made += 1;
    const temperatureC = climateC(ms) + front();
    return { ms, temperatureC, kw: loadKw(ms, temperatureC) * (1 + habit()) + 2 * noise.normal() };
  };
  /** Today, while tomorrow's hours are made behind it. */
  const hours = Array.from({ length: aheadHours }, makeHour);
  const next = (): Cell[] => {
    const then = makeHour();
    hours.push(then);
    const { ms, temperatureC, kw } = hours.shift() ?? then;
    const forecastC = then.temperatureC + 1.3 * noise.normal();
    const angle = (2 * Math.PI * hourOf(ms)) / 24;
    return [
      timeText(ms),
      round(kw, 1),
      unplugged() ? null : round(temperatureC + 0.3 * noise.normal(), 1),
      round(forecastC, 1),
      isWorkday(ms) ? 1 : 0,
      isWorkday(ms + aheadHours * hourMs) ? 1 : 0,
      round(Math.sin(angle), 4),
      round(Math.cos(angle), 4),
    ];
  };
  return { next };
}

export const energy: Scenario = {
  name: 'energy',
  title: 'Load of a transformer a day ahead',
  titleZh: '变压器日前负荷预测',
  about:
    'The hourly load of a transformer in kW, over homes that heat and cool with electricity, and shops and offices ' +
    'that close on weekends and holidays; with the temperature, the forecast of tomorrow’s, and the calendar. ' +
    'Predicted is the load in 24 hours. Too low, and the missing power is bought at the last hour’s price or the ' +
    'transformer runs hot; too high, and power was bought that nobody takes.',
  task: 'forecast',
  recipe: {
    target: 'load_kw',
    task: 'forecast',
    features: [
      'load_kw',
      'temperature_c',
      'temperature_tomorrow_c',
      'workday',
      'workday_tomorrow',
      'day_sin',
      'day_cos',
    ],
    time: 'time',
    window: 6,
    horizon: aheadHours,
    windowFeatures: ['lags'],
    hidden: [48, 24],
    learningRate: 0.002,
    epochs: 30,
    patience: 6,
    split: 0.8,
  },
  columns: [
    'time',
    'load_kw',
    'temperature_c',
    'temperature_tomorrow_c',
    'workday',
    'workday_tomorrow',
    'day_sin',
    'day_cos',
  ],
  texts: [],
  rows: 17_520,
  naive: { about: 'tomorrow at this hour is as now', answer: (row) => row[1] ?? null },
  positive: null,
  source: transformer,
};
