// Why: how long what the registry issues is good for, and how much it keeps, each with its reason.
// Trusts: nothing. Must never: be read from the network.

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

export const fleetLimits = {
  /** An assignment outlives a holiday without network; a stolen director's last word ends with it. */
  assignmentMs: 30 * dayMs,
  /** Signed again at half its life, so that a device always holds one with two weeks to go. */
  assignmentRenewBeforeMs: 15 * dayMs,
  renewEveryMs: hourMs,
  /** A retained message that the bus did not take is offered again after this. */
  publishRetryMs: 1_000,
  /** Device certificates. Renewal over the bus is a later version's; until then one enrols again. */
  deviceCertificateMs: 366 * dayMs,
  /** Issued backwards by this much: a device's clock may be a little behind. */
  certificateBackdateMs: hourMs,
  labelsMax: 64,
  /** Fleet events kept; the oldest go first. */
  eventsKept: 20_000,
  eventsPruneEvery: 256,
  /** Events of one code that strangers can cause: this many at once, then this many a second. */
  strangerEventsBurst: 200,
  strangerEventsPerSecond: 5,
  /** Read from disk at once while serving a fetch: four frames, what may be in flight for a device. */
  fetchReadBytes: 256 * 1024,
  /** Digests of releases remembered for the check whether a device may have a blob. */
  releasesRemembered: 256,
} as const;
