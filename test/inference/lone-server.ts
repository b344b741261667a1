// Why: the device's HTTP in a process of its own, so that a test can see it die and measure its memory.
// Run as a program: prints `{"url", "pid"}` when it listens, ends when its input ends.
// Trusts: the test that starts it. Must never: outlive that test.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { modelFile } from '../onnx/models.ts';
import { openStage, startHttp } from './staging.ts';

export const loneLimits = { bytesMax: 4 * 1024 * 1024, timeoutMs: 3_000, totalBytesMax: 16 * 1024 * 1024 };

export interface LoneServer {
  url: string;
  pid: number;
  /** What ended it, null while it lives. */
  ended(): string | null;
  close(): Promise<void>;
}

async function main(): Promise<void> {
  const stage = openStage();
  const echo = (as: string, elemType: number, shape: (number | string)[]) => {
    const bytes = modelFile({
      inputs: [{ name: 'x', elemType, shape }],
      outputs: [{ name: 'y', elemType, shape }],
    });
    return stage.serve(as, [{ path: 'model.onnx', role: 'model', bytes }]);
  };
  await echo('ints', 7, ['n']);
  await echo('floats', 1, ['n', 2]);
  await echo('texts', 8, ['n']);
  await echo('flags', 9, ['n']);
  const value = (name: string) => ({ name, elemType: 1, shape: ['n'] });
  const nodes = ['1', '2'].map((n) => ({ opType: 'Identity', inputs: [`x${n}`], outputs: [`y${n}`] }));
  const pair = modelFile({ inputs: [value('x1'), value('x2')], outputs: [value('y1'), value('y2')], nodes });
  await stage.serve('pair', [{ path: 'model.onnx', role: 'model', bytes: pair }]);
  const http = await startHttp(stage, { body: loneLimits });
  process.stdout.write(`${JSON.stringify({ url: http.url, pid: process.pid })}\n`);
  await new Promise((resolve) => process.stdin.resume().once('end', resolve));
  await http.close();
  await stage.close();
}

export async function startLoneServer(): Promise<LoneServer> {
  const child: ChildProcess = spawn(process.execPath, [fileURLToPath(import.meta.url)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let ended: string | null = null;
  const exited = new Promise<void>((resolve) =>
    child.once('close', (code, signal) => {
      ended = signal ?? `exit ${code}`;
      resolve();
    }),
  );
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('no pipes');
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: stdout }).once('line', resolve);
    void exited.then(() => reject(new Error(`the server ended: ${ended}`)));
  });
  return {
    ...(JSON.parse(line) as { url: string; pid: number }),
    ended: () => ended,
    close: async () => {
      stdin.end();
      await exited;
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
