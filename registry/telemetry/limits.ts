// Why: how much telemetry the registry takes at once, and for how long a key is good, each with its reason.
// Trusts: nothing. Must never: be read from the network.

const MiB = 1024 * 1024;

export const telemetryLimits = {
  /** A device's region key: what is erased at once when one key is deleted (DESIGN 8). */
  keyPeriodMs: 30 * 86_400_000,
  /** Messages of one device that wait. It sends at most `outboxWindow` of them and then waits for answers. */
  waitingPerDeviceMax: 16,
  /** Bytes that wait, of all devices: at 100 KiB a batch several seconds of work. */
  waitingBytesMax: 64 * MiB,
  /** From this share of `waitingBytesMax` on devices are asked to slow down: the rest is for those who did not hear yet. */
  waitingCalmShare: 0.125,
  /** What they are asked to wait: the time that the queue needs, within these bounds. */
  pauseMsMin: 250,
  pauseMsMax: 30_000,
  /** Batches stored by one commit: one sync of the disk for all that waited for it. */
  groupBatchesMax: 64,
  /** Opened records of one group in memory, in clear; one batch may be larger than that. */
  groupPlainBytesMax: 16 * MiB,
  /** One batch in clear. A message has 256 KiB; JSON records that compress better than 64:1 say nothing. */
  batchPlainBytesMax: 16 * MiB,
} as const;
