// Why: the turns of the event loop, beside its clock (clock.ts): what waits for the end of this one, what must not.
// Trusts: Node's `setImmediate`. Must never: be imported by a core, or leave `setImmediate` changed.

/** Calls `task` when everything was handled that this turn of the event loop brought. */
export function atEndOfTurn(task: () => void): void {
  setImmediate(task);
}

/** The next turn: what native code put off until then has been done. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Runs `work` with every `setImmediate` in it done at once. For code that puts off to the next turn what then blocks
 * the process anyway: where nothing else goes on, the turn is a detour of several system calls.
 */
export function withoutTurns<T>(work: () => T): T {
  const later = globalThis.setImmediate;
  const now = (task: () => void): void => task();
  globalThis.setImmediate = now as typeof setImmediate;
  try {
    return work();
  } finally {
    globalThis.setImmediate = later;
  }
}
