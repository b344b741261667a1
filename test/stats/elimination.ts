// Why: an adversary with all the time there is: everything that follows from published sums by adding and subtracting them
// with any factors, found by elimination over the rationals.
// Trusts: its caller for which atoms each sum is made of. Must never: round.

/** A sum: by atom its coefficient. */
export type Row = ReadonlyMap<string, number>;

interface Fraction {
  over: bigint;
  under: bigint;
}

const gcd = (a: bigint, b: bigint): bigint => {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x;
};
function fraction(over: bigint, under: bigint): Fraction {
  const divisor = (under < 0n ? -1n : 1n) * (gcd(over, under) || 1n);
  return { over: over / divisor, under: under / divisor };
}
const zero = fraction(0n, 1n);
const minus = (a: Fraction, b: Fraction): Fraction =>
  fraction(a.over * b.under - b.over * a.under, a.under * b.under);
const times = (a: Fraction, b: Fraction): Fraction => fraction(a.over * b.over, a.under * b.under);
const by = (a: Fraction, b: Fraction): Fraction => fraction(a.over * b.under, a.under * b.over);
const isZero = ({ over }: Fraction): boolean => over === 0n;

/** Reduced rows that span the same space; none is zero. */
function reduced(matrix: Fraction[][]): Fraction[][] {
  const rows = matrix.map((row) => [...row]);
  const columns = rows[0]?.length ?? 0;
  let rank = 0;
  for (let column = 0; column < columns && rank < rows.length; column += 1) {
    const at = rows.findIndex((row, index) => index >= rank && !isZero(row[column] ?? zero));
    const pivot = rows[at];
    if (pivot === undefined) continue;
    rows[at] = rows[rank] ?? [];
    const lead = pivot[column] ?? zero;
    const scaled = pivot.map((one) => by(one, lead));
    rows[rank] = scaled;
    for (const [index, row] of rows.entries()) {
      const factor = row[column] ?? zero;
      if (index === rank || isZero(factor)) continue;
      rows[index] = row.map((one, place) => minus(one, times(factor, scaled[place] ?? zero)));
    }
    rank += 1;
  }
  return rows.slice(0, rank);
}

function* choices(from: number, count: number, start = 0): Generator<number[]> {
  if (count === 0) yield [];
  else
    for (let first = start; first <= from - count; first += 1)
      for (const rest of choices(from, count - 1, first + 1)) yield [first, ...rest];
}

/** Factors of the rows with which the chosen columns vanish, where they are settled up to a scale. */
function vanishing(rows: Fraction[][], columns: readonly number[]): Fraction[] | null {
  const rank = rows.length;
  // One equation for each column, one unknown for each row.
  const solved = reduced(columns.map((column) => rows.map((row) => row[column] ?? zero)));
  if (solved.length !== rank - 1) return null;
  const leads = solved.map((row) => row.findIndex((one) => !isZero(one)));
  const free = Array.from({ length: rank }, (_, at) => at).find((at) => !leads.includes(at)) ?? 0;
  const factors = Array.from({ length: rank }, () => zero);
  factors[free] = fraction(1n, 1n);
  for (const [at, lead] of leads.entries()) factors[lead] = minus(zero, solved[at]?.[free] ?? zero);
  return factors;
}

/**
 * The atoms of every combination from which none can be taken away by another combination: whatever else follows from the
 * sums holds all atoms of one of these.
 */
export function leastSums(sums: readonly Row[]): Set<string>[] {
  // Atoms that are in the same sums with the same factors are never told apart.
  const atoms = [...new Set(sums.flatMap((sum) => [...sum.keys()]))];
  const columns = new Map<string, { atoms: string[]; values: number[] }>();
  for (const atom of atoms) {
    const values = sums.map((sum) => sum.get(atom) ?? 0);
    const key = values.join();
    const column = columns.get(key) ?? { atoms: [], values };
    columns.set(key, column);
    column.atoms.push(atom);
  }
  const all = [...columns.values()];
  const matrix = sums.map((_, row) => all.map(({ values }) => fraction(BigInt(values[row] ?? 0), 1n)));
  const rows = reduced(matrix);
  if (rows.length === 0) return [];
  const found = new Map<string, Set<string>>();
  for (const chosen of choices(all.length, rows.length - 1)) {
    const factors = vanishing(rows, chosen);
    if (factors === null) continue;
    const support = all.filter((_, column) => {
      const value = rows.reduce(
        (sum, row, at) => minus(sum, minus(zero, times(factors[at] ?? zero, row[column] ?? zero))),
        zero,
      );
      return !isZero(value);
    });
    const names = support.flatMap((column) => column.atoms).sort();
    if (names.length > 0) found.set(names.join('|'), new Set(names));
  }
  return [...found.values()];
}
