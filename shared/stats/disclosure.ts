// Why: when a sum over devices says too much about one of them, by two rules of statistical disclosure control: the
// threshold rule (enough contributors) and the p% rule (no contributor can work out another closely); and how counts
// that say too much are pooled with others, so that no subtraction brings them back.
// Trusts: its callers for one number a device. Must never: call a sum safe because of who asks for it.
// Source: Hundepool et al., Statistical Disclosure Control (2012), chapter 4: primary and secondary suppression.

export interface DisclosureTerms {
  /** k: devices that a number must be made of at least. */
  devicesMin: number;
  /** p: the second largest contributor, who knows its own part, must not be able to tell the largest to within p percent. */
  percent: number;
}

export const disclosurePercent = 10;

export type SensitiveBy = 'cells/k' | 'cells/dominance';

/** Why the sum of these must not be told; null where it may. Zeros are no contributions. */
export function sensitive(parts: Iterable<number>, terms: DisclosureTerms): SensitiveBy | null {
  let devices = 0;
  let sum = 0;
  let largest = 0;
  let second = 0;
  for (const part of parts) {
    if (part <= 0) continue;
    devices += 1;
    sum += part;
    if (part > largest) {
      second = largest;
      largest = part;
    } else if (part > second) second = part;
  }
  if (devices < terms.devicesMin) return 'cells/k';
  return sum - largest - second < (terms.percent / 100) * largest ? 'cells/dominance' : null;
}

/** What each device has in one block of counts. */
export type Block = ReadonlyMap<string, number>;

export const sumOf = (block: Block): number => {
  let sum = 0;
  for (const part of block.values()) sum += part;
  // Devices may say any number: what is no whole number any more would fit no schema.
  return Math.min(Number.MAX_SAFE_INTEGER, sum);
};

export function addBlock(into: Map<string, number>, block: Block): void {
  for (const [device, part] of block) into.set(device, (into.get(device) ?? 0) + part);
}

/**
 * Devices that are in one of two sums alone. Where every device has the same in both (each answered request was one row),
 * their difference is exactly what these have: it must be nothing, or a sum that may be told.
 */
export function isSafeApart(one: Block, other: Block, terms: DisclosureTerms): boolean {
  const only = (here: Block, there: Block): number[] =>
    [...here].flatMap(([device, part]) => (part > 0 && (there.get(device) ?? 0) <= 0 ? [part] : []));
  return [only(one, other), only(other, one)].every(
    (parts) => parts.length === 0 || sensitive(parts, terms) === null,
  );
}

/**
 * Which of the blocks of a whole stay by themselves, by index: the others are told as one sum or not at all. That sum is
 * known anyway, as the whole less what stays, so it grows by the smallest that stays until it may be told. The whole itself
 * must be safe: in the worst case nothing stays.
 */
export function blocksThatStay(blocks: readonly Block[], terms: DisclosureTerms): boolean[] {
  const stays = blocks.map((block) => sensitive(block.values(), terms) === null);
  const pool = new Map<string, number>();
  for (const [at, block] of blocks.entries()) if (stays[at] === false) addBlock(pool, block);
  const bySize = blocks
    .map((block, at) => ({ at, size: sumOf(block) }))
    .filter(({ at }) => stays[at] === true)
    .sort((a, b) => a.size - b.size || a.at - b.at);
  for (const { at } of bySize) {
    if (sumOf(pool) === 0 || sensitive(pool.values(), terms) === null) break;
    stays[at] = false;
    addBlock(pool, blocks[at] ?? new Map());
  }
  // Where nothing had to be hidden, that a block is empty is no secret either.
  return sumOf(pool) === 0 ? blocks.map(() => true) : stays;
}
