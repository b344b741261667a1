// Why: so many at one time and so many in line, first come first served: what is sent to a broker is bounded.
// Trusts: who took a slot to free it. Must never: let a line grow without a bound.

export interface Slots {
  /** False where the line is full, or was ended. */
  take(): Promise<boolean>;
  free(): void;
  /** Nobody gets one any more. */
  end(): void;
}

export function createSlots(atOnce: number, waitingMax: number): Slots {
  const line: ((mine: boolean) => void)[] = [];
  let first = 0;
  let taken = 0;
  let ended = false;
  return {
    take: async () => {
      if (ended || line.length - first >= waitingMax) return false;
      if (taken < atOnce) {
        taken += 1;
        return true;
      }
      return new Promise((resolve) => line.push(resolve));
    },
    free: () => {
      const next = line[first];
      if (next === undefined) {
        taken -= 1;
        return;
      }
      first += 1;
      // Not shifted one by one: that costs the length of the line.
      if (first > 1_024) {
        line.splice(0, first);
        first = 0;
      }
      next(true);
    },
    end: () => {
      ended = true;
      for (const wait of line.splice(0).slice(first)) wait(false);
      first = 0;
    },
  };
}
