// Why: the program beside an agent that every device has: it reads a machine's sensors, asks the agent's local
// API for a verdict and writes down what it saw. Trusts: nothing of the agent but its HTTP answers.
// Must never: hide a failed request by asking again, or count a record whose append was not answered.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import { encodeInferRequest, parseInferResponse } from '../../shared/wire/oip-json.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import {
  channels,
  type Machine,
  type MachineWindow,
  type Regime,
  regimes,
  windowSamples,
} from './machine.ts';
import { windowFeatures } from './window-features.ts';

export interface ApplicationOptions {
  machine: Machine;
  /** Name of the machine in the records. */
  name: string;
  /** The agent's URL. */
  agentUrl: string;
  /** `NS/NAME`; the agent serves it under NAME. */
  model: string;
  /** From one window to the next. */
  everyMs: number;
  /** Windows whose records go in one append. Default 5. */
  windowsPerAppend?: number;
  clock: Clock;
  fetch: typeof fetch;
}

export interface Verdict {
  version: string;
  regime: Regime;
  truth: Regime;
  wear: number;
}

export interface ApplicationCounts {
  /** Requests that were answered with a verdict, and those that were not, since the model first served. */
  answered: number;
  failed: number;
  /** The first failure in words. */
  firstFailure: string | null;
  /** Answers by the release's version, and how many of them were the truth. */
  byVersion: Record<string, { answered: number; right: number }>;
  /** Records whose append was answered, those that wait for one, and those given up. */
  appended: number;
  waiting: number;
  lost: number;
  /** Why the last append was refused, null after one that was not. */
  appendRefused: string | null;
  last: Verdict | null;
}

export interface Application {
  counts(): ApplicationCounts;
  /** Stops reading the sensors, after the request under way; records that wait are appended still. */
  pause(): Promise<void>;
  resume(): void;
  /** Ends it at once; what waits is left. Idempotent. */
  stop(): Promise<void>;
}

const requestMs = 15_000;
const readyEveryMs = 200;
/** Records kept while the agent does not take them: more than an hour at one window in two seconds. */
const waitingMax = 5_000;

interface AppRecord {
  timeMs: number;
  release: string;
  data: Record<string, string | number>;
}

