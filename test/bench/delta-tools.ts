// Why: what general tools make of the same pair of files, in the same run. Trusts: the Debian packages zstd, xdelta3 and
// bsdiff. Must never: take an absent or failed tool for a small patch.

import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../shared/host/clock.ts';
import { round } from './measure.ts';

export interface ToolResult {
  bytes: number;
  tookMs: number;
}

interface Tool {
  program: string;
  arguments(base: string, target: string, patch: string): string[];
}

/** The flags are those that the promise names. */
const tools = {
  zstd: {
    program: 'zstd',
    arguments: (base, target, patch) => [
      '-19',
      '--ultra',
      '--long=27',
      '-q',
      '-f',
      `--patch-from=${base}`,
      target,
      '-o',
      patch,
    ],
  },
  xdelta3: {
    program: 'xdelta3',
    arguments: (base, target, patch) => ['-9', '-e', '-f', '-s', base, target, patch],
  },
  bsdiff: { program: 'bsdiff', arguments: (base, target, patch) => [base, target, patch] },
} satisfies Record<string, Tool>;
export type ToolName = keyof typeof tools;
export const toolNames = Object.keys(tools) as ToolName[];

/** Null, after a word on stderr, where the tool is not installed. */
export function runTool(name: ToolName, folder: string, base: string, target: string): ToolResult | null {
  const tool: Tool = tools[name];
  const patch = join(folder, `${name}.patch`);
  const before = systemClock.mono();
  const done = spawnSync(tool.program, tool.arguments(base, target, patch), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const tookMs = round(systemClock.mono() - before);
  if (done.error !== undefined && 'code' in done.error && done.error.code === 'ENOENT') {
    process.stderr.write(`${name} is not installed (Debian package ${tool.program}): its column is empty\n`);
    return null;
  }
  if (done.status !== 0) throw new Error(`${name}: ${done.error?.message ?? done.stderr.toString()}`);
  return { bytes: statSync(patch).size, tookMs };
}
