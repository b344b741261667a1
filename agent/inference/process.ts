// Why: the agent's side of one inference child: start it, ask it, know when it died and why.
// Trusts: nothing the child says before it is checked; a model's native code runs there.
// Must never: wait for a child without a deadline, or pass it the agent's environment.

import { type ChildProcess, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { extname } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { datatypeSchema, tensorSignatureSchema } from '../../shared/wire/manifest.ts';
import { checkTensor, type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';
import {
  type ChildReply,
  type ChildRequest,
  createFrameReader,
  cutBody,
  encodePipeFrame,
  type Frame,
} from './pipe.ts';

const milliseconds = z.number().nonnegative();
const bytes = z.number().nonnegative();
const replySchema: z.ZodType<ChildReply> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('refused'), code: z.string(), detail: z.string() }),
  z.object({
    kind: z.literal('admitted'),
    inputs: z.array(tensorSignatureSchema),
    outputs: z.array(tensorSignatureSchema),
    opset: z.number(),
  }),
  z.object({ kind: z.literal('loaded'), loadMs: milliseconds }),
  z.object({ kind: z.literal('ran'), runMs: milliseconds }),
  z.object({ kind: z.literal('memory'), rssBytes: bytes, peakBytes: bytes }),
]);
const tensorHeadSchema = z.object({
  name: z.string(),
  datatype: datatypeSchema,
  shape: z.array(z.number().int().nonnegative()).max(16),
  bytes: z.number().int().nonnegative().optional(),
  strings: z.array(z.string()).optional(),
});

export interface ChildAnswer<Reply> {
  reply: Reply;
  tensors: Tensor[];
}

export interface ChildExit {
  /** `exit 134`, `SIGKILL`, …, with the last line it wrote to stderr. */
  reason: string;
  livedMs: number;
}

type ReplyTo = { admit: 'admitted'; load: 'loaded'; run: 'ran'; memory: 'memory' };

export interface ModelProcess {
  pid: number | null;
  /**
   * Asks and waits; the child answers in order. A child that does not answer in time is killed.
   * Refusals: those of the child, `infer-deadline`, `model-crashed` with the reason of its end.
   */
  ask<Request extends ChildRequest>(
    request: Request,
    tensors: Tensor[],
    timeoutMs: number,
  ): Promise<Result<ChildAnswer<ChildReply & { kind: ReplyTo[Request['kind']] }>>>;
  kill(): void;
  /** Resolves once, when the process is gone. */
  exited: Promise<ChildExit>;
}

/**
 * Flags of the child, measured with mnist loaded: without the JIT compilers 6 MB less and no slower,
 * because nearly all of its time is native; a small young generation, because tensors live outside it.
 */
const childFlags = ['--jitless', '--no-expose-wasm', '--expose-gc', '--max-semi-space-size=1'];
const stderrKeptBytes = 2_048;

/** Nothing of the agent's environment but where libraries are found: it may hold a token. */
function childEnvironment(): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { MALLOC_ARENA_MAX: '2', UV_THREADPOOL_SIZE: '1' };
  for (const name of ['LD_LIBRARY_PATH', 'DYLD_LIBRARY_PATH', 'SystemRoot']) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}

/** A child that is stuck in a model does not see that its pipe ended: an orderly exit ends it. */
const living = new Set<ChildProcess>();
let exitHooked = false;

function endWithUs(child: ChildProcess): void {
  living.add(child);
  if (exitHooked) return;
  exitHooked = true;
  process.once('exit', () => {
    for (const one of living) one.kill('SIGKILL');
  });
}

interface Waiting {
  settle: (answer: Result<ChildAnswer<ChildReply>>) => void;
  timer: Timer;
  timedOut: boolean;
}

function readTensors(frame: Frame): Tensor[] {
  return cutBody({ ...frame, tensors: frame.tensors.map((head) => tensorHeadSchema.parse(head)) }).map(
    ({ head, bytes: raw }) => {
      const { name, datatype, shape } = head;
      const tensor =
        datatype === 'BYTES'
          ? checkTensor({ name, datatype, shape, data: head.strings ?? [] })
          : tensorFromBytes(name, datatype, shape, raw);
      if (!tensor.ok) throw new FleetError('infer-unsupported', `output ${tensor.refusal.detail}`);
      return tensor.value;
    },
  );
}

