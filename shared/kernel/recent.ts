// Why: what was made lately and would be made again, such as a parsed key, with a bound on how much is kept.
// Trusts: nothing. Must never: grow over its bound.

export interface Recent<Value> {
  get(name: string): Value | undefined;
  /** What was kept longest ago makes room. */
  set(name: string, value: Value): void;
}

/** Keeps at most `max` values by name. */
export function createRecent<Value>(max: number): Recent<Value> {
  const kept = new Map<string, Value>();
  return {
    get: (name) => kept.get(name),
    set: (name, value) => {
      const oldest = kept.keys().next();
      if (kept.size >= max && !kept.has(name) && oldest.done !== true) kept.delete(oldest.value);
      kept.set(name, value);
    },
  };
}
