// Why: what people, and bad luck with a name, do to one fleet: releases and rollouts, restarts, backups, partitions.
// Trusts: the seed. Must never: depend on how the fleet fares; the list stands before the world begins.

import { draw, drawInt } from '../chance.ts';
import { type ReleaseKind, releaseKinds } from './publisher.ts';
import type { WorldTerms } from './terms.ts';
import { drawWindows, type WindowChoice } from './windows.ts';

export interface RolloutChoice {
  /** Two waves, one of everything, three. */
  waves: { count?: number; percent?: number; soakMs: number }[];
  shadow: boolean;
  success: number | null;
  onGateFailure: 'rollback' | 'pause';
  site: string | null;
  unreachable: 'wait' | 'ignore' | 'fail';
  /** Times production's hour and minutes: short ones are missed. */
  deadlineMs: { fetching: number; probing: number; shadowing: number };
  /** Devices of one site at a time, and sites at a time. */
  disruption: { maxUnavailable: number; maxSites: number | null } | null;
  /** In place of the waves. */
  growth: { start: number; factor: number; soakMs: number } | null;
  priority: number;
  queue: boolean;
  /** People who have to allow the first wave; the operators are slow, and sometimes too slow. */
  approvals: { required: number; expiresMs: number } | null;
  windows: WindowChoice | null;
  /** With a good release of the other model, all or none. */
  together: boolean;
}

export type Act =
  | { kind: 'release'; model: string; release: ReleaseKind; rollout: RolloutChoice }
  /** Back to a release that was pushed before. */
  | { kind: 'roll-out-older'; model: string; back: number; rollout: RolloutChoice }
  | { kind: 'abort'; revert: boolean | null }
  | { kind: 'pause'; ms: number }
  | { kind: 'retry' }
  | { kind: 'floor'; model: string }
  | { kind: 'withdraw'; model: string }
  | { kind: 'label'; device: number; site: string }
  | { kind: 'revoke'; device: number }
  | { kind: 'rotate-authority' }
  | { kind: 'device-power'; device: number; downMs: number }
  | { kind: 'device-crash'; device: number }
  | { kind: 'device-restart'; device: number }
  | { kind: 'device-joins' }
  | { kind: 'partition'; device: number | null; ms: number }
  | { kind: 'registry-crash'; how: 'cut' | 'exit'; downMs: number }
  | { kind: 'registry-restart' }
  | { kind: 'backup' }
  | { kind: 'restore'; downMs: number }
  | { kind: 'twin'; ms: number }
  | { kind: 'thief'; device: number; ms: number }
  | { kind: 'clock'; device: number; ms: number }
  | { kind: 'clock-sync'; device: number }
  /** Somebody at the device says "not now" for so long; null takes it back. */
  | { kind: 'defer'; device: number; ms: number | null }
  | { kind: 'attack'; how: AttackKind; device: number };

export const attackKinds = [
  'replay-assignment',
  'forge-assignment',
  'other-device-assignment',
  'forge-acknowledgement',
  'forge-time',
  'forge-report',
  'replay-report',
  'forge-telemetry',
  'garbage',
  'tamper',
] as const;
export type AttackKind = (typeof attackKinds)[number];

export interface Step {
  number: number;
  atMs: number;
  act: Act;
}

const minuteMs = 60_000;
const badKinds = releaseKinds.filter((kind) => kind !== 'good');
export const sites = ['north', 'south'] as const;

/** How often each act is drawn; a seed leaves some kinds out, so that others meet more often. */
const weights: Record<Act['kind'], number> = {
  release: 30,
  'roll-out-older': 6,
  abort: 5,
  pause: 3,
  retry: 3,
  floor: 3,
  withdraw: 3,
  label: 4,
  revoke: 1,
  'rotate-authority': 2,
  'device-power': 10,
  'device-crash': 4,
  'device-restart': 4,
  'device-joins': 3,
  partition: 8,
  'registry-crash': 6,
  'registry-restart': 3,
  backup: 4,
  restore: 4,
  twin: 2,
  thief: 2,
  clock: 3,
  'clock-sync': 2,
  attack: 8,
  defer: 14,
};

/** Whether a world draws an act at all; one that is new must not move the draws of an earlier generation. */
function isDrawn(kind: Act['kind'], seed: number, terms: WorldTerms): boolean {
  if (kind === 'release') return true;
  if (kind === 'defer') return terms.windowed;
  if ((kind === 'pause' || kind === 'retry') && terms.generation < 2) return false;
  return draw(seed, 'act', kind) < 0.6;
}

export function drawScenario(seed: number, terms: WorldTerms): Step[] {
  const kinds = (Object.keys(weights) as Act['kind'][]).filter((kind) => isDrawn(kind, seed, terms));
  const total = kinds.reduce((sum, kind) => sum + weights[kind], 0);
  const count = drawInt(3, 16, seed, 'acts');
  const times = Array.from({ length: count }, (_, index) =>
    index === 0 ? drawInt(1_000, 60_000, seed, 'first') : drawInt(0, terms.chaosMs, seed, 'at', index),
  ).sort((a, b) => a - b);
  return times.map((atMs, number) => {
    let left = draw(seed, 'which', number) * total;
    let kind: Act['kind'] = 'release';
    for (const one of number === 0 ? [] : kinds) {
      kind = one;
      left -= weights[one];
      if (left < 0) break;
    }
    return { number, atMs, act: drawAct(seed, number, kind, terms) };
  });
}

