// Why: the agent's side of one inference child: start it, ask it, know when it died and why.
// Trusts: nothing the child says before it is checked; a model's native code runs there.
// Must never: wait for a child without a deadline, or pass it the agent's environment.

import { type ChildProcess, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { extname } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { endWithUs, modelChildEnvironment } from '../../shared/host/model-child.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { oneLine } from '../../shared/onnx/runtime-words.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { type ChildAnswer, readAnswer, readPart } from './answers.ts';
import {
  type ChildReply,
  type ChildRequest,
  createFrameReader,
  createFrameWriter,
  type Frame,
  type FrameWriter,
  malformed,
  type PartNotice,
  type SharedPlace,
} from './pipe.ts';
import { createSender, type Sender } from './sender.ts';
import { type Area, openSharedFile, type SharedFile } from './shared-file.ts';

export interface ChildExit {
  /** `exit 134`, `SIGKILL`, …, with the last line it wrote to stderr. */
  reason: string;
  livedMs: number;
  /** It was ended because it did not answer in time. */
  timedOut: boolean;
}

type ReplyTo = {
  admit: 'admitted';
  load: 'loaded';
  run: 'ran';
  memory: 'memory';
  providers: 'providers';
  provider: 'provider';
};

/** The child ended before it came to this request: ask another one, nothing happened. */
export const neverBegun: Refusal = {
  code: 'infer-not-ready',
  detail: 'the process ended before it came to this request',
};

export interface ModelProcess {
  pid: number | null;
  /**
   * Asks and waits. May be called again before the answer came: the child works in order, one at a time, and
   * `timeoutMs` counts from the moment when it comes to this request. A child that does not answer in time is killed.
   * Refusals: those of the child, `infer-deadline`, `model-crashed` with the reason of its end, and the very object
   * `neverBegun`, which no child can say.
   */
  ask<Request extends ChildRequest>(
    request: Request,
    tensors: Tensor[],
    timeoutMs: number,
    ahead?: InputAhead,
  ): Promise<Result<Told<ChildReply & { kind: ReplyTo[Request['kind']] }>>>;
  /**
   * Takes a large input while it still comes into its memory; whoever then asks with it, and a tensor that is this
   * very memory, has it there already. Null where it cannot: one at a time.
   */
  ahead(whole: Uint8Array): InputAhead | null;
  kill(): void;
  /** Resolves once, when the process is gone. */
  exited: Promise<ChildExit>;
}

/** Input on its way to a process before it is asked. */
export interface InputAhead {
  /** So many bytes of it are there. */
  ready(bytes: number): void;
  /** It will not be asked for. Idempotent, and without effect once it was. */
  cancel(): void;
}

/** An answer, and how long it waited in the pipe behind others. */
export type Told<Reply> = ChildAnswer<Reply> & { waitedMs: number };

/**
 * Flags of the child, measured with mnist loaded: the optimising compilers cost 6 MB and gain little, because most of
 * its time is native; the baseline compiler costs 1.6 MB and saves a fifth of what a small request takes; a small
 * young generation, because tensors live outside it.
 */
const childFlags = ['--no-opt', '--no-maglev', '--no-expose-wasm', '--expose-gc', '--max-semi-space-size=1'];
const stderrKeptBytes = 2_048;

interface Waiting {
  id: number;
  area: Area | null;
  timeoutMs: number;
  askedAtMs: number;
  /** When the child came to it. */
  begunAtMs: number;
  settle: (answer: Result<Told<ChildReply>>) => void;
}

export interface ModelProcessOptions {
  /** Where the file for large tensors is made; null: nowhere, they go through the socket. */
  sharedFolder?: string | null;
  /** Another program in the child's place. */
  entry?: URL;
}

function spawnChild(entry: string, shared: SharedFile | null): ChildProcess {
  try {
    return spawn(process.execPath, [...childFlags, entry], {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', shared?.descriptor ?? 'ignore'],
      env: modelChildEnvironment(),
      // A Ctrl-C in the terminal must not end the child before the agent has drained it.
      detached: true,
      windowsHide: true,
    });
  } catch (error) {
    shared?.close();
    throw error;
  }
}

/** Starts a child without a model. It ends by itself when this process does. */
export function startModelProcess(clock: Clock, options: ModelProcessOptions = {}): ModelProcess {
  const startedAtMs = clock.mono();
  const entry = options.entry ?? new URL(`./child${extname(import.meta.url)}`, import.meta.url);
  const shared = openSharedFile(options.sharedFolder);
  const child = spawnChild(fileURLToPath(entry), shared);
  endWithUs(child);
  /** In the order in which they were asked; the child works on the first. */
  const waiting: Waiting[] = [];
  const reader = createFrameReader();
  const writer = createFrameWriter();
  let nextId = 1;
  let stderrTail = '';
  let fault = '';
  let gone: ChildExit | null = null;
  let timedOut = false;
  let watch: { timer: Timer; dueAtMs: number } | null = null;

  /** The input that is on its way before it was asked with. */
  let early: { id: number; area: Area; input: InputAhead } | null = null;
  /** Of 32 bits, which is what a frame has for it. */
  const takeId = (): number => nextId++ >>> 0;

  const kill = (): void => {
    child.kill('SIGKILL');
  };
  /** The child broke the protocol: whatever it is now, it is not to be asked again. */
  const distrust = (thrown: unknown): void => {
    fault = asFleetError(thrown).message;
    kill();
  };
  /** One timer for all: it is moved only where a request is due before it, and looks again when it fires. */
  const watchFirst = (): void => {
    const [first] = waiting;
    if (first === undefined || timedOut) return;
    const dueAtMs = first.begunAtMs + first.timeoutMs;
    if (watch !== null && watch.dueAtMs <= dueAtMs) return;
    watch?.timer.cancel();
    const timer = clock.timer(dueAtMs - clock.mono());
    watch = { timer, dueAtMs };
    void timer.done.then(() => {
      watch = null;
      const [late] = waiting;
      if (late === undefined || gone !== null) return;
      timedOut = clock.mono() >= late.begunAtMs + late.timeoutMs;
      if (timedOut) kill();
      else watchFirst();
    });
  };
  const receive = (frame: Frame): void => {
    const [first] = waiting;
    if (first === undefined || first.id !== frame.id) throw malformed('an answer that nobody waits for');
    const part = readPart(frame);
    if (part !== null) {
      if (first.area === null) throw malformed('a part in a file that was not offered');
      first.area.outputs.begin(part);
      return;
    }
    const answer = readAnswer(frame, first.area?.outputs.take ?? null);
    waiting.shift();
    if (first.area !== null) shared?.release(first.area);
    const [next] = waiting;
    if (next !== undefined) {
      next.begunAtMs = clock.mono();
      watchFirst();
    }
    const waitedMs = first.begunAtMs - first.askedAtMs;
    first.settle(answer.ok ? ok({ ...answer.value, waitedMs }) : answer);
  };

  const pipe = child.stdio[3];
  const socket = pipe instanceof Socket ? pipe : null;
  const sender = socket === null ? null : createSender(socket);
  socket?.on('data', (chunk: Buffer) => {
    if (fault !== '' || timedOut) return;
    try {
      for (const frame of reader.push(chunk)) receive(frame);
    } catch (thrown) {
      distrust(thrown);
    }
  });
  // EPIPE and ECONNRESET of a dying child; `close` follows and answers everybody who waits.
  socket?.on('error', (error) => {
    if (fault === '') fault = error.message;
  });
  if (child.stderr instanceof Readable) {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderrTail = (stderrTail + text).slice(-stderrKeptBytes);
    });
  }

  const exited = new Promise<ChildExit>((resolve) => {
    const end = (reason: string): void => {
      if (gone !== null) return;
      watch?.timer.cancel();
      early = null;
      shared?.close();
      const lastLine = oneLine(stderrTail.trim().split('\n').at(-1) ?? '');
      gone = {
        reason: [reason, lastLine].filter((part) => part !== '').join(': '),
        livedMs: clock.mono() - startedAtMs,
        timedOut,
      };
      const late = refuse('infer-deadline', 'the model did not answer in time; its process was ended');
      const [first, ...behind] = waiting.splice(0);
      first?.settle(timedOut ? late : refuse('model-crashed', gone.reason));
      for (const one of behind) one.settle({ ok: false, refusal: neverBegun });
      resolve(gone);
    };
    child.once('error', (error) => end(error.message));
    child.once('close', (code, signal) =>
      end(fault === '' ? (signal ?? `exit ${code}`) : `${signal ?? code} (${fault})`),
    );
  });

  return {
    pid: child.pid ?? null,
    exited,
    kill,
    ahead: (whole) => {
      if (gone !== null || sender === null || early !== null) return null;
      const area = shared?.acquire() ?? null;
      const begun = area?.inputs.begin(whole) ?? null;
      if (area === null || begun === null) {
        if (area !== null) shared?.release(area);
        return null;
      }
      const id = takeId();
      const tell = partTeller(area, id, sender, writer);
      const input: InputAhead = {
        ready: (bytes) => {
          if (early?.input === input) begun.ready(bytes, tell);
        },
        cancel: () => {
          if (early?.input !== input) return;
          early = null;
          shared?.release(area);
        },
      };
      early = { id, area, input };
      return input;
    },
    ask: <Request extends ChildRequest>(
      request: Request,
      tensors: Tensor[],
      timeoutMs: number,
      ahead?: InputAhead,
    ) =>
      new Promise<Result<Told<ChildReply & { kind: ReplyTo[Request['kind']] }>>>((resolve) => {
        if (gone !== null || sender === null)
          return resolve(refuse('model-crashed', gone?.reason ?? 'no pipe'));
        const known = ahead !== undefined && early?.input === ahead ? early : null;
        if (known !== null) early = null;
        const id = known?.id ?? takeId();
        const area = known?.area ?? (request.kind === 'run' ? (shared?.acquire() ?? null) : null);
        let pieces: Uint8Array[];
        try {
          const place = area === null ? undefined : placeIn(area, id, sender, writer);
          pieces = writer.write(id, request, tensors, place, sender.allocate);
        } catch (thrown) {
          if (area !== null) shared?.release(area);
          const error = asFleetError(thrown);
          return resolve(refuse(error.code, error.message));
        }
        const nowMs = clock.mono();
        waiting.push({
          id,
          area,
          timeoutMs,
          askedAtMs: nowMs,
          begunAtMs: nowMs,
          settle: (answer) => {
            if (!answer.ok) return resolve(answer);
            const { reply, tensors: outputs, waitedMs } = answer.value;
            if (!isReplyTo(request, reply))
              return resolve(refuse('internal', 'an answer to another question'));
            resolve(ok({ reply, tensors: outputs, waitedMs }));
          },
        });
        watchFirst();
        // To an idle child at once; behind others together with whatever else this turn of the event loop brings.
        if (waiting.length > 1) sender.soon(pieces);
        else sender.now(pieces);
        area?.outputs.prepare();
      }),
  };
}

/** Tells the child of parts of its input while the rest of it is still written. */
function partTeller(
  { index }: Area,
  id: number,
  sender: Sender,
  writer: FrameWriter,
): (part: PartNotice) => void {
  const place = { area: index, put: () => null };
  return (part) => sender.now(writer.write(id, part, [], place, sender.allocate));
}

/** Where large tensors go. */
function placeIn(area: Area, id: number, sender: Sender, writer: FrameWriter): SharedPlace {
  const tell = partTeller(area, id, sender, writer);
  return { area: area.index, put: (bytes) => area.inputs.put(bytes, tell) };
}

const replyTo: ReplyTo = {
  admit: 'admitted',
  load: 'loaded',
  run: 'ran',
  memory: 'memory',
  providers: 'providers',
  provider: 'provider',
};

function isReplyTo<Request extends ChildRequest>(
  request: Request,
  reply: ChildReply,
): reply is ChildReply & { kind: ReplyTo[Request['kind']] } {
  return reply.kind === replyTo[request.kind];
}
