// Why: what ONNX Runtime says of a graph it does not take, apart from what this machine could not do.
// Trusts: the words of ONNX Runtime 1.30. Must never: call a model invalid for what another machine could do.

import type { ErrorCode } from '../kernel/codes.ts';

const noMemory = /bad_alloc|Failed to allocate|out of memory/i;
const noFile = /ENOENT|EACCES|ENOSPC|doesn't exist|No such file/i;
const notBuiltIn = /backend not found|execution provider|Invalid argument: sessionOptions/i;

/** The code for words with which a model was not loaded. */
export function loadFailureCode(words: string): ErrorCode {
  const ofMachine = [noMemory, noFile, notBuiltIn].some((kind) => kind.test(words));
  return ofMachine ? 'model-load-failed' : 'model-invalid';
}

/** Whether it asked for more memory than it was given. */
export function saysNoMemory(words: string): boolean {
  return noMemory.test(words);
}

/** Colours that ONNX Runtime writes for a terminal, and what else a terminal would obey. */
const forTerminals = /\p{Cc}(\[[0-9;?]*[ -/]*[@-~])?/gu;

/** One line of bounded length, of letters alone. */
export function oneLine(words: unknown): string {
  const text = words instanceof Error ? words.message : String(words);
  const line = text.replace(/\s+/g, ' ').replace(forTerminals, '').trim();
  return line.length > 600 ? `${line.slice(0, 600)}…` : line;
}
