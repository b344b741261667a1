// Why: one run of a process, for one request or several joined: what each of them gets, and which must run again.
// Trusts: inputs that were checked. Must never: blame a request for what another one did, or give it what was
// computed in company that changes answers.

import { type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import type { BatchTrial } from './batch-trial.ts';
import { cutOutputs, joinInputs } from './batching.ts';
import type { Seat } from './keeper.ts';
import type { ChildReply } from './pipe.ts';
import { type InputAhead, neverBegun, type Told } from './process.ts';

/** A request as a run sees it. */
export interface Runnable {
  inputs: Tensor[];
  outputs: string[];
  /** Its input may be in a process already. */
  ahead: InputAhead | undefined;
  /** Null: it runs alone. */
  part: { key: string; rows: number } | null;
  /** Deaths of a process under it, until it is to blame. */
  deathsLeft: number;
  /** What it got in a batch whose answers are only compared. */
  trial: { inBatch: Tensor[]; group: { left: number; requests: Tensor[][] } } | null;
}

export interface Ran {
  outputs: Tensor[];
  runMs: number;
}

export interface Executed<Job> {
  /** Time in the pipe behind other runs. */
  waitedMs: number;
  /** Null where it did not run to its end. */
  runMs: number | null;
  outcomes: { job: Job; answer: Result<Ran> }[];
  /** They have to run again, before all others. */
  again: Job[];
  /** The process is gone, or about to be. */
  lost: boolean;
}

const allOf = <Job>(jobs: readonly Job[], answer: Result<Ran>): { job: Job; answer: Result<Ran> }[] =>
  jobs.map((job) => ({ job, answer }));

function died<Job extends Runnable>(jobs: readonly Job[], refusal: Refusal, seat: Seat): Executed<Job> {
  const none = { waitedMs: 0, runMs: null, lost: true };
  if (refusal === neverBegun) return { ...none, outcomes: [], again: [...jobs] };
  // One that was ended for its memory would take it again.
  if (seat.endedFor !== null && jobs.length === 1)
    return { ...none, outcomes: allOf(jobs, { ok: false, refusal: seat.endedFor }), again: [] };
  const again: Job[] = [];
  const outcomes: Executed<Job>['outcomes'] = [];
  for (const job of jobs) {
    job.deathsLeft -= 1;
    // In a batch any of them may have done it: alone they show it.
    if (jobs.length > 1) job.part = null;
    if (job.deathsLeft > 0) again.push(job);
    else outcomes.push({ job, answer: { ok: false, refusal } });
  }
  return { ...none, outcomes, again };
}

function answered<Job extends Runnable>(
  jobs: readonly Job[],
  outputs: Tensor[],
  runMs: number,
  trial: BatchTrial,
): Pick<Executed<Job>, 'outcomes' | 'again'> {
  const [only] = jobs;
  if (jobs.length === 1 && only !== undefined) {
    const { trial: tried } = only;
    if (tried !== null) {
      trial.compare(outputs, tried.inBatch);
      tried.group.left -= 1;
      if (tried.group.left === 0) trial.tried(tried.group.requests);
    }
    return { outcomes: allOf(jobs, { ok: true, value: { outputs, runMs } }), again: [] };
  }
  const cut = cutOutputs(
    outputs,
    jobs.map(({ part }) => part?.rows ?? 0),
  );
  if (cut === null) trial.refuse('an output does not have a row for each row of the inputs');
  if (cut !== null && trial.trusts(jobs.map(({ inputs }) => inputs))) {
    return {
      outcomes: jobs.map((job, index) => {
        const own = cut[index] ?? [];
        const asked = job.outputs.flatMap((name) => own.find((output) => output.name === name) ?? []);
        return { job, answer: { ok: true, value: { outputs: asked, runMs } } };
      }),
      again: [],
    };
  }
  const group = { left: jobs.length, requests: jobs.map(({ inputs }) => inputs) };
  for (const [index, job] of jobs.entries()) {
    job.part = null;
    const inBatch = cut?.[index];
    if (inBatch !== undefined) job.trial = { inBatch, group };
  }
  return { outcomes: [], again: [...jobs] };
}

/** Runs these requests as one. Never rejects. */
export function execute<Job extends Runnable>(
  jobs: readonly Job[],
  seat: Seat,
  options: { deadlineMs: number; trial: BatchTrial },
): Promise<Executed<Job>> {
  const [first] = jobs;
  if (first === undefined)
    return Promise.resolve({ waitedMs: 0, runMs: null, outcomes: [], again: [], lost: false });
  const outputs = jobs.length === 1 ? first.outputs : [...new Set(jobs.flatMap((job) => job.outputs))];
  const inputs = jobs.length === 1 ? first.inputs : joinInputs(jobs.map((job) => job.inputs));
  return seat.process
    .ask({ kind: 'run', outputs }, inputs, options.deadlineMs, jobs.length === 1 ? first.ahead : undefined)
    .then((told) => executed(jobs, seat, options.trial, told));
}

function executed<Job extends Runnable>(
  jobs: readonly Job[],
  seat: Seat,
  trial: BatchTrial,
  told: Result<Told<ChildReply & { kind: 'ran' }>>,
): Executed<Job> {
  if (told.ok) {
    const { reply, tensors, waitedMs } = told.value;
    const { runMs } = reply;
    return { waitedMs, runMs, lost: false, ...answered(jobs, tensors, runMs, trial) };
  }
  const { code } = told.refusal;
  if (code === 'model-crashed' || told.refusal === neverBegun) return died(jobs, told.refusal, seat);
  const lost = code === 'infer-deadline';
  const refused = { waitedMs: 0, runMs: null, lost };
  // One bad request makes the whole batch fail: alone the others succeed.
  if (jobs.length > 1 && !lost) {
    for (const job of jobs) job.part = null;
    return { ...refused, outcomes: [], again: [...jobs] };
  }
  return { ...refused, outcomes: allOf(jobs, refuse(code, told.refusal.detail)), again: [] };
}
