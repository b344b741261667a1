// Why: how much of the audit record is read, kept and written at once, each with its reason.
// Trusts: nothing. Must never: bound what people with a right did; only what refusals and other regions can cause.

const dayMs = 86_400_000;

export const auditLimits = {
  /** Refusals of one token, or of one kind by strangers: this many at once, then one in so many seconds. The rest is counted. */
  refusals: { burst: 100, perSecond: 0.2, keysMax: 2_000 },
  /** Of one export, in one transaction. */
  exportEntries: 500,
  /** Heads of one region: all for this long, then the last of each day. One in five minutes is a hundred thousand a year. */
  peerHeadsAllMs: 30 * dayMs,
  /** And never more than this; the oldest go first. */
  peerHeadsMax: 20_000,
  /** Wrong or contradicting heads of one region that are noted: this many at once, then one in so many seconds. */
  peerFaults: { burst: 50, perSecond: 0.01, keysMax: 1_000 },
} as const;