function drawAct(seed: number, number: number, kind: Act['kind'], terms: WorldTerms): Act {
  const int = (low: number, high: number, name: string): number =>
    drawInt(low, high, seed, 'act', number, name);
  const chance = (name: string): number => draw(seed, 'act', number, name);
  const model = terms.models[int(0, terms.models.length - 1, 'model')] ?? 'alpha';
  const device = int(0, terms.devices - 1, 'device');
  switch (kind) {
    case 'release': {
      const good = number === 0 || chance('good') < 0.6;
      const bad = badKinds[int(0, badKinds.length - 1, 'bad')] ?? 'bad-golden';
      return { kind, model, release: good ? 'good' : bad, rollout: drawRollout(seed, number, terms) };
    }
    case 'roll-out-older':
      return { kind, model, back: int(1, 3, 'back'), rollout: drawRollout(seed, number, terms) };
    case 'abort':
      return { kind, revert: chance('revert') < 0.4 ? true : chance('keep') < 0.5 ? false : null };
    case 'pause':
      return { kind, ms: int(minuteMs, 30 * minuteMs, 'ms') };
    case 'floor':
    case 'withdraw':
      return { kind, model };
    case 'label':
      return { kind, device, site: sites[int(0, 1, 'site')] ?? 'north' };
    case 'revoke':
    case 'device-crash':
    case 'device-restart':
    case 'clock-sync':
      return { kind, device };
    case 'device-power':
      return { kind, device, downMs: int(100, chance('long') < 0.2 ? 90 * minuteMs : 5 * minuteMs, 'down') };
    case 'partition':
      return { kind, device: chance('all') < 0.3 ? null : device, ms: int(1_000, 20 * minuteMs, 'ms') };
    case 'registry-crash':
      return { kind, how: chance('how') < 0.6 ? 'cut' : 'exit', downMs: int(500, 10 * minuteMs, 'down') };
    case 'restore':
      return { kind, downMs: int(5_000, 10 * minuteMs, 'down') };
    case 'twin':
      return { kind, ms: int(minuteMs, 20 * minuteMs, 'ms') };
    case 'thief':
      return { kind, device, ms: int(2 * minuteMs, 30 * minuteMs, 'ms') };
    case 'clock': {
      const far = chance('far') < 0.3;
      const days = int(-500, 500, 'days');
      return { kind, device, ms: far ? days * 86_400_000 : days * 5_000 };
    }
    case 'defer':
      return { kind, device, ms: chance('clear') < 0.2 ? null : int(minuteMs, 90 * minuteMs, 'ms') };
    case 'attack':
      return { kind, device, how: attackKinds[int(0, attackKinds.length - 1, 'how')] ?? 'garbage' };
    default:
      return { kind };
  }
}

function drawRollout(seed: number, number: number, terms: WorldTerms): RolloutChoice {
  const chance = (name: string): number => draw(seed, 'rollout', number, name);
  const newer = (name: string, share: number): boolean => terms.generation >= 2 && chance(name) < share;
  const soak = (name: string): number =>
    chance(name) < 0.4 ? 0 : drawInt(1_000, 6 * minuteMs, seed, 'rollout', number, name, 'ms');
  const within = (name: string, minutes: number): number =>
    chance(name) < 0.25 ? drawInt(2_000, 60_000, seed, 'rollout', number, name, 'ms') : minutes * minuteMs;
  const shape = chance('shape');
  const waves =
    shape < 0.4
      ? [{ percent: 100, soakMs: soak('a') }]
      : shape < 0.8
        ? [
            { count: 1, soakMs: soak('a') },
            { percent: 100, soakMs: soak('b') },
          ]
        : [
            { count: 1, soakMs: soak('a') },
            { percent: 50, soakMs: soak('b') },
            { percent: 100, soakMs: soak('c') },
          ];
  return {
    waves,
    shadow: chance('shadow') < 0.3,
    success: chance('success') < 0.3 ? 0.5 : null,
    onGateFailure: chance('pause') < 0.2 ? 'pause' : 'rollback',
    site: chance('site') < 0.2 ? (sites[chance('which') < 0.5 ? 0 : 1] ?? null) : null,
    unreachable: chance('away') < 0.6 ? 'wait' : chance('ignore') < 0.5 ? 'ignore' : 'fail',
    deadlineMs: {
      fetching: within('fetching', 20),
      probing: within('probing', 5),
      shadowing: within('shadowing', 6),
    },
    disruption: newer('disruption', 0.2)
      ? { maxUnavailable: chance('bound') < 0.7 ? 1 : 2, maxSites: chance('sites') < 0.5 ? 1 : null }
      : null,
    growth: newer('growth', 0.12)
      ? { start: 1, factor: chance('factor') < 0.5 ? 2 : 3, soakMs: soak('growth-soak') }
      : null,
    priority: newer('priority', 0.15) ? drawInt(-1, 2, seed, 'rollout', number, 'height') : 0,
    queue: newer('queue', 0.2),
    approvals: newer('approvals', 0.12)
      ? {
          required: chance('two') < 0.5 ? 2 : 1,
          expiresMs: (chance('expires') < 0.3 ? 1 : 60) * minuteMs,
        }
      : null,
    windows: terms.windowed ? drawWindows(seed, number) : null,
    together: terms.bundled && chance('together') < 0.6,
  };
}
