// Why: how fast a table is read, prepared and trained on, and how much memory that takes, beside scikit-learn on the same
// numbers on this machine. Trusts: /usr/bin/python3 with python3-sklearn, where they are there.
// Must never: compare other numbers, layers or settings than those of the other side.

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRandom } from '../../registry/learn/random.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { residentMemory } from '../../shared/host/model-child.ts';
import { projectFolder } from '../support/data.ts';
import { programs } from '../support/programs.ts';
import { median, round } from './measure.ts';

const [rows, columns, epochs, batch] = [30_000, 23, 20, 200];
const layers = [64, 32];
const mib = 1024 * 1024;

/** As many numbers as the credit data has, of two classes that overlap. */
function made(): { x: Float64Array; y: Float64Array } {
  const random = createRandom(1);
  const x = new Float64Array(rows * columns);
  const y = new Float64Array(rows);
  for (let row = 0; row < rows; row += 1) {
    y[row] = row % 2;
    for (let column = 0; column < columns; column += 1)
      x[row * columns + column] = Math.fround(random.normal() + (column % 3 === 0 ? 0.3 * (row % 2) : 0));
  }
  return { x, y };
}

/** The whole command, in a process of its own, with the peak of its memory. */
async function command(folder: string, data: string): Promise<{ seconds: number; peakMiB: number }> {
  const args = [
    ...[
      'train',
      data,
      '--target',
      'y',
      '--hidden',
      layers.join(),
      '--epochs',
      String(epochs),
      '--batch',
      String(batch),
    ],
    ...['--patience', 'none', '--split', '0.9', '--out', join(folder, 'model'), '--force', '--json'],
  ];
  const startMs = systemClock.mono();
  const child = spawn(process.execPath, [programs.lepton, ...args], {
    stdio: 'ignore',
  });
  let peakBytes = 0;
  const looks = setInterval(() => {
    if (child.pid !== undefined) peakBytes = Math.max(peakBytes, residentMemory(child.pid)?.peakBytes ?? 0);
  }, 50);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearInterval(looks);
  if (code !== 0) throw new Error(`lepton train ended with ${code}`);
  return { seconds: (systemClock.mono() - startMs) / 1_000, peakMiB: peakBytes / mib };
}

/** Training alone, of scikit-learn in one process: seconds, or null where it is not there. */
function sklearnSeconds(folder: string): number | null {
  const program = `
import sys, time, warnings
import numpy as np
from sklearn.neural_network import MLPClassifier
warnings.filterwarnings("ignore")
x = np.fromfile("x.f64").reshape(-1, ${columns})
y = np.fromfile("y.f64").astype(int)
model = MLPClassifier(${JSON.stringify(layers).replace('[', '(').replace(']', ')')}, batch_size=${batch}, max_iter=${epochs}, n_iter_no_change=${epochs}, tol=0, random_state=1)
begun = time.perf_counter()
model.fit(x, y)
print(time.perf_counter() - begun)
`;
  const done = spawnSync('/usr/bin/python3', ['-c', program], { cwd: folder, encoding: 'utf8' });
  return done.status === 0 ? Number(done.stdout) : null;
}

async function ourSeconds(folder: string): Promise<number> {
  const done = spawnSync(
    process.execPath,
    [
      join(projectFolder, 'dist/test/bench/learn-child.js'),
      String(columns),
      layers.join(),
      String(epochs),
      String(batch),
    ],
    {
      cwd: folder,
      encoding: 'utf8',
    },
  );
  if (done.status !== 0) throw new Error(done.stderr);
  return Number(done.stdout);
}

export async function benchLearn(): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-bench-learn-'));
  try {
    const { x, y } = made();
    writeFileSync(join(folder, 'x.f64'), Buffer.from(x.buffer));
    writeFileSync(join(folder, 'y.f64'), Buffer.from(y.buffer));
    const data = join(folder, 'data.csv');
    const lines = Array.from(
      { length: rows },
      (_, row) => `${[...x.subarray(row * columns, (row + 1) * columns)].join()},${y[row]}`,
    );
    writeFileSync(
      data,
      `${Array.from({ length: columns }, (_, at) => `x${at}`).join()},y\n${lines.join('\n')}\n`,
    );
    const own: number[] = [];
    const theirs: number[] = [];
    // One after the other, so that a busy moment meets both.
    for (let turn = 0; turn < 3; turn += 1) {
      own.push(await ourSeconds(folder));
      const seconds = sklearnSeconds(folder);
      if (seconds !== null) theirs.push(seconds);
    }
    const whole = await command(folder, data);
    const dataMiB = (rows * (columns + 1) * 8) / mib;
    return {
      ...{ rows, columns, layers: layers.join('-'), epochs, batch },
      seconds: round(median(own)),
      rowsPerSecond: Math.round((rows * epochs) / median(own)),
      sklearnSeconds: theirs.length === 0 ? null : round(median(theirs)),
      timesSklearn: theirs.length === 0 ? null : round(median(own) / median(theirs)),
      command: { seconds: round(whole.seconds), peakMiB: Math.round(whole.peakMiB), dataMiB: round(dataMiB) },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
