// Why: the devices of a cell and those of the same cell some days before are either the same or differ by many: a machine
// that does every day what it did the day before would otherwise be the difference of two cells.
// Trusts: its caller for the sets that were published. Must never: add a device that is not there.

export type Members = ReadonlySet<string>;

/** How many days back cells are compared: what was counted longer ago tells little of today. */
export const neighbourDays = 7;

function apart(one: Members, other: Members): number {
  let both = 0;
  for (const device of one) if (other.has(device)) both += 1;
  return one.size + other.size - 2 * both;
}

/** Whether nobody, or at least `devicesMin`, came or went against each of the sets before. */
export function keepsApart(members: Members, before: readonly Members[], devicesMin: number): boolean {
  return before.every((set) => {
    const count = apart(members, set);
    return count === 0 || count >= devicesMin;
  });
}

/** Newcomers wait until they are enough; where a few left, so many more are left out that nobody can tell who it was. */
function nearTo(set: Members, present: readonly string[], devicesMin: number): Set<string> {
  const same = present.filter((device) => set.has(device));
  const left = set.size - same.length;
  // The last in order: names are digests, so that this says nothing about what they do.
  return new Set(left === 0 ? same : same.slice(0, Math.max(0, same.length - (devicesMin - left))));
}

/** The most devices that may be counted today; null where no choice keeps apart from the days before. */
export function chooseCohort(
  present: Members,
  before: readonly Members[],
  devicesMin: number,
): Set<string> | null {
  const sorted = [...present].sort();
  const candidates = [new Set(sorted), ...before.map((set) => nearTo(set, sorted, devicesMin))];
  return candidates
    .filter((one) => one.size > 0 && keepsApart(one, before, devicesMin))
    .reduce<Set<string> | null>((best, one) => (best === null || one.size > best.size ? one : best), null);
}
