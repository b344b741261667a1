// Why: large tensors through the file that agent and child share: every datatype, more than fits, a child that lies,
// a child that dies, and no descriptor, page or name left behind. Real children; needs no data folder.
// Trusts: false-child.ts to lie. Must never: count on /dev/shm where the system has none: what then remains to be
// shown goes through the socket.

import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import {
  type ModelProcess,
  type ModelProcessOptions,
  neverBegun,
  startModelProcess,
} from '../../agent/inference/process.ts';
import { openSharedFile, partBytes, windowBytes } from '../../agent/inference/shared-file.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';
import { type ModelSpec, modelFile } from '../onnx/models.ts';
import { projectFolder } from '../support/data.ts';
import { loneSlot } from './lone-slot.ts';

const folder = mkdtempSync(join(tmpdir(), 'lepton-shared-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const patienceMs = 30_000;
const inMemory = openSharedFile();
inMemory?.close();
const noFile = inMemory === null ? 'this system has no folder in memory' : false;
const falseChild = new URL('./false-child.js', import.meta.url);

function start(options: ModelProcessOptions = {}): ModelProcess {
  const child = startModelProcess(systemClock, options);
  after(() => child.kill());
  return child;
}

let models = 0;
async function serve(model: ModelSpec, options: ModelProcessOptions = {}): Promise<ModelProcess> {
  const modelPath = join(folder, `${models++}.onnx`);
  writeFileSync(modelPath, modelFile(model));
  const child = start(options);
  const load = { kind: 'load' as const, modelPath, external: null, threads: 1, providers: ['cpu'] };
  unwrap(await child.ask(load, [], patienceMs));
  return child;
}

const run = (child: ModelProcess, inputs: Tensor[], outputs: string[] = ['y'], timeoutMs = patienceMs) =>
  child.ask({ kind: 'run', outputs }, inputs, timeoutMs);

const outcomeOf = async (asked: ReturnType<typeof run>): Promise<string> => {
  const answer = await asked;
  if (answer.ok) return 'answered';
  return answer.refusal === neverBegun ? 'never begun' : answer.refusal.code;
};

/** A mark for each place, so that bytes of another place would be seen. */
function bytesOf(count: number, salt: number): Uint8Array {
  const data = new Uint8Array(count);
  for (let index = 0; index < count; index++) data[index] = (index * 31 + (index >>> 8) + salt) & 0xff;
  return data;
}

const view = <T>(array: new (buffer: ArrayBufferLike) => T, bytes: Uint8Array): T => new array(bytes.buffer);
const count = 40_000;
/** TensorProto.DataType, and data that is too large for the socket's share. */
const samples: [Tensor['datatype'], number, TensorData][] = [
  ['BOOL', 9, bytesOf(count, 1).map((value) => value & 1)],
  ['INT8', 3, view(Int8Array, bytesOf(count, 2))],
  ['INT16', 5, view(Int16Array, bytesOf(count * 2, 3))],
  ['INT32', 6, view(Int32Array, bytesOf(count * 4, 4))],
  ['INT64', 7, view(BigInt64Array, bytesOf(count * 8, 5))],
  ['UINT8', 2, bytesOf(count, 6)],
  ['UINT16', 4, view(Uint16Array, bytesOf(count * 2, 7))],
  ['UINT32', 12, view(Uint32Array, bytesOf(count * 4, 8))],
  ['UINT64', 13, view(BigUint64Array, bytesOf(count * 8, 9))],
  ['FP16', 10, view(Uint16Array, bytesOf(count * 2, 10)).map((bits) => bits & 0x7bff)],
  ['FP32', 1, Float32Array.from({ length: count }, (_, index) => index / 7)],
  ['FP64', 11, Float64Array.from({ length: count }, (_, index) => -index / 3)],
  ['BYTES', 8, Array.from({ length: count }, (_, index) => `žluť ${index}`)],
];

const identity = (elemType: number): ModelSpec => ({
  inputs: [{ name: 'x', elemType, shape: ['n'] }],
  outputs: [{ name: 'y', elemType, shape: ['n'] }],
});

/** One child with an input and an output of each datatype. */
const everyType: ModelSpec = {
  inputs: samples.map(([datatype, elemType]) => ({ name: `x ${datatype}`, elemType, shape: ['n'] })),
  outputs: samples.map(([datatype, elemType]) => ({ name: `y ${datatype}`, elemType, shape: ['n'] })),
  nodes: samples.map(([datatype]) => ({
    opType: 'Identity',
    inputs: [`x ${datatype}`],
    outputs: [`y ${datatype}`],
  })),
};

/** The pages that the file takes. */
const pagesOf = (child: ModelProcess): number => statSync(`/proc/${child.pid}/fd/4`).blocks * 512;

const ways: [string, ModelProcessOptions][] = [
  ['with a file in memory, where there is one', {}],
  ['without', { sharedFolder: null }],
  ['with a folder that is not there', { sharedFolder: join(folder, 'nowhere') }],
];

for (const [way, options] of ways) {
  describe(`large tensors ${way}`, () => {
    test('every datatype comes back as it went, also with no elements', async () => {
      const child = await serve(everyType, options);
      const outputs = samples.map(([datatype]) => `y ${datatype}`);
      for (const elements of [count, 0, 3, count]) {
        const shape = [elements];
        const given = samples.map(([datatype, , data]) => ({
          datatype,
          shape,
          data: data.slice(0, elements),
        }));
        const inputs = given.map((tensor) => ({ name: `x ${tensor.datatype}`, ...tensor }));
        const answer = unwrap(await run(child, inputs, outputs));
        assert.deepEqual(
          answer.tensors,
          given.map((tensor) => ({ name: `y ${tensor.datatype}`, ...tensor })),
          `${elements} elements`,
        );
      }
    });

    test('more than a window, and many times what a socket holds', async () => {
      const child = await serve(identity(2), options);
      for (const length of [windowBytes + 1, 3 * 1024 * 1024, windowBytes]) {
        const data = bytesOf(length, 11);
        const answer = unwrap(await run(child, [{ name: 'x', datatype: 'UINT8', shape: [length], data }]));
        assert.ok(Buffer.from(data).equals(answer.tensors[0]?.data as Uint8Array), `${length} bytes`);
      }
    });

    test('tensors of one request below, at and above the size at which they come in parts', async () => {
      const sizes = [2 * partBytes + 3, 100_000, partBytes, 5 * partBytes, 40, partBytes + 1];
      const names = sizes.map((_, index) => String(index));
      const child = await serve(
        {
          inputs: names.map((name) => ({ name: `x${name}`, elemType: 2, shape: ['n'] })),
          outputs: names.map((name) => ({ name: `y${name}`, elemType: 2, shape: ['n'] })),
          nodes: names.map((name) => ({ opType: 'Identity', inputs: [`x${name}`], outputs: [`y${name}`] })),
        },
        options,
      );
      const ask = async (salt: number): Promise<void> => {
        const tensors = sizes.map((length, index): Omit<Tensor, 'name'> => {
          return { datatype: 'UINT8', shape: [length], data: bytesOf(length, salt + index) };
        });
        const inputs = tensors.map((tensor, index) => ({ name: `x${index}`, ...tensor }));
        const outputs = names.map((name) => `y${name}`);
        const answer = unwrap(await run(child, inputs, outputs));
        for (const [index, { data }] of tensors.entries())
          assert.ok(Buffer.from(data as Uint8Array).equals(answer.tensors[index]?.data as Uint8Array));
      };
      // At once: parts of the second are told while the first is under way.
      await Promise.all([ask(1), ask(50), ask(100)]);
    });

    test('answers of the same sizes again and again, then of others: each output has memory of its own', async () => {
      const child = await serve(
        {
          inputs: ['x0', 'x1'].map((name) => ({ name, elemType: 2, shape: ['n'] })),
          outputs: ['y0', 'y1'].map((name) => ({ name, elemType: 2, shape: ['n'] })),
          nodes: [0, 1].map((index) => ({
            opType: 'Identity',
            inputs: [`x${index}`],
            outputs: [`y${index}`],
          })),
        },
        options,
      );
      const one = 2 * partBytes + 100;
      const sizes = [
        ...Array.from({ length: 4 }, () => [one, one]),
        [3 * one, one],
        ...Array.from({ length: 4 }, () => [one, 3 * one]),
        [40, 100_000],
        ...Array.from({ length: 4 }, () => [100_000, 40]),
        [one, one],
      ];
      const seen: { want: Uint8Array; got: Uint8Array }[] = [];
      // One after the other: what is prepared for an answer is prepared when its request goes.
      for (const [salt, lengths] of sizes.entries()) {
        const given = lengths.map((length, index) => bytesOf(length, 2 * salt + index));
        const inputs = given.map((data, index): Tensor => {
          return { name: `x${index}`, datatype: 'UINT8', shape: [data.length], data };
        });
        const { tensors } = unwrap(await run(child, inputs, ['y0', 'y1']));
        for (const [index, want] of given.entries())
          seen.push({ want, got: tensors[index]?.data as Uint8Array });
      }
      for (const [index, { want, got }] of seen.entries())
        assert.ok(Buffer.from(want).equals(got), `${index}: ${want.length} bytes`);
    });

    test('an answer that is larger than its request by far', async () => {
      const child = await serve(
        {
          inputs: [
            { name: 'x', elemType: 1, shape: [1] },
            { name: 'size', elemType: 7, shape: [2] },
          ],
          outputs: [{ name: 'y', elemType: 1, shape: ['n', 'm'] }],
          nodes: [{ opType: 'Expand', inputs: ['x', 'size'] }],
        },
        options,
      );
      // 4 bytes in; 4 MB, 24 MB (more than a window) and 0 bytes out.
      for (const shape of [
        [1_000, 1_000],
        [6_000, 1_000],
        [0, 5],
      ]) {
        const inputs: Tensor[] = [
          { name: 'x', datatype: 'FP32', shape: [1], data: Float32Array.of(2.5) },
          { name: 'size', datatype: 'INT64', shape: [2], data: BigInt64Array.from(shape, BigInt) },
        ];
        const [output] = unwrap(await run(child, inputs)).tensors;
        assert.ok(output !== undefined);
        assert.deepEqual(output.shape, shape);
        assert.ok((output.data as Float32Array).every((value) => value === 2.5));
      }
    });

    test('several under way at once: each gets its own answer, in order', async () => {
      const child = await serve(identity(2), options);
      const order: number[] = [];
      await Promise.all(
        Array.from({ length: 12 }, async (_, index) => {
          const data = bytesOf(index % 3 === 0 ? 100 : 200_000 + index, index);
          const asked = run(child, [{ name: 'x', datatype: 'UINT8', shape: [data.length], data }]);
          const [output] = unwrap(await asked).tensors;
          order.push(index);
          assert.ok(Buffer.from(data).equals(output?.data as Uint8Array), `request ${index}`);
        }),
      );
      assert.deepEqual(
        order,
        [...order].sort((a, b) => a - b),
      );
    });
  });
}

const large = (salt: number): Tensor[] => [
  { name: 'x', datatype: 'UINT8', shape: [200_000], data: bytesOf(200_000, salt) },
];

describe('a child that cannot be trusted', () => {
  const lies = [
    'beyond the window',
    'another window',
    'beyond the file',
    'the same bytes twice',
    'a negative offset',
    'half an offset',
    'an endless length',
    'a part beyond the window',
    'a part of another window',
    'a part beyond the file',
    'a part of a part',
    'a part that is more than the whole',
    'the same part twice',
    'parts of tensors that overlap',
    'a part with tensors',
  ];
  const nonsense = [
    'bytes that are not there',
    'another id',
    'no time',
    'a negative time',
    'an unknown kind',
    'an unknown datatype',
    'a rank of 17',
    'numbers for strings',
    'no JSON',
    'an endless frame',
  ];
  for (const deed of [...lies, ...nonsense]) {
    test(`${deed}: distrusted and ended`, { skip: lies.includes(deed) && noFile }, async () => {
      const child = start({ entry: falseChild });
      assert.equal(await outcomeOf(run(child, large(1), ['echo'])), 'answered', 'it can do right');
      const [first, behind] = await Promise.all([
        outcomeOf(run(child, large(2), [deed])),
        outcomeOf(run(child, [], ['hang'])),
      ]);
      assert.deepEqual([first, behind], ['model-crashed', 'never begun']);
      assert.match((await child.exited).reason, /SIGKILL \(.*(inference pipe|JSON)/);
      assert.equal(await outcomeOf(run(child, large(4), ['echo'])), 'model-crashed', 'and not asked again');
    });
  }

  test('an offset in a file that was never offered', async () => {
    for (const deed of ['another window', 'a part of another window']) {
      const child = start({ entry: falseChild, sharedFolder: null });
      assert.equal(await outcomeOf(run(child, large(1), [deed])), 'model-crashed');
      assert.match((await child.exited).reason, /not offered/);
    }
  });

  test('killed in mid-write: the one is told, the next child gives right answers', async () => {
    for (const deed of ['die in mid-write', 'die']) {
      const child = start({ entry: falseChild });
      const asked = [deed, 'echo', 'echo'].map((what, salt) => outcomeOf(run(child, large(salt), [what])));
      assert.deepEqual(await Promise.all(asked), ['model-crashed', 'never begun', 'never begun']);
    }
    const next = start({ entry: falseChild });
    assert.deepEqual(unwrap(await run(next, large(5), ['echo'])).tensors, large(5));
  });

  test('the deadline of a request begins when the child comes to it, and hits nobody else', async () => {
    const child = start({ entry: falseChild });
    assert.equal(await outcomeOf(run(child, [], ['echo'])), 'answered', 'it is up');
    // 200 ms each, more than the deadline together.
    const slow = Array.from({ length: 12 }, () => outcomeOf(run(child, large(1), ['slow'], 2_000)));
    const hanging = outcomeOf(run(child, large(1), ['hang'], 300));
    const behind = outcomeOf(run(child, large(1), ['echo'], 300));
    assert.deepEqual(await Promise.all(slow), Array(12).fill('answered'));
    assert.deepEqual([await hanging, await behind], ['infer-deadline', 'never begun']);
  });

  test('one request that kills the model, among others in its pipe: the others are answered', async () => {
    const slot = loneSlot(() => start({ entry: falseChild }), { deadlineMs: patienceMs });
    after(() => slot.close());
    unwrap(await slot.start());
    // Its first run tells that the model is fast.
    for (let index = 0; index < 2; index++) unwrap(await slot.run(large(0), ['echo'], 'client'));
    const asked = Array.from({ length: 10 }, async (_, index) => {
      const [deed, from] = index === 4 ? (['die', 'probe'] as const) : (['echo', 'client'] as const);
      const answer = await slot.run(large(index), [deed], from);
      if (!answer.ok) return answer.refusal.code;
      return Buffer.from(bytesOf(200_000, index)).equals(answer.value.outputs[0]?.data as Uint8Array);
    });
    const expected = Array.from({ length: 10 }, (_, index) => (index === 4 ? 'model-crashed' : true));
    assert.deepEqual(await Promise.all(asked), expected);
    assert.equal(slot.restarts().crashed, 1);
  });
});

test('tensors lie where memory for them is copied fast: never 1 to 31 bytes before it in their pages', {
  skip: noFile,
}, () => {
  const file = openSharedFile();
  assert.ok(file !== null);
  const areas = [file.acquire(), file.acquire()];
  const sizes = [40_000, 2 * partBytes + 3, 4_096, 1, windowBytes - 8 * partBytes];
  let end = 0;
  for (const area of areas) {
    assert.ok(area !== null);
    for (const bytes of sizes) {
      const at = area.inputs.put(new Uint8Array(bytes), () => undefined);
      assert.ok(at !== null && at >= end, 'one behind the other');
      end = at + bytes;
      // Where malloc gives pages of their own, it begins 16 bytes behind the start of the first.
      const behind = (16 + 4_096 - (at % 4_096)) % 4_096;
      assert.ok(behind === 0 || behind > 31, `${behind} bytes behind`);
    }
  }
  file.close();
});

describe('nothing stays behind', { skip: noFile }, () => {
  test('the file has no name, and its pages are given back after a large request', async () => {
    const child = start({ entry: falseChild });
    await run(child, large(1), ['echo']);
    assert.equal(statSync(`/proc/${child.pid}/fd/4`).nlink, 0);
    const kept = pagesOf(child);
    assert.ok(kept >= 400_000 && kept <= 8 * 1024 * 1024, `${kept} bytes are kept for the next one`);
    const length = windowBytes - 8;
    const big: Tensor[] = [{ name: 'x', datatype: 'UINT8', shape: [length], data: bytesOf(length, 1) }];
    assert.deepEqual(unwrap(await run(child, big, ['echo'])).tensors, big);
    assert.equal(pagesOf(child), 0);
    assert.deepEqual(unwrap(await run(child, large(2), ['echo'])).tensors, large(2), 'and used again');
  });

  test('no descriptor after 200 children', async () => {
    const open = (): number => readdirSync('/proc/self/fd').length;
    const round = async (): Promise<void> => {
      const children = Array.from({ length: 10 }, () => start());
      for (const child of children) child.kill();
      await Promise.all(children.map(({ exited }) => exited));
    };
    await round();
    const before = open();
    for (let index = 0; index < 20; index++) await round();
    assert.ok(open() <= before, `${open()} descriptors, ${before} before`);
  });

  test('a folder on a disk is not taken for memory', () => {
    // The sources lie on a disk wherever somebody works on them; in memory the test says nothing.
    const file = openSharedFile(projectFolder);
    const path = file === null ? null : readlinkSync(`/proc/self/fd/${file.descriptor}`);
    file?.close();
    assert.ok(path === null || path.includes('(deleted)'));
  });
});

test('a child reports to nobody: the runtime’s own telemetry is off', {
  skip: process.platform !== 'linux',
}, async () => {
  const child = await serve(identity(1));
  const environment = readFileSync(`/proc/${child.pid}/environ`, 'utf8').split('\0');
  assert.ok(environment.includes('ORT_DISABLE_TELEMETRY=1'));
  const files = readdirSync(`/proc/${child.pid}/fd`).map((name) =>
    readlinkSync(`/proc/${child.pid}/fd/${name}`),
  );
  assert.deepEqual(
    files.filter((path) => path.includes('onnxruntime')),
    [],
  );
});
