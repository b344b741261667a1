// Why: from which tensor of the base each tensor of the target may come: by name, by content, by likeness, turned,
// or in another type. Trusts: nothing; what it names is judged afterwards. Must never: look at pairs without a bound.

import { crc32 } from './bytes.ts';
import { elementBytes, isFloat } from './elements.ts';
import type { SampledGuess } from './guesses.ts';
import type { Judge } from './judge.ts';
import { type Guess, permutedAxesMax } from './operations.ts';
import { scalingsOf } from './scaling.ts';
import type { TableBook } from './tables.ts';
import { countOf, type FileTensor, numbersOf, type TensorSet } from './tensors.ts';

/** Tensors of one size that are looked at for likeness. */
const likenessMax = 256;
const turnedMax = 32;
/** Pairs that are looked at in all. */
const looksMax = 200_000;
const axesTurnedMax = 4;
/** Bits by which the nearest may differ and still be called alike: numbers without relation differ by more. */
const alikeShare = 0.72;
const contentSample = 2048;

export interface Pairs {
  base: TensorSet;
  target: TensorSet;
  judge: Judge;
  tables: TableBook;
}

export class Pairing {
  readonly #pairs: Pairs;
  #looksLeft = looksMax;
  readonly #indexOf = new Map<FileTensor, number>();
  readonly #byName = new Map<string, FileTensor>();
  readonly #byContent = new Map<string, FileTensor>();
  readonly #bySize = new Map<string, FileTensor[]>();
  /** Base tensors by the name that they had before a quantiser added to it. */
  readonly #quantisedFrom = new Map<string, FileTensor>();

  constructor(pairs: Pairs) {
    this.#pairs = pairs;
    for (const [index, tensor] of pairs.base.apart.entries()) {
      this.#indexOf.set(tensor, index);
      this.#byName.set(tensor.name, tensor);
      this.#byContent.set(contentKey(tensor), tensor);
      const size = sizeKey(tensor);
      const alike = this.#bySize.get(size);
      if (alike === undefined) this.#bySize.set(size, [tensor]);
      else alike.push(tensor);
      if (pairs.base.quantised.has(tensor.name))
        for (const name of stems(tensor.name))
          if (!this.#quantisedFrom.has(name)) this.#quantisedFrom.set(name, tensor);
    }
  }

  #index(tensor: FileTensor): number {
    return this.#indexOf.get(tensor) ?? 0;
  }

