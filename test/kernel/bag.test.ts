// Why: what is put into a bag is there until it is taken out, once. Trusts: a list. Must never: expect an order.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bag } from '../../shared/kernel/bag.ts';

test('a bag holds what a list would', () => {
  const step = fc.tuple(fc.constantFrom('add', 'delete', 'delete', 'clear'), fc.nat(6));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const bag = new Bag<number>();
      let list: number[] = [];
      for (const [what, item] of steps) {
        if (what === 'clear') {
          assert.deepEqual(bag.clear().sort(), list.sort());
          list = [];
        } else if (what === 'delete') {
          assert.equal(bag.delete(item), list.includes(item));
          list = list.filter((other) => other !== item);
        } else if (!list.includes(item)) {
          bag.add(item);
          list.push(item);
        }
        assert.deepEqual([...bag.items].sort(), list.sort());
      }
    }),
  );
});
