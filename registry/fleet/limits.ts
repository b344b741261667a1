// Why: how long what the registry issues is good for, and how much it keeps, each with its reason.
// Trusts: nothing. Must never: be read from the network.

import { limits } from '../../shared/kernel/limits.ts';

const MiB = 1024 * 1024;
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
  /** A device that reports an older epoch so long after a newer one was issued never got it: a broker may have lost it. */
  republishAfterMs: 60_000,
  /** And not more often than this, for one device. */
  republishEveryMs: 5 * 60_000,
  /** Device certificates. Renewed over the bus long before; a year, for a device that was put away for months. */
  deviceCertificateMs: 366 * dayMs,
  /** A device that asks again within this time has lost the answer: it gets the same certificate. */
  renewRepeatMs: 60_000,
  /** Certificates of one device in a day; beyond that it gets its last one again. */
  renewalsPerDayMax: 24,
  /** Answers to questions after the time, of one device: this many at once, then one every two seconds. */
  timeBurst: 10,
  timePerSecond: 0.5,
  /** Devices whose rate is remembered; beyond it the longest silent are forgotten. */
  ratedDevicesMax: 50_000,
  /** A broker refuses everybody once its list has ended: it must outlive a fetching that failed for weeks. */
  revocationListMs: 30 * dayMs,
  /** How often is looked whether the broker's own certificates end. */
  serverCertificateEveryMs: dayMs,
  /** Files that one device may be giving back at one time, and bytes of all devices. */
  heldFilesPerDeviceMax: 4,
  heldBytesMax: 64 * MiB,
  /** Between two pieces of one file. */
  heldIdleMs: 60_000,
  /** Files of one device that are judged: this many at once, then one a second. */
  heldBurst: 128,
  heldPerSecond: 1,
  /** How long a file that was proven to have existed is waited for before we sign above its number without it. */
  healAfterMs: 3_000,
  /** Numbers alone raise this event at most so often. */
  restoreSuspectedEveryMs: hourMs,
  /** Parcels of metadata that are kept: one of a size for all devices that hold the same. */
  parcelsBytesMax: 64 * MiB,
  /** A device that fetches a parcel in several ranges must finish in this time. */
  parcelKeptMs: 2 * 60_000,
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
  /** Of one range, handed to the bus and not gone yet: the next frame is there when the last has left. */
  fetchWindowBytes: 128 * 1024,
  /** Parts of files that were read last: a fleet that updates reads the same ones, device after device. */
  readCacheBytesMax: 8 * MiB,
  /**
   * Devices that download at one time. Each takes up to half a megabyte of memory, and a line that is shared by more
   * brings all of them their files later, not sooner. The others wait, first come first served.
   */
  downloadsMax: 64,
  /** A question waits so long for its turn before it is told to ask again; below the device's own patience (15 s). */
  downloadWaitMs: 8_000,
  /** Who was told so keeps its place for this long. */
  downloadPlaceKeptMs: 10_000,
  /** A device that asks for nothing for this long lets the next one in: the time between two ranges on a slow line. */
  downloadIdleMs: 1_000,
  /** Where others wait a device has the turn for this long, then stands at the end again. */
  downloadTurnMs: 60_000,
  /** Least rate of a device, bytes a second over a window: whoever takes less keeps others from their turn. */
  downloadBytesPerSecondMin: 1_024,
  downloadSlowWindowMs: 30_000,
  /** Between two looks at those who wait, while there are any. */
  downloadLookMs: 250,
  /** Bytes of blobs a second for one device, and for all of them; 0: no limit. */
  deviceBytesPerSecondMax: 0,
  regionBytesPerSecondMax: 0,
  /** A new release is encoded against so many before it: what devices hold that were off for a while. */
  encodingReleasesBack: 3,
  /** Encoded files that are kept; what nobody asked for longest goes first. */
  encodingsBytesMax: 4_096 * MiB,
  /** What is to be encoded; beyond it the oldest is looked up again later. */
  encodingQueueMax: 256,
  /** Of them, what devices asked for: a catalogue of pairs must not be encoded on one device's word. */
  encodingDemandMax: 64,
  /** Bases of one question for which an encoding is made. */
  encodingDemandPerAsk: 2,
  /** A file up to this is sent as it is: the question would cost more than it saves. */
  encodingTargetBytesMin: limits.waysBytesMin,
  /** A file above this is sent as it is: its process would need several times as much memory. */
  encodingTargetBytesMax: 1_024 * MiB,
  /** What failed is tried again after this, each time twice as long, up to a day. */
  encodingRetryMs: hourMs,
  /** A device that asked for what is being made asks again after this. */
  encodingAskAgainMs: 5_000,
  /** When an encoding was last of use is noted at most so often. */
  encodingUsedEveryMs: 60_000,
  /** Digests of releases remembered for the check whether a device may have a blob. */
  releasesRemembered: 256,
  /** The audit record's head is signed so often, where entries were added: what was written since could still be cut off. */
  auditHeadEveryMs: 5 * 60_000,
  /** Between two looks for telemetry that is older than the region's policy keeps it. */
  retentionEveryMs: hourMs,
  /** Batches of one device that wait for another region: it sends at most a dozen at a time. */
  carriedBatchesPerDeviceMax: 64,
  /** Of all devices: telemetry that nobody here can read must not fill the disk of this region. */
  carriedBytesMax: 256 * MiB,
  /** Messages in memory that wait to be stored. */
  carriedWaitingBytesMax: 16 * MiB,
  /** Rollouts are looked at again at least this often while anything is under way, whatever the facts say. */
  rolloutStepEveryMs: 5_000,
} as const;

/** What a core is given: production's, or with some of them shrunk. */
export type FleetLimits = { readonly [Name in keyof typeof fleetLimits]: number };