export function startApplication(options: ApplicationOptions): Application {
  const { machine, clock } = options;
  const served = options.model.split('/')[1] ?? options.model;
  const base = `${options.agentUrl}/v2/models/${served}`;
  const perAppend = options.windowsPerAppend ?? 5;
  const counts: ApplicationCounts = {
    answered: 0,
    failed: 0,
    firstFailure: null,
    byVersion: {},
    appended: 0,
    waiting: 0,
    lost: 0,
    appendRefused: null,
    last: null,
  };
  let records: AppRecord[] = [];
  let stopped = false;
  let paused = false;
  let nap: Timer | null = null;
  let wake: () => void = () => undefined;
  let settle: () => void = () => undefined;
  const ended = new AbortController();

  const sleep = async (ms: number): Promise<void> => {
    const timer = clock.timer(ms);
    nap = timer;
    const woken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    await Promise.race([timer.done, woken]);
    timer.cancel();
    nap = null;
  };

  /** Status and body; status 0 where there was no answer. */
  const ask = async (
    path: string,
    body?: Uint8Array | string,
    type = 'application/json',
  ): Promise<{ status: number; body: Uint8Array }> => {
    const giveUp = new AbortController();
    const timer = clock.timer(requestMs);
    void timer.done.then(() => giveUp.abort());
    const onEnd = (): void => giveUp.abort();
    ended.signal.addEventListener('abort', onEnd, { once: true });
    if (ended.signal.aborted) onEnd();
    try {
      const response = await options.fetch(path, {
        ...(body === undefined ? {} : { method: 'POST', headers: { 'content-type': type }, body }),
        signal: giveUp.signal,
      });
      return { status: response.status, body: new Uint8Array(await response.arrayBuffer()) };
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      return { status: 0, body: new TextEncoder().encode(asFleetError(cause).message) };
    } finally {
      timer.cancel();
      ended.signal.removeEventListener('abort', onEnd);
    }
  };

  /** An application has nothing to ask before the device was given its first model. */
  const untilServed = async (): Promise<void> => {
    while (!stopped && (await ask(`${base}/ready`)).status !== 200) {
      if (paused) settle();
      await sleep(readyEveryMs);
    }
  };

  const fail = (what: string): void => {
    // What its own end cut off says nothing about the agent.
    if (stopped) return;
    counts.failed += 1;
    counts.firstFailure ??= what;
  };

  const judge = async (window: MachineWindow): Promise<void> => {
    const timeMs = clock.wall();
    const answer = await ask(`${base}/infer`, encodeInferRequest({ inputs: [tensorOf(window)] }));
    if (answer.status !== 200) {
      fail(`${answer.status === 0 ? 'no answer' : `HTTP ${answer.status}`}: ${textOf(answer.body)}`);
      return;
    }
    const parsed = parseInferResponse(answer.body);
    if (!parsed.ok) return fail(parsed.refusal.detail);
    const { modelVersion, outputs } = parsed.value;
    const regime = regimes[Number(outputs.find(({ name }) => name === 'label')?.data[0] ?? -1)];
    if (regime === undefined) return fail(`${served} ${modelVersion} named no regime`);
    counts.answered += 1;
    const tally = counts.byVersion[modelVersion] ?? { answered: 0, right: 0 };
    counts.byVersion[modelVersion] = tally;
    tally.answered += 1;
    if (regime === window.regime) tally.right += 1;
    counts.last = { version: modelVersion, regime, truth: window.regime, wear: window.wear };
    records.push(recordOf(window, timeMs, modelVersion, regime));
    if (records.length > waitingMax) {
      records.shift();
      counts.lost += 1;
    }
    counts.waiting = records.length;
  };

  const recordOf = (window: MachineWindow, timeMs: number, version: string, regime: Regime): AppRecord => {
    const { level, rms } = windowFeatures(window.samples);
    const [temperature = 0, , current = 0] = level;
    return {
      timeMs,
      release: `${options.model}@${version}`,
      data: {
        machine: options.name,
        window: window.index,
        regime,
        temperatureC: rounded(temperature),
        vibrationRmsMmS: rounded(rms[1] ?? 0),
        currentA: rounded(current),
      },
    };
  };

  const append = async (): Promise<void> => {
    if (records.length === 0) return;
    const sent = records;
    const body = `${sent.map((record) => JSON.stringify(record)).join('\n')}\n`;
    const answer = await ask(`${options.agentUrl}/telemetry/v1/records`, body, 'application/x-ndjson');
    if (answer.status === 200) {
      counts.appended += sent.length;
      counts.appendRefused = null;
      records = records.slice(sent.length);
    } else {
      counts.appendRefused = `HTTP ${answer.status}: ${textOf(answer.body)}`;
      // 5xx and no answer: later. Anything else would be refused again.
      if (answer.status >= 400 && answer.status < 500) {
        counts.lost += sent.length;
        records = records.slice(sent.length);
      }
    }
    counts.waiting = records.length;
  };

  const live = async (): Promise<void> => {
    await untilServed();
    let next = clock.mono();
    for (let round = 1; !stopped; round += 1) {
      if (paused) {
        await append();
        settle();
        await sleep(options.everyMs);
        next = clock.mono();
        continue;
      }
      await judge(machine.window());
      if (round % perAppend === 0) await append();
      // A slow answer does not make the machine slower, nor pile up requests.
      next = Math.max(next + options.everyMs, clock.mono());
      await sleep(next - clock.mono());
    }
  };

  const life = live();
  return {
    counts: () => ({ ...counts, byVersion: structuredClone(counts.byVersion) }),
    pause: async () => {
      const settled = new Promise<void>((resolve) => {
        settle = resolve;
      });
      paused = true;
      wake();
      await Promise.race([settled, life]);
    },
    resume: () => {
      paused = false;
      wake();
    },
    stop: async () => {
      stopped = true;
      ended.abort();
      nap?.cancel();
      wake();
      await life;
    },
  };
}

function tensorOf(window: MachineWindow): Tensor {
  return {
    name: 'values',
    datatype: 'FP32',
    shape: [1, windowSamples, channels.length],
    data: window.samples,
  };
}

function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}

/** The agent's `{"error": …}`, or the start of whatever it said. */
function textOf(body: Uint8Array): string {
  return new TextDecoder().decode(body.subarray(0, 300));
}