  /** A base tensor with the same bytes. */
  same(tensor: FileTensor): number | null {
    for (const found of [this.#byName.get(tensor.name), this.#byContent.get(contentKey(tensor))])
      if (found !== undefined && equalBytes(found.bytes, tensor.bytes)) return this.#index(found);
    return null;
  }

  /** The base tensor of that name, whatever its size. */
  named(tensor: FileTensor): number | null {
    const found = this.#byName.get(tensor.name);
    return found === undefined ? null : this.#index(found);
  }

  /** Guesses that are worth a judgement, the likeliest first. */
  *guesses(tensor: FileTensor): Generator<Guess> {
    const table = this.#pairs.tables.named(tensor.name);
    if (
      table !== undefined &&
      tensor.kind === 'float32' &&
      this.#pairs.tables.lengthOf(table) === countOf(tensor)
    )
      yield { kind: 'table', table };
    if (tensor.kind === 'bytes') return;
    const named = this.#byName.get(tensor.name);
    if (named !== undefined && sizeKey(named) === sizeKey(tensor)) {
      yield { kind: 'base', base: this.#index(named) };
    } else if (named !== undefined && countOf(named) === countOf(tensor) && named.kind !== 'bytes')
      yield { kind: 'cast', base: this.#index(named) };
    else {
      const alike = this.#alike(tensor);
      if (alike !== null) yield { kind: 'base', base: this.#index(alike) };
    }
    const quantised = this.quantised(tensor);
    if (quantised !== null) yield quantised;
    const dequantised = this.#dequantised(tensor);
    if (dequantised !== null) yield dequantised;
  }

  /** The nearest tensor of the same shape that has no partner by name. */
  #alike(tensor: FileTensor): FileTensor | null {
    if (this.#looksLeft <= 0) return null;
    const candidates = (this.#bySize.get(sizeKey(tensor)) ?? [])
      .filter(({ name }) => !this.#pairs.target.byName.has(name))
      .slice(0, likenessMax);
    this.#looksLeft -= candidates.length;
    const bits = elementBytes(tensor.kind) * 8;
    let best: FileTensor | null = null;
    let nearest = bits * alikeShare;
    for (const candidate of candidates) {
      const guess: SampledGuess = { kind: 'base', base: this.#index(candidate) };
      const distance = this.#pairs.judge.distance(tensor, guess, nearest);
      if (distance < nearest) [best, nearest] = [candidate, distance];
    }
    return best;
  }

  /** The same numbers in another order of axes, where that is nearer than anything else. */
  turned(tensor: FileTensor): Guess | null {
    const { dims } = tensor;
    if (tensor.kind === 'bytes' || dims.length < 2 || dims.length > Math.min(axesTurnedMax, permutedAxesMax))
      return null;
    if (this.#looksLeft <= 0) return null;
    this.#looksLeft -= turnedMax;
    const shape = [...dims].sort((a, b) => a - b).join();
    const named = this.#byName.get(tensor.name);
    const others = this.#pairs.base.apart.filter(
      (one) => one.length === tensor.length && one.kind === tensor.kind && one !== named,
    );
    const candidates = [...(named === undefined ? [] : [named]), ...others]
      .filter((one) => one.kind === tensor.kind && [...one.dims].sort((a, b) => a - b).join() === shape)
      .slice(0, turnedMax);
    let best: SampledGuess | null = null;
    let nearest = elementBytes(tensor.kind) * 8 * alikeShare;
    for (const candidate of candidates) {
      for (const order of ordersOf[dims.length] ?? []) {
        if (!order.every((axis, at) => candidate.dims[axis] === dims[at])) continue;
        const guess: SampledGuess = {
          kind: 'permuted',
          base: this.#index(candidate),
          dims: candidate.dims,
          order,
        };
        const distance = this.#pairs.judge.distance(tensor, guess, nearest);
        if (distance < nearest) [best, nearest] = [guess, distance];
      }
    }
    return best;
  }

  /** Whole numbers made from floats of the base by the scale that the graph names. */
  quantised(tensor: FileTensor): Guess | null {
    const { target, tables } = this.#pairs;
    const uses = target.quantised.get(tensor.name);
    const from = this.#floatSource(tensor);
    if (uses === undefined || from === null || isFloat(tensor.kind)) return null;
    const scale = floatsOf(target.byName.get(uses.scale));
    if (scale === null) return null;
    const inner = innerOf(tensor.dims, scale.length, countOf(tensor));
    const base = this.#index(from);
    const zeros = floatsOf(target.byName.get(uses.zeroPoint));
    const zero = zeros?.some((value) => value !== 0) ? tables.listed(zeros) : null;
    const table = tables.scale(uses.scale, scale, base, inner);
    return table === null ? null : { kind: 'quantised', base, inner, scale: table, zero };
  }

  #floatSource(tensor: FileTensor): FileTensor | null {
    for (const name of stems(tensor.name)) {
      const found = this.#byName.get(name);
      if (found !== undefined && isFloat(found.kind) && countOf(found) === countOf(tensor)) return found;
    }
    return null;
  }

  #dequantised(tensor: FileTensor): Guess | null {
    const { base, tables } = this.#pairs;
    const from = this.#quantisedFrom.get(tensor.name);
    if (from === undefined || !isFloat(tensor.kind) || countOf(from) !== countOf(tensor)) return null;
    if (from.kind === 'bytes') return null;
    const uses = base.quantised.get(from.name);
    const scaleTensor = base.byName.get(uses?.scale ?? '');
    const values = floatsOf(scaleTensor);
    if (scaleTensor === undefined || values === null) return null;
    const apart = isFloat(scaleTensor.kind) ? this.#indexOf.get(scaleTensor) : undefined;
    const zeros = floatsOf(base.byName.get(uses?.zeroPoint ?? ''));
    const scale = apart === undefined ? tables.listed(values) : tables.ofBase(apart);
    if (scale === null) return null;
    const inner = innerOf(tensor.dims, values.length, countOf(tensor));
    const zero = zeros?.some((value) => value !== 0) ? tables.listed(zeros) : null;
    return { kind: 'dequantised', base: this.#index(from), inner, scale, zero };
  }

  /** A base tensor times some numbers, which the patch would have to list. */
  *scaled(tensor: FileTensor, base: number): Generator<Guess> {
    const from = this.#pairs.base.apart[base];
    if (from === undefined || !isFloat(tensor.kind)) return;
    for (const { inner, scales } of scalingsOf(from, tensor)) {
      const scale = this.#pairs.tables.listed(scales);
      if (scale !== null) yield { kind: 'scaled', base, inner, scale };
    }
  }
}

/** Elements that share a number of a table of that length: one axis has its length, the first such. */
function innerOf(dims: readonly number[], length: number, count: number): number {
  const axis = length === 1 ? -1 : dims.indexOf(length);
  if (axis < 0) return Math.max(1, Math.floor(count / length));
  return dims.slice(axis + 1).reduce((product, size) => product * size, 1);
}

function floatsOf(tensor: FileTensor | undefined): Float32Array | null {
  const numbers = tensor === undefined ? null : numbersOf(tensor);
  return numbers === null || numbers.length === 0 ? null : Float32Array.from(numbers);
}

/** A name without what may have been added to it: `w_quantized`, then what stands before earlier marks. */
function stems(name: string): string[] {
  const found = [name];
  for (let rest = name; ; ) {
    const mark = Math.max(rest.lastIndexOf('_'), rest.lastIndexOf('.'), rest.lastIndexOf('/'));
    if (mark <= 0) return found;
    rest = rest.slice(0, mark);
    found.push(rest);
  }
}

function sizeKey(tensor: FileTensor): string {
  return `${tensor.kind} ${tensor.length} ${tensor.dims.join()}`;
}

function contentKey({ bytes, length }: FileTensor): string {
  const middle = Math.floor(length / 2);
  return `${length} ${crc32(bytes.subarray(0, contentSample))} ${crc32(bytes.subarray(middle, middle + contentSample))}`;
}

function equalBytes(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at++) if (one[at] !== other[at]) return false;
  return true;
}

/** All orders of so many axes but the one that changes nothing. */
function orders(axes: number): number[][] {
  const all = (left: number[]): number[][] =>
    left.length === 0
      ? [[]]
      : left.flatMap((axis) => all(left.filter((one) => one !== axis)).map((rest) => [axis, ...rest]));
  return all(Array.from({ length: axes }, (_, at) => at)).slice(1);
}

const ordersOf = Array.from({ length: axesTurnedMax + 1 }, (_, axes) => orders(axes));
