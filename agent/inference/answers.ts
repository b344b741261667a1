// Why: what a child says, checked before anybody believes it. By hand where it happens with each request: a schema
// library takes longer for that than many a model. Trusts: nothing; a model's native code runs in the child.
// Must never: pass on a field that was not checked, or be more lenient than a schema would be.

import { z } from 'zod';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { tensorSignatureSchema } from '../../shared/wire/manifest.ts';
import { providerNameSchema, providersMax } from '../../shared/wire/messages.ts';
import { checkTensor, isDatatype, rankMax, type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';
import {
  type ChildReply,
  type Frame,
  malformed,
  type PartNotice,
  type TakeBytes,
  tensorBytes,
} from './pipe.ts';

export interface ChildAnswer<Reply> {
  reply: Reply;
  tensors: Tensor[];
}

const bytes = z.number().nonnegative();
/** Rare replies; `ran` is read below. */
const rareReplySchema: z.ZodType<Exclude<ChildReply, { kind: 'ran' }>> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('refused'), code: z.string(), detail: z.string() }),
  z.object({
    kind: z.literal('admitted'),
    inputs: z.array(tensorSignatureSchema),
    outputs: z.array(tensorSignatureSchema),
    opset: z.number(),
  }),
  z.object({
    kind: z.literal('loaded'),
    loadMs: z.number().nonnegative(),
    provider: z.string(),
    skipped: z.array(z.object({ name: z.string(), reason: z.string() })),
  }),
  z.object({ kind: z.literal('memory'), rssBytes: bytes, peakBytes: bytes }),
  z.object({ kind: z.literal('providers'), names: z.array(providerNameSchema).max(providersMax) }),
  z.object({ kind: z.literal('provider'), usable: z.boolean() }),
]);

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readReply({ message, runMs }: Frame): ChildReply {
  if (isObject(message) && message['kind'] === 'ran') {
    if (!(runMs >= 0 && runMs < Number.POSITIVE_INFINITY)) throw malformed('a run without its time');
    return { kind: 'ran', runMs };
  }
  const parsed = rareReplySchema.safeParse(message);
  if (!parsed.success) throw malformed('an answer of an unknown form');
  return parsed.data;
}

/** Null where the frame is an answer. Throws FleetError `internal` where it is neither. */
export function readPart({ message, tensors }: Frame): PartNotice | null {
  if (!isObject(message) || message['kind'] !== 'part') return null;
  const { at, bytes: length, ready } = message;
  if (!isSize(at) || !isSize(length) || !isSize(ready) || tensors.length > 0)
    throw malformed('a part without a place');
  return { kind: 'part', at, bytes: length, ready };
}

interface CheckedHead {
  name: string;
  datatype: Tensor['datatype'];
  shape: number[];
  strings: string[];
}

/** Of headers that came again: their heads are the very objects that were checked. */
const checkedHeads = new WeakMap<Frame['tensors'], CheckedHead[]>();

function headsOf({ tensors }: Frame): CheckedHead[] {
  let heads = checkedHeads.get(tensors);
  if (heads === undefined) {
    heads = tensors.map(readHead);
    checkedHeads.set(tensors, heads);
  }
  return heads;
}

function readHead(head: unknown): CheckedHead {
  if (!isObject(head)) throw malformed('a tensor that is no object');
  const { name, datatype, shape, bytes: length, at, strings } = head;
  if (typeof name !== 'string' || typeof datatype !== 'string' || !isDatatype(datatype))
    throw malformed('a tensor without name or datatype');
  if (!Array.isArray(shape) || shape.length > rankMax || !shape.every(isSize))
    throw malformed('a tensor without a shape');
  if ((length !== undefined && !isSize(length)) || (at !== undefined && !isSize(at)))
    throw malformed('a tensor without a place');
  if (strings === undefined) return { name, datatype, shape, strings: [] };
  if (!Array.isArray(strings) || !strings.every((text) => typeof text === 'string'))
    throw malformed('strings that are none');
  return { name, datatype, shape, strings };
}

function readTensors(frame: Frame, take: TakeBytes | null): Tensor[] {
  const heads = headsOf(frame);
  return tensorBytes(frame, take).map(({ bytes: raw }, index) => {
    const head = heads[index];
    if (head === undefined) throw malformed('tensors without heads');
    const { name, datatype, strings } = head;
    // Whoever gets it may change it; the head may belong to others too.
    const shape = [...head.shape];
    const tensor =
      datatype === 'BYTES'
        ? checkTensor({ name, datatype, shape, data: [...strings] })
        : tensorFromBytes(name, datatype, shape, raw);
    if (!tensor.ok) throw new FleetError('infer-unsupported', `output ${tensor.refusal.detail}`);
    return tensor.value;
  });
}

/**
 * Reads an answer; `take` reads the outputs that stand in the shared file, null where none was offered. Refusals:
 * those of the child, `infer-unsupported` (an output that is no tensor of ours). Throws FleetError `internal` where
 * the child does not follow the protocol.
 */
export function readAnswer(frame: Frame, take: TakeBytes | null): Result<ChildAnswer<ChildReply>> {
  const reply = readReply(frame);
  if (reply.kind === 'refused')
    return refuse(isErrorCode(reply.code) ? reply.code : 'infer-failed', reply.detail);
  try {
    return ok({ reply, tensors: readTensors(frame, take) });
  } catch (thrown) {
    if (thrown instanceof FleetError && thrown.code === 'infer-unsupported')
      return refuse(thrown.code, thrown.message);
    throw thrown;
  }
}
