// Why: the requests that wait for one release: bounded, in order, and how long a newcomer would wait.
// Trusts: nothing. Must never: grow beyond its bound by newcomers, or change the order of those that wait.

export interface Queue<Job> {
  /** First to last. */
  readonly jobs: readonly Job[];
  /** False where it is full. */
  add(job: Job): boolean;
  /** Takes back, before those that wait and in this order, what was taken and has to be done again. */
  giveBack(jobs: readonly Job[]): void;
  /** Whether it was there. */
  remove(job: Job): boolean;
  /** All that wait, taken out. */
  clear(): Job[];
}

export function createQueue<Job>(max: number): Queue<Job> {
  const jobs: Job[] = [];
  /** Those at the head that were given back: the next to come back stands behind them. */
  let returned = 0;
  return {
    jobs,
    add: (job) => {
      if (jobs.length >= max) return false;
      jobs.push(job);
      return true;
    },
    giveBack: (again) => {
      jobs.splice(returned, 0, ...again);
      returned += again.length;
    },
    remove: (job) => {
      const at = jobs.indexOf(job);
      if (at < 0) return false;
      jobs.splice(at, 1);
      if (at < returned) returned -= 1;
      return true;
    },
    clear: () => {
      returned = 0;
      return jobs.splice(0);
    },
  };
}

export interface Pace {
  /** So many requests were answered now. */
  answered(count: number, nowMs: number): void;
  /** A run began; idle time before it says nothing about the pace. */
  begun(nowMs: number): void;
  /** Milliseconds until so many are answered, by what was seen lately. */
  waitMs(count: number): number;
}

/** What is assumed before anything was answered. */
const guessMs = 100;
const weight = 0.1;

export function createPace(): Pace {
  let perRequestMs: number | null = null;
  let lastMs = Number.NEGATIVE_INFINITY;
  let begunMs = Number.NEGATIVE_INFINITY;
  return {
    begun: (nowMs) => {
      begunMs = nowMs;
    },
    answered: (count, nowMs) => {
      const spent = (nowMs - Math.max(lastMs, begunMs)) / Math.max(1, count);
      lastMs = nowMs;
      if (!Number.isFinite(spent)) return;
      perRequestMs = perRequestMs === null ? spent : perRequestMs + (spent - perRequestMs) * weight;
    },
    waitMs: (count) => count * (perRequestMs ?? guessMs),
  };
}
