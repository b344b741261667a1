// Why: flat lists of floats are read by a quick path of their own; it must read what the careful one reads, and
// leave to it whatever is not plain. Trusts: the nested form, which takes the careful path. Must never: hide its seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseInferRequest } from '../../shared/wire/oip-json.ts';
import type { TensorData } from '../../shared/wire/tensors.ts';

/** The numbers or why not, without the place in the text, which differs with the brackets. */
function read(datatype: string, shape: number[], list: string): TensorData | string {
  const body = `{"inputs":[{"name":"x","datatype":"${datatype}","shape":[${shape}],"data":${list}}]}`;
  const parsed = parseInferRequest(Buffer.from(body));
  if (!parsed.ok) return parsed.refusal.detail.replace(/ at byte \d+.*$/, '');
  return parsed.value.inputs[0]?.data ?? 'nothing';
}

function assertSame(texts: string[], gap: string, note: string): void {
  for (const datatype of ['FP32', 'FP64']) {
    const flat = read(datatype, [texts.length, 1], `[${texts.join(`,${gap}`)}]`);
    const nested = read(datatype, [texts.length, 1], `[${texts.map((text) => `[${text}]`).join(',')}]`);
    assert.deepEqual(flat, nested, `${datatype} ${note}: ${texts.join(',')}`);
    if (typeof flat === 'string') continue;
    const exact = texts.map((text) => Number(text.replaceAll('"', '')));
    assert.deepEqual([...flat], datatype === 'FP32' ? exact.map(Math.fround) : exact, note);
  }
}

test('what is not plain is left to the careful reader, with its answer', () => {
  const plain = ['0', '-0', '7', '255', '0.5', '-12.25', '9007199254740991', '0.0000000000000000000001'];
  const other = ['1e3', '2E-7', '9007199254740993', '0.30000001192092896', '"NaN"', '"-Infinity"', '1e-400'];
  const broken = [
    '01',
    '-',
    '1.',
    '.5',
    '+1',
    '--1',
    '1e',
    '0x1',
    'NaN',
    '1e400',
    '1 2',
    '- 1',
    '"1"',
    'null',
  ];
  assertSame(plain, '', 'plain');
  for (const gap of ['', ' ', '\n\t ']) {
    for (const text of [...other, ...broken]) {
      for (const at of [0, 3, plain.length]) {
        assertSame([...plain.slice(0, at), text, ...plain.slice(at)], gap, `${text} at ${at}`);
      }
    }
  }
});

test('random lists are read as the careful reader reads them', () => {
  let state = Math.floor(Math.random() * 2 ** 31) || 1;
  const seed = state;
  const next = (below: number): number => {
    state = (state * 48_271) % 0x7fffffff;
    return state % below;
  };
  const digits = (count: number): string => Array.from({ length: count }, () => next(10)).join('');
  for (let round = 0; round < 300; round++) {
    const texts = Array.from({ length: 1 + next(40) }, () => {
      const whole = next(4) === 0 ? '0' : `${1 + next(9)}${digits(next(next(8) === 0 ? 20 : 5))}`;
      const fraction = next(2) === 0 ? '' : `.${digits(1 + next(next(8) === 0 ? 30 : 8))}`;
      const exponent = next(12) === 0 ? `e${next(2) === 0 ? '-' : ''}${next(12)}` : '';
      return `${next(3) === 0 ? '-' : ''}${whole}${fraction}${exponent}`;
    });
    assertSame(texts, next(2) === 0 ? '' : ' ', `seed ${seed}`);
  }
});

test('too many and too few elements are told, and a list that does not end', () => {
  for (const [list, fault] of [
    ['[1,2,3]', /more than the 2 elements/],
    ['[1]', /needs 2 elements, not 1/],
    ['[]', /needs 2 elements, not 0/],
    ['[1,]', /expected a number/],
    ['[1,2', /not JSON/],
    ['[1 2]', /expected , or \]/],
    ['[1,[2]]', /expected a number/],
  ] as const) {
    assert.match(String(read('FP32', [2], list)), fault, list);
  }
});
