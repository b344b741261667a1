// Why: `lepton-sim sensor`: a scenario's sensor beside an agent, which asks it about each row as it comes.
// Trusts: nothing of the agent but its HTTP answers. Must never: skip a row because the agent was not ready, or
// count what was not answered.

import { writeOut } from '../../registry/cli/output.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { speaker } from '../../shared/host/speech.ts';
import { asFleetError, FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { encodeInferRequest, parseInferResponse } from '../../shared/wire/oip-json.ts';
import {
  createFeed,
  createScore,
  type Fed,
  fedColumns,
  type Prediction,
  readPrediction,
  scoreText,
} from '../scenarios/feeding.ts';
import { findScenario } from '../scenarios/known.ts';
import type { Scenario } from '../scenarios/scenario.ts';

export interface SensorFlags {
  /** The agent's URL. */
  agent: string;
  /** NAME, or NS/NAME, of which the agent serves NAME. */
  model: string;
  seed: number;
  /** From one row to the next, in milliseconds; 0: as fast as it is answered. */
  every: number;
  /** Answers after which it ends. */
  count?: number;
  json: boolean;
}

const requestMs = 15_000;
const backoffMs = { first: 200, max: 5_000 };
/** Of an agent's refusal, in a line for a person. */
const refusalCharsMax = 300;

function inferUrl({ agent, model }: SensorFlags): string {
  let base: URL;
  try {
    base = new URL(agent);
  } catch (cause) {
    throw new FleetError('config-invalid', `--agent: ${agent} is no URL`, { cause });
  }
  if (base.protocol !== 'http:' && base.protocol !== 'https:')
    throw new FleetError('config-invalid', `--agent: expected http://… or https://…, not ${agent}`);
  const name = /^(?:[a-z0-9][a-z0-9-]{0,62}\/)?([a-z0-9][a-z0-9-]{0,62})$/.exec(model)?.[1];
  if (name === undefined)
    throw new FleetError('config-invalid', `--model: expected NAME or NS/NAME, not ${model}`);
  return `${base.href.replace(/\/+$/, '')}/v2/models/${name}/infer`;
}

/** The first signal ends it after the request under way is given up; the second at once. */
function stopSignal(): { signal: AbortSignal; leave: () => void; stop: () => void } {
  const stopping = new AbortController();
  const onSignal = (): void => {
    if (stopping.signal.aborted) process.exit(1);
    stopping.abort();
  };
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.on(signal, onSignal);
  return {
    signal: stopping.signal,
    stop: () => stopping.abort(),
    leave: () => {
      for (const signal of signals) process.off(signal, onSignal);
    },
  };
}

/**
 * Runs `work` with a word of when to give up: at the signal or after `ms`. Listeners go with it: a sensor lives for
 * millions of rows.
 */
async function within<T>(
  ms: number,
  signal: AbortSignal,
  work: (end: AbortSignal) => Promise<T>,
): Promise<T> {
  const giveUp = new AbortController();
  const timer = systemClock.timer(ms);
  const onEnd = (): void => giveUp.abort();
  void timer.done.then(onEnd);
  signal.addEventListener('abort', onEnd, { once: true });
  if (signal.aborted) onEnd();
  try {
    return await work(giveUp.signal);
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', onEnd);
  }
}

/** Ends early where the signal comes. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return within(
    ms,
    signal,
    (end) =>
      new Promise((resolve) => {
        if (end.aborted) resolve();
        else end.addEventListener('abort', () => resolve(), { once: true });
      }),
  );
}

type Asked = { kind: 'answered'; body: Uint8Array } | { kind: 'later' | 'refused'; why: string };

async function ask(url: string, body: Uint8Array, signal: AbortSignal): Promise<Asked> {
  const headers = { 'content-type': 'application/json' };
  try {
    return await within(requestMs, signal, async (end) => {
      const response = await fetch(url, { method: 'POST', headers, body, signal: end });
      const bytes = new Uint8Array(await response.arrayBuffer());
      const { status } = response;
      if (status === 200) return { kind: 'answered', body: bytes };
      const why = `${status}: ${new TextDecoder().decode(bytes).slice(0, refusalCharsMax)}`;
      // 404: a device that waits for its first model. From 500 on and with the other two it passes as well.
      const passes = [404, 408, 429].includes(status) || (status >= 500 && status !== 501);
      return { kind: passes ? 'later' : 'refused', why };
    });
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { kind: 'later', why: asFleetError(cause).message };
  }
}

/** The answer's bytes, however long it takes; null where it was stopped before. */
async function untilAnswered(url: string, body: Uint8Array, signal: AbortSignal): Promise<Uint8Array | null> {
  let told = '';
  for (let waitMs = backoffMs.first; !signal.aborted; waitMs = Math.min(2 * waitMs, backoffMs.max)) {
    const asked = await ask(url, body, signal);
    if (asked.kind === 'answered') return asked.body;
    if (signal.aborted) return null;
    if (asked.kind === 'refused')
      throw new FleetError('infer-invalid', `the agent refused it, ${asked.why}`, {
        hint: 'is this a model of this scenario, trained on its columns?',
      });
    if (asked.why !== told) process.stderr.write(speaker().lines(`waiting for ${url}: ${asked.why}\n`));
    told = asked.why;
    await sleep(waitMs, signal);
  }
  return null;
}

function lineOf(fed: Fed, { value, score }: Prediction, ahead: number, json: boolean): string {
  const { row, truth } = fed;
  if (json)
    return JSON.stringify({
      row,
      ...(ahead === 0 ? {} : { truthRow: row + ahead }),
      prediction: value,
      ...(score === null ? {} : { score }),
      truth,
    });
  const short = (one: number | string): string =>
    typeof one === 'number' && !Number.isInteger(one) ? one.toFixed(3) : String(one);
  const scored = score === null ? '' : `  score ${score.toFixed(3)}`;
  const when = ahead === 0 ? '' : ` of row ${row + ahead}`;
  return `row ${row}  prediction ${short(value)}${scored}  truth${when} ${short(truth)}`;
}

/** Feeds until `count` answers or a signal; the last line says how well it was answered. */
export async function sensor(name: string, flags: SensorFlags): Promise<void> {
  const scenario: Scenario = unwrap(findScenario(name));
  const url = inferUrl(flags);
  const { ahead } = fedColumns(scenario);
  const feed = createFeed(scenario, flags.seed);
  const running = createScore(scenario);
  const shown = (text: string): string => (flags.json ? text : speaker().lines(text));
  const { signal, stop, leave } = stopSignal();
  try {
    for (let left = flags.count ?? Number.POSITIVE_INFINITY; left > 0 && !signal.aborted; left -= 1) {
      const beganMs = systemClock.mono();
      const fed = feed.next();
      const answer = await untilAnswered(url, encodeInferRequest(fed.request), signal);
      if (answer === null) break;
      const prediction = unwrap(readPrediction(scenario, unwrap(parseInferResponse(answer))));
      running.add(fed, prediction);
      // Nobody reads on: there is nobody to feed for.
      if (!(await writeOut(`${shown(lineOf(fed, prediction, ahead, flags.json))}\n`))) stop();
      if (left > 1) await sleep(Math.max(0, flags.every - (systemClock.mono() - beganMs)), signal);
    }
    const score = running.score();
    await writeOut(
      `${flags.json ? JSON.stringify({ summary: { scenario: name, seed: flags.seed, ...score } }) : shown(scoreText(scenario, score))}\n`,
    );
  } finally {
    leave();
  }
}
