// Why: turns valid inputs into nearly valid ones: the interesting inputs stand next to those that are accepted.
// Trusts: fast-check for choices, so that a failure shrinks and its seed repeats it.
// Must never: make an input of more than 64 KiB, for which time is measured.

import fc from 'fast-check';
import { decode, encode } from './hostile-repository.ts';

export const inputBytesMax = 64 * 1024;

const kinds = [
  'flip',
  'cut',
  'drop',
  'insert',
  'repeat',
  'splice',
  'value',
  'value',
  'value',
  'member-again',
  'member-gone',
  'member-renamed',
  'member-added',
  'swap',
] as const;

export interface Step {
  kind: (typeof kinds)[number];
  at: number;
  pick: number;
}

/** One to four changes, each made of numbers alone. */
export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({ kind: fc.constantFrom(...kinds), at: fc.nat(), pick: fc.nat() }),
  { minLength: 1, maxLength: 4 },
);

/** A text that stands for itself in the output, so that what JSON has no value for can be written. */
class Raw {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

const nested = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`;

const values: (() => unknown)[] = [
  () => null,
  () => true,
  () => 0,
  () => -1,
  () => 1,
  () => '',
  () => [],
  () => ({}),
  () => '0',
  () => new Raw('-0'),
  () => new Raw('1.5'),
  () => new Raw('1e400'),
  () => new Raw('-1e400'),
  () => new Raw('9007199254740993'),
  () => new Raw('123456789012345678901234567890'),
  () => new Raw('NaN'),
  () => new Raw('"\\ud800"'),
  () => new Raw('"\\u0000"'),
  () => new Raw(nested(70)),
  () => new Raw(nested(12_000)),
  () => new Raw(`${'{"a":'.repeat(5_000)}0${'}'.repeat(5_000)}`),
  () => 'x'.repeat(20_000),
  () => '💥'.repeat(3_000),
  () => '../../../etc/passwd',
  () => '__proto__',
  () => 'constructor',
  () => '+/#',
  () => Array.from({ length: 3_000 }, (_, index) => index),
  () => Object.fromEntries(Array.from({ length: 1_500 }, (_, index) => [`k${index}`, index])),
  () => new Raw('{"__proto__":{"polluted":true}}'),
  () => new Raw('{"constructor":{"prototype":{"polluted":true}}}'),
  () => new Raw(' '.repeat(10_000)),
];

const names = ['__proto__', 'constructor', 'toString', '', 'a'.repeat(5_000), '../x', 'x"y', 'é', '\u2028'];

const inserts = [
  Uint8Array.of(0xff),
  Uint8Array.of(0xc0, 0x80),
  Uint8Array.of(0xed, 0xa0, 0x80),
  Uint8Array.of(0xef, 0xbb, 0xbf),
  Uint8Array.of(0),
  encode('"'),
  encode('\\'),
  encode('{'),
  encode(','),
  encode('}]'),
  encode('1e999'),
  encode('-----BEGIN CERTIFICATE-----'),
  encode('\n- &a [*a, *a]\n'),
];

const choose = <T>(list: readonly T[], pick: number): T => list[pick % list.length] as T;

/** Applies the steps to one of the seeds; the others lend their parts. */
export function mutate(seeds: readonly Uint8Array[], which: number, todo: readonly Step[]): Uint8Array {
  let bytes: Uint8Array = choose(seeds, which);
  for (const step of todo) {
    bytes = isOnTree(step.kind) ? onTree(bytes, step) : onBytes(bytes, step, choose(seeds, step.pick));
    if (bytes.length > inputBytesMax) bytes = bytes.slice(0, inputBytesMax);
  }
  return bytes;
}

const isOnTree = (kind: Step['kind']): boolean => /^(value|member|swap)/.test(kind);

function onBytes(bytes: Uint8Array, { kind, at, pick }: Step, other: Uint8Array): Uint8Array {
  const where = bytes.length === 0 ? 0 : at % bytes.length;
  const [before, after] = [bytes.subarray(0, where), bytes.subarray(where)];
  const length = 1 + (pick % 64);
  switch (kind) {
    case 'flip': {
      const flipped = new Uint8Array(bytes);
      flipped[where] = (flipped[where] ?? 0) ^ (1 << (pick % 8));
      return flipped;
    }
    case 'cut':
      return before;
    case 'drop':
      return joined(before, after.subarray(length));
    case 'insert':
      return joined(before, choose(inserts, pick), after);
    case 'repeat':
      return joined(
        before,
        ...Array.from({ length: 1 + (pick % 200) }, () => after.subarray(0, length)),
        after,
      );
    default:
      return joined(before, other.subarray(pick % (other.length + 1)));
  }
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** A tree of an earlier step that is too deep to be walked is changed as bytes. */
const depthMax = 1_000;
class TooDeep extends Error {}

type Place = { holder: Record<string, unknown> | unknown[]; key: string | number };

/** Changes the JSON tree at one of its places; bytes that are no JSON are changed as bytes. */
function onTree(bytes: Uint8Array, step: Step): Uint8Array {
  try {
    return changedTree(JSON.parse(decode(bytes)), step);
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TooDeep)) throw error;
    return onBytes(bytes, { ...step, kind: 'insert' }, bytes);
  }
}

function changedTree(tree: unknown, step: Step): Uint8Array {
  const root: { tree: unknown } = { tree };
  const places = placesIn(root);
  const { holder, key } = choose(places, step.at);
  const get = (place: Place): unknown => Reflect.get(place.holder, place.key);
  const set = (place: Place, value: unknown): void => {
    Object.defineProperty(place.holder, place.key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
  };
  switch (step.kind) {
    case 'member-gone':
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else if (holder !== root) Reflect.deleteProperty(holder, key);
      break;
    case 'member-again':
      set({ holder, key }, new Raw(`${spell(get({ holder, key }))},${JSON.stringify(String(key))}:0`));
      break;
    case 'member-renamed':
      if (!Array.isArray(holder) && holder !== root) {
        const value = get({ holder, key });
        Reflect.deleteProperty(holder, key);
        set({ holder, key: choose(names, step.pick) }, value);
      }
      break;
    case 'member-added':
      if (!Array.isArray(holder)) set({ holder, key: choose(names, step.pick) }, choose(values, step.pick)());
      else holder.push(choose(values, step.pick)());
      break;
    case 'swap': {
      const other = choose(places, step.pick);
      const [a, b] = [get({ holder, key }), get(other)];
      // One inside the other would make a tree without an end.
      if (typeof a === 'object' || typeof b === 'object') set({ holder, key }, new Raw(spell(b)));
      else {
        set({ holder, key }, b);
        set(other, a);
      }
      break;
    }
    default:
      set({ holder, key }, choose(values, step.pick)());
  }
  return encode(spell(root.tree));
}

function placesIn(root: Record<string, unknown>): Place[] {
  const places: Place[] = [];
  const walk = (holder: Place['holder'], depth: number): void => {
    for (const key of Object.keys(holder)) {
      if (places.length > 5_000) return;
      if (depth > depthMax) throw new TooDeep();
      places.push({ holder, key: Array.isArray(holder) ? Number(key) : key });
      const value: unknown = Reflect.get(holder, key);
      if (value !== null && typeof value === 'object' && !(value instanceof Raw))
        walk(value as Place['holder'], depth + 1);
    }
  };
  walk(root, 0);
  return places;
}

function spell(value: unknown): string {
  if (value instanceof Raw) return value.text;
  if (Array.isArray(value)) return `[${value.map(spell).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  return `{${Object.entries(value)
    .map(([name, member]) => `${JSON.stringify(name)}:${spell(member)}`)
    .join(',')}}`;
}
