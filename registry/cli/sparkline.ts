// Why: a distribution in a few characters of a terminal, so that a change of shape is seen and not only computed.
// Trusts: its caller for shares. Must never: draw a bin that holds something as empty.

const blocks = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const;

/** Neighbouring bins are added where there are more than `width`. An empty bin is a space, the greatest a full block. */
export function sparkline(shares: readonly number[], width = 24): string {
  const columns = Math.min(width, shares.length);
  const sums = Array.from({ length: columns }, (_, at) => {
    const from = Math.floor((at * shares.length) / columns);
    const until = Math.floor(((at + 1) * shares.length) / columns);
    return shares.slice(from, until).reduce((sum, one) => sum + one, 0);
  });
  const most = Math.max(...sums, 0);
  if (most === 0) return ' '.repeat(columns);
  return sums
    .map((sum) =>
      sum === 0 ? ' ' : blocks[Math.min(blocks.length - 1, Math.floor((sum / most) * blocks.length))],
    )
    .join('');
}
