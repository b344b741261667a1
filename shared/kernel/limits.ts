// Why: every limit in one place, each with its unit, the reason for its value and where it comes from.
// Trusts: nothing. Must never: be read from the network. Components take what they need as arguments
// with these as defaults, so that the simulator can shrink them.

const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = {
  /** JSON message on the bus. Reports of a device with many models stay below it by far. */
  busMessageBytesMax: 256 * KiB,
  /** One bulk frame: 64 KiB QoS 0 frames were measured at 430 MB/s, larger ones gain nothing. */
  bulkFramePayloadBytes: 64 * KiB,
  /** Bulk bytes waiting for one device that reads slowly (DESIGN 4). */
  bulkInFlightBytesMax: 256 * KiB,
  /** A device that reads nothing for this long loses its transfer and asks again. */
  bulkStallMs: 30_000,
  /** Bytes asked for in one fetch request. Bounds what is asked twice after a crash. */
  fetchRangeBytesMax: 1 * MiB,
  /** Smallest and largest distance between two fsyncs of a file being fetched. */
  fetchSyncBytesMin: 64 * KiB,
  fetchSyncBytesMax: 1 * MiB,
  /** A fetch request without any progress for this long is asked again. */
  fetchTimeoutMs: 15_000,
  /**
   * Below this rate over a whole window a download is ended and tried again later, or another way. An eighth of GSM's
   * 9.6 kbit/s: slower is not a link but a broken one.
   */
  fetchBytesPerSecondMin: 128,
  fetchRateWindowMs: 60_000,
  /** Below this a file costs less than the question whether there is a smaller way to it. */
  waysBytesMin: 4 * KiB,
  /** A file of this size is worth waiting for an encoding that is being made, and that long. */
  waysWaitBytesMin: 1 * MiB,
  waysWaitMsMax: 60_000,
  /** Making a file of an encoded one; the slowest card writes 2 GiB in less. */
  rebuildMs: 600_000,
  /** Left free on a device's disk by downloads: databases and records need room to go on. */
  storageReserveBytes: 4 * MiB,
  /** Concurrent fetch requests served for one device; a device asks one after the other. */
  fetchesPerDeviceMax: 4,
  /** TUF metadata sizes. Root and timestamp as in the specification's examples, targets for 10,000 releases. */
  rootBytesMax: 512 * KiB,
  timestampBytesMax: 16 * KiB,
  snapshotBytesMax: 2 * MiB,
  targetsBytesMax: 8 * MiB,
  /** Root rotations walked in one refresh (TUF 1.0.34 §5.3.3). */
  rootRotationsMax: 256,
  /** Keys and delegations in one metadata file. */
  keysPerRoleMax: 64,
  delegationsMax: 10_000,
  /** Roles visited in one search for a target (TUF 1.0.34 §5.6.7); python-tuf and tuf-js stop at 32. */
  delegatedRolesVisitedMax: 64,
  /** One metadata file over HTTP in `lepton-agent tuf`, from the request to the last byte. */
  tufMetadataTimeoutMs: 30_000,
  /** One target file there: this long, and longer by a second for each so many bytes that are listed. */
  tufTargetTimeoutMs: 60_000,
  tufTargetBytesPerSecondMin: 64 * KiB,
  manifestBytesMax: 1 * MiB,
  releaseFilesMax: 1_000,
  /** One file of a release. ONNX protobuf files end at 2 GiB; external data may be larger. */
  blobBytesMax: 8 * 1024 * MiB,
  /** A file rebuilt from a delta, and the memory for it beside it: base, patch and what they unfold to. */
  deltaTargetBytesMax: 2 * 1024 * MiB,
  deltaMemoryBytesMax: 4 * 1024 * MiB,
  /** Journal writes of one update; Mender aborts over 28, we have more steps. Ends reboot loops. */
  journalWritesMax: 40,
  /** JSON body of an inference request on the device; a yolox frame as JSON text is about 10 MB. */
  inferBodyBytesMax: 64 * MiB,
  inferDeadlineMs: 60_000,
  inferQueueMax: 64,
  /** Streams that are open at once, and how long one may be silent. */
  streamsMax: 64,
  streamIdleMs: 300_000,
  /** Sequences whose state is kept; a silent one is forgotten after this long. */
  sequencesMax: 256,
  sequenceIdleMs: 600_000,
  childStartMs: 60_000,
  /** Between two looks at the memory of a process that loads a model: it fills a gigabyte in half a second. */
  loadLookMs: 20,
  /** A trial at the registry: loading and one run. */
  modelTrialMs: 60_000,
  /** Encoding one file at the registry: 15 MB/s and more were measured, a slow machine takes its time. */
  encodeMs: 20 * 60_000,
  encodeMemoryBytesMax: 4_096 * MiB,
  /** Between two looks at the memory of a process that encodes. */
  encodeLookMs: 100,
  /** What a model may take at a registry whose operator names no bound, whatever its manifest promises. */
  modelMemoryBytesMax: 2_048 * MiB,
  /** A run beyond this no longer keeps other models from theirs; the system's scheduler shares the cores then. */
  inferTurnMs: 1_000,
  /** After its start the agent finds out which execution providers run here: in a child, for about a second. */
  providersAskedAfterMs: 3_000,
  /** Between two looks at the resident memory of the children: a read of 20 µs for each. */
  memoryLookMs: 1_000,
  /** Of the device's memory, for one child whose manifest says nothing: the agent and a second child need the rest. */
  childMemoryShare: 0.5,
  /** Times `requires.memoryMiB`: publishers name what they measured at rest, runs take more. */
  childMemoryRequiredFactor: 2,
  /** A child is replaced when it has grown by this factor and by so many bytes since it was warm. */
  recycleGrowth: 1.5,
  recycleGrowthBytesMin: 64 * MiB,
  /** Between two replacements of one model's child; a start costs a second of one core. */
  recycleEveryMs: 10 * 60_000,
  /** So many deaths of a release's process within the window are a crash loop. Two is what one bad input costs. */
  crashLoopDeaths: 3,
  crashLoopWindowMs: 5 * 60_000,
  /** An MQTT client must send CONNECT this fast. */
  brokerConnectMs: 10_000,
  /** Reconnect backoff of the agent: full jitter between zero and the doubled base, up to the maximum. */
  reconnectBaseMs: 500,
  reconnectMaxMs: 60_000,
  /** Slow poll of metadata where no doorbell rings. */
  metadataPollMs: 15 * 60_000,
  /** Reports are repeated at least this often. */
  reportEveryMs: 60_000,
  /** A question for signed time is answered this soon or not at all; half of it bounds the clock's error. */
  timeAnswerMs: 30_000,
  /** Signed time is asked for after each connection and this often: quartz drifts some seconds a day. */
  timeEveryMs: 24 * 3_600_000,
  /** A certificate request is answered this soon or asked again. */
  renewAnswerMs: 60_000,
  /** Pause after a renewal that the registry refused for good: a person must see to it first. */
  renewRefusedMs: 6 * 3_600_000,
  /** Held files are given back to one registry at most this often. */
  giveBackEveryMs: 10 * 60_000,
  /** How long a refused message's code is kept in the agent's store. */
  refusalsKept: 100,
  /** Records of one sealed batch. */
  batchRecordsMax: 1_000,
  /** Rows of one batch as they are sent after a crash; statement and wrap beside it must fit in one message. */
  batchRowBytesMax: 224 * KiB,
  /** Text of one telemetry record. */
  recordBytesMax: 128 * KiB,
  /** Body of one `POST /telemetry/v1/records`. */
  recordsBodyBytesMax: 4 * MiB,
  /** What the outbox may take on the device's disk before it drops batches by class (DESIGN 8). */
  outboxBytesMax: 64 * MiB,
  /** How long records wait for their region on a device. A backlog of months is worth its space; older ones are history. */
  outboxRetentionMs: 365 * 86_400_000,
  /** A batch that is not full is closed at this age, where there is a line to send it on. */
  batchAgeMs: 5_000,
  /** Batches sent and not answered yet. */
  outboxWindow: 4,
  /** A region may ask a device to wait this long; longer would be a way to silence it. */
  telemetryPauseMsMax: 60_000,
  /** A batch without an answer for this long is sent again. */
  telemetryAnswerMs: 15_000,
  /** One record of the class `stats` for each served release this often. */
  statsEveryMs: 60_000,
} as const;
