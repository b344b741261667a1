// Why: by which way files come: over the bus or over HTTPS, and when the other one is tried (DESIGN 7). The choice is
// pure. Trusts: what became of earlier questions. Must never: change the way for what another way would not cure, or ask
// for anything but files outside of the bus.

import type { Fetcher, Log } from '../../shared/kernel/ports.ts';
import { refuse } from '../../shared/kernel/result.ts';

export type Way = 'mqtt' | 'https';
export const transportModes = ['auto', 'mqtt', 'https'] as const;
export type TransportMode = (typeof transportModes)[number];

/** Questions without an answer in a row, and tries that were too slow, after which the other way is taken. */
const unansweredMax = 3;
const slowMax = 2;

export interface TransportChoice {
  way(): Way;
  /** Counts what fails together once: to be handed to `failed` with what was asked then. */
  moment(): number;
  /** True where the other way is taken from here on. */
  failed(code: string, askedAt: number): boolean;
  answered(): void;
  tooSlow(): boolean;
  /** The broker speaks no HTTPS: false where nothing else may be tried. */
  absent(): boolean;
}

export function chooseTransport(asked: TransportMode): TransportChoice {
  let mode = asked;
  let way: Way = mode === 'https' ? 'https' : 'mqtt';
  let unanswered = 0;
  let slow = 0;
  let moment = 0;

  function weigh(): boolean {
    moment += 1;
    if (mode !== 'auto' || (unanswered < unansweredMax && slow < slowMax)) return false;
    way = way === 'mqtt' ? 'https' : 'mqtt';
    unanswered = 0;
    slow = 0;
    return true;
  }

  return {
    way: () => way,
    moment: () => moment,
    failed: (code, askedAt) => {
      if (code !== 'fetch-timeout' || askedAt !== moment) return false;
      unanswered += 1;
      return weigh();
    },
    // Slow tries are made of answers: these are no reason to forget them.
    answered: () => {
      unanswered = 0;
    },
    tooSlow: () => {
      slow += 1;
      return weigh();
    },
    absent: () => {
      if (mode !== 'auto') return false;
      // A broker of another maker: it will not learn it.
      mode = 'mqtt';
      way = 'mqtt';
      return true;
    },
  };
}

/** Files by the way chosen, everything else over the bus. */
export function createTransport(parts: {
  ways: Record<Way, Fetcher>;
  choice: TransportChoice;
  /** Without a session the device may not be who it was: nothing is fetched then. */
  online(): boolean;
  log: Log;
}): Fetcher {
  const { ways, choice, log } = parts;
  const changed = (): void => log.emit('warn', 'fetch.transport', { way: choice.way() });
  return {
    range: async (target, offset, length, onPiece) => {
      if (target.kind !== 'blob') return ways.mqtt.range(target, offset, length);
      if (!parts.online()) return refuse('bus-offline', 'no connection to the broker');
      const askedAt = choice.moment();
      const answer = await ways[choice.way()].range(target, offset, length, onPiece);
      if (!answer.ok && answer.refusal.code === 'not-implemented' && choice.absent()) {
        changed();
        return ways.mqtt.range(target, offset, length, onPiece);
      }
      if (answer.ok) choice.answered();
      else if (choice.failed(answer.refusal.code, askedAt)) changed();
      return answer;
    },
    tooSlow: () => {
      if (choice.tooSlow()) changed();
    },
  };
}
