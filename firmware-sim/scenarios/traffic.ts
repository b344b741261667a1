// Why: the scenario of a road: what one loop detector counts each five minutes, and how full the road will be.
// Trusts: nothing. Must never: let what it counts contradict the flow theory that it is made of.
//
// Demand follows the hours and the weekdays. Flow, occupancy and speed hang together by Greenshields' parabola
// (A study of traffic capacity, 1935): where demand exceeds what the road carries, a queue grows, occupancy rises
// and flow falls. Incidents take a part of the capacity for a while.

import { createNoise, type Noise } from '../sensors/noise.ts';
import type { Cell, Scenario, ScenarioSource } from './scenario.ts';
import {
  beginMs,
  between,
  bump,
  clamp,
  createGaps,
  createWander,
  dayWave,
  hourOf,
  round,
  timeText,
  weekdayOf,
} from './signals.ts';

const stepMs = 300_000;
/** Vehicles in five minutes that three lanes carry. */
const capacity = 520;
const freeSpeedKmh = 112;
const incidentsPerStep = 1 / 350;

/** Of the capacity, before weather and chance. */
function demandAt(ms: number): number {
  const hour = hourOf(ms);
  const night = 0.03 + 0.22 * bump(hour, 13, 5);
  if (weekdayOf(ms) >= 5) return night + 0.42 * bump(hour, 14.5, 3.6);
  return night + 0.66 * bump(hour, 7.8, 1.1) + 0.38 * bump(hour, 12.5, 2.5) + 0.7 * bump(hour, 17.2, 1.5);
}

interface Incident {
  stepsLeft: number;
  /** The part of the capacity that it takes. */
  takes: number;
}

function incidentAfter(before: Incident, noise: Noise): Incident {
  if (before.stepsLeft > 0) return { ...before, stepsLeft: before.stepsLeft - 1 };
  if (noise.uniform() >= incidentsPerStep) return { stepsLeft: 0, takes: 0 };
  return { stepsLeft: Math.round(between(noise, 4, 14)), takes: between(noise, 0.3, 0.6) };
}

function road(seed: number): ScenarioSource {
  const noise = createNoise(seed);
  const mood = createWander(noise, 0.97, 0.07);
  const lost = createGaps(noise, 0.02, 6);
  let incident: Incident = { stepsLeft: 0, takes: 0 };
  /** Vehicles that wait, in parts of what five minutes carry. */
  let queue = 0;
  let step = 0;
  const next = (): Cell[] => {
    const ms = beginMs + step * stepMs;
    step += 1;
    incident = incidentAfter(incident, noise);
    const open = incident.stepsLeft > 0 ? 1 - incident.takes : 1;
    const demand = clamp(demandAt(ms) * (1 + mood()) + 0.02 * noise.normal(), 0.01, 1.3);
    queue = clamp(queue + demand - open, 0, 3);
    const carried = Math.min(demand + queue, open) * (1 - 0.12 * Math.min(queue, 1));
    // Below capacity the free branch of the parabola; with a queue the jammed one.
    const free = 0.5 * (1 - Math.sqrt(Math.max(0, 1 - Math.min(carried, 1))));
    const density = queue > 0 ? clamp(0.42 + 0.16 * queue + 0.2 * (1 - open), 0, 0.92) : free;
    const vehicles = Math.max(
      0,
      Math.round(capacity * carried + 0.7 * Math.sqrt(capacity * carried) * noise.normal()),
    );
    const occupancy = clamp(100 * density * 0.62 + 0.5 * noise.normal(), 0.1, 95);
    const speed = clamp(freeSpeedKmh * (1 - density) + 2.5 * noise.normal(), 4, 140);
    const gone = lost();
    const angle = (2 * Math.PI * hourOf(ms)) / 24;
    return [
      timeText(ms),
      gone ? null : vehicles,
      round(occupancy, 1),
      // Nobody passed, or what was measured got lost: there is no speed.
      gone || vehicles < 12 ? null : round(speed, 1),
      round(Math.sin(angle), 4),
      round(dayWave(hourOf(ms), 0), 4),
      weekdayOf(ms) >= 5 ? 1 : 0,
    ];
  };
  return { next };
}

export const traffic: Scenario = {
  name: 'traffic',
  title: 'Congestion half an hour ahead',
  titleZh: '半小时交通拥堵预测',
  about:
    'A loop detector in a motorway with three lanes: each five minutes how many vehicles passed, which part of the ' +
    'time one stood over the loop (the occupancy), and how fast they were; with rush hours, weekends and incidents. ' +
    'Predicted from the past hour is the occupancy in 30 minutes, in percent. Too low, and the queue is there before ' +
    'the signs slow anybody down; too high, and drivers learn that the signs are wrong.',
  task: 'forecast',
  recipe: {
    target: 'occupancy_percent',
    task: 'forecast',
    features: ['vehicles', 'occupancy_percent', 'speed_kmh', 'day_sin', 'day_cos', 'weekend'],
    time: 'time',
    window: 12,
    horizon: 6,
    windowFeatures: ['lags'],
    hidden: [32],
    learningRate: 0.002,
    epochs: 30,
    patience: 6,
  },
  columns: ['time', 'vehicles', 'occupancy_percent', 'speed_kmh', 'day_sin', 'day_cos', 'weekend'],
  texts: [],
  rows: 8_064,
  naive: { about: 'it stays as full as it is now', answer: (row) => row[2] ?? null },
  positive: null,
  source: road,
};
