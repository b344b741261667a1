// Why: the windows of one world's rollouts, and the zones in which its devices stand. Trusts: the seed.
// Must never: draw windows that are closed so long that a fleet could not come to rest.

import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import { draw, drawInt } from '../chance.ts';

export type WindowChoice = NonNullable<RolloutSpec['windows']>;

const zones = [
  'Pacific/Auckland',
  'Europe/Berlin',
  'America/Denver',
  'Asia/Kathmandu',
  'Australia/Lord_Howe',
  'UTC',
] as const;

export function drawZone(seed: number, node: string): string {
  return zones[drawInt(0, zones.length - 1, seed, 'zone', node)] ?? 'UTC';
}

const dayMinutes = 24 * 60;

function clockText(minute: number): string {
  const of = minute % dayMinutes;
  return `${String(Math.floor(of / 60)).padStart(2, '0')}:${String(of % 60).padStart(2, '0')}`;
}

/** Every two to four hours open for some of them. */
function drawDay(seed: number, ...key: (string | number)[]): { from: string; to: string }[] {
  const everyMinutes = drawInt(2, 4, seed, ...key, 'every') * 60;
  const openMinutes = drawInt(30, 80, seed, ...key, 'open');
  const first = drawInt(0, everyMinutes - 1, seed, ...key, 'first');
  return Array.from({ length: dayMinutes / everyMinutes }, (_, index) => {
    const from = first + index * everyMinutes;
    return { from: clockText(from), to: clockText(from + openMinutes) };
  });
}

/** Of the rollout that a step begins; null: it has none. */
export function drawWindows(seed: number, step: number): WindowChoice | null {
  const chance = (name: string): number => draw(seed, 'windows', step, name);
  if (chance('any') < 0.25) return null;
  const download = chance('download') < 0.6;
  const activate = !download || chance('activate') < 0.7;
  return {
    ...(download ? { download: drawDay(seed, 'windows', step, 'download') } : {}),
    ...(activate ? { activate: drawDay(seed, 'windows', step, 'activate') } : {}),
    deferMax: drawInt(0, 30, seed, 'windows', step, 'defer') * 60_000,
  };
}