function readAnswer(frame: Frame): Result<ChildAnswer<ChildReply>> {
  const parsed = replySchema.safeParse(frame.message);
  if (!parsed.success) throw new FleetError('internal', 'inference pipe: an answer of an unknown form');
  const reply = parsed.data;
  if (reply.kind === 'refused')
    return refuse(isErrorCode(reply.code) ? reply.code : 'infer-failed', reply.detail);
  return ok({ reply, tensors: readTensors(frame) });
}

/** Starts a child without a model. It ends by itself when this process does. */
export function startModelProcess(clock: Clock): ModelProcess {
  const startedAtMs = clock.mono();
  const entry = fileURLToPath(new URL(`./child${extname(import.meta.url)}`, import.meta.url));
  // Detached: a Ctrl-C in the terminal must not end the child before the agent has drained it.
  const child: ChildProcess = spawn(process.execPath, [...childFlags, entry], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    env: childEnvironment(),
    detached: true,
    windowsHide: true,
  });
  endWithUs(child);
  const waiting = new Map<number, Waiting>();
  const reader = createFrameReader();
  let nextId = 1;
  let stderrTail = '';
  let fault = '';
  let gone: ChildExit | null = null;

  const kill = (): void => {
    child.kill('SIGKILL');
  };
  const settle = (id: number, answer: Result<ChildAnswer<ChildReply>>): void => {
    const one = waiting.get(id);
    if (one === undefined) return;
    waiting.delete(id);
    one.timer.cancel();
    one.settle(answer);
  };
  /** The child broke the protocol: whatever it is now, it is not to be asked again. */
  const distrust = (thrown: unknown): void => {
    fault = asFleetError(thrown).message;
    kill();
  };

  const pipe = child.stdio[3];
  const socket = pipe instanceof Socket ? pipe : null;
  socket?.on('data', (chunk: Buffer) => {
    try {
      for (let at = 0; at < chunk.length && fault === ''; ) {
        const target = reader.target();
        const count = Math.min(target.length, chunk.length - at);
        target.set(chunk.subarray(at, at + count));
        at += count;
        const frame = reader.advance(count);
        if (frame === null) continue;
        settle(frame.id, outputsOf(frame));
      }
    } catch (thrown) {
      distrust(thrown);
    }
  });
  const outputsOf = (frame: Frame): Result<ChildAnswer<ChildReply>> => {
    try {
      return readAnswer(frame);
    } catch (thrown) {
      const error = asFleetError(thrown);
      if (error.code === 'infer-unsupported') return refuse(error.code, error.message);
      throw thrown;
    }
  };
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
      living.delete(child);
      const lastLine = stderrTail.trim().split('\n').at(-1) ?? '';
      gone = {
        reason: [reason, lastLine].filter((part) => part !== '').join(': '),
        livedMs: clock.mono() - startedAtMs,
      };
      for (const [id, one] of [...waiting]) {
        settle(
          id,
          one.timedOut
            ? refuse('infer-deadline', 'the model did not answer in time; its process was ended')
            : refuse('model-crashed', gone.reason),
        );
      }
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
    ask: <Request extends ChildRequest>(request: Request, tensors: Tensor[], timeoutMs: number) =>
      new Promise<Result<ChildAnswer<ChildReply & { kind: ReplyTo[Request['kind']] }>>>((resolve) => {
        const id = nextId++;
        if (gone !== null || socket === null)
          return resolve(refuse('model-crashed', gone?.reason ?? 'no pipe'));
        let pieces: Uint8Array[];
        try {
          pieces = encodePipeFrame(id, request, tensors);
        } catch (thrown) {
          const error = asFleetError(thrown);
          return resolve(refuse(error.code, error.message));
        }
        const timer = clock.timer(timeoutMs);
        const one: Waiting = {
          timer,
          timedOut: false,
          settle: (answer) => {
            if (!answer.ok) return resolve(answer);
            if (!isReplyTo(request, answer.value.reply))
              return resolve(refuse('internal', 'an answer to another question'));
            resolve(ok({ reply: answer.value.reply, tensors: answer.value.tensors }));
          },
        };
        waiting.set(id, one);
        void timer.done.then(() => {
          one.timedOut = true;
          kill();
        });
        socket.cork();
        for (const piece of pieces) socket.write(piece);
        socket.uncork();
      }),
  };
}

const replyTo: ReplyTo = { admit: 'admitted', load: 'loaded', run: 'ran', memory: 'memory' };

function isReplyTo<Request extends ChildRequest>(
  request: Request,
  reply: ChildReply,
): reply is ChildReply & { kind: ReplyTo[Request['kind']] } {
  return reply.kind === replyTo[request.kind];
}
