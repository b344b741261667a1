// Why: the only ways in which a core touches the world. A core that needs time, chance, files, a
// database, the network or a model runtime gets one of these as an argument, so that the simulator
// can stand in for it. Trusts: nothing. Must never: import a driver.
// Every call that is durable, visible to others or slow returns a promise: that await is where the
// simulator may cut the power or let another party go first.

import type { MemoryBound } from '../onnx/memory-bounds.ts';
import type { TensorSignature } from '../wire/manifest.ts';
import type { LogEvent } from './events.ts';
import type { ReleaseFile } from './releases.ts';
import type { Result } from './result.ts';

/** A timer that can be cancelled. `done` resolves when it fires and never resolves once cancelled. */
export interface Timer {
  done: Promise<void>;
  cancel(): void;
}

export interface Clock {
  /** Wall clock, Unix time in milliseconds. May jump. */
  wall(): number;
  /** Monotonic clock in milliseconds with an arbitrary origin. Never goes back. */
  mono(): number;
  timer(ms: number): Timer;
}

/** What the machine's processors used, by counters that only grow. Null where the system does not tell. */
export interface Power {
  /** Joules of all processor packages since this was made. */
  joules(): number | null;
  /** CPU time of all that runs on the machine. */
  busyMs(): number | null;
  /** CPU time of one process; null too where it is gone. */
  cpuMs(pid: number): number | null;
}

export interface Entropy {
  u32(): number;
  bytes(n: number): Uint8Array;
}

/**
 * Plain files. Paths are relative to the root the disk was opened on and use `/`.
 * Nothing is durable before `fsync` of the file and, for names, `fsyncDir` of its folder.
 */
export interface Disk {
  /** Whole content, or null where there is no such file. */
  read(path: string): Promise<Uint8Array | null>;
  /** Bytes `[offset, offset + length)`, shorter at the end of the file; null where there is no such file. */
  readRange(path: string, offset: number, length: number): Promise<Uint8Array | null>;
  /** Size in bytes, or null where there is no such file. */
  size(path: string): Promise<number | null>;
  /** Makes or empties a file. Folders on the way are made. */
  create(path: string): Promise<void>;
  append(path: string, bytes: Uint8Array): Promise<void>;
  truncate(path: string, bytes: number): Promise<void>;
  fsync(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Idempotent: no error where there is no such file. */
  unlink(path: string): Promise<void>;
  fsyncDir(path: string): Promise<void>;
  /** Names in a folder, sorted; empty where there is no such folder. */
  list(path: string): Promise<string[]>;
  /** Bytes that this user may still write here; null where the system does not say. */
  freeBytes(): Promise<number | null>;
}

export type SqlValue = string | number | bigint | Uint8Array | null;

/** A database inside one transaction. Synchronous: nothing else runs between its calls. */
export interface SqlTx {
  run(sql: string, ...params: SqlValue[]): { changes: number };
  get<Row>(sql: string, ...params: SqlValue[]): Row | undefined;
  all<Row>(sql: string, ...params: SqlValue[]): Row[];
  /** Rows as their values in the order of the columns: for many rows, where objects of the driver cost the most. */
  values(sql: string, ...params: SqlValue[]): SqlValue[][];
}

export interface Store {
  /** Runs `fn` in one transaction; resolves when the commit is durable. A throw rolls back and rejects. */
  tx<T>(fn: (db: SqlTx) => T): Promise<T>;
  /** Empties the write-ahead log into the database: pages as they were before lie there no more. */
  flushLog(): Promise<void>;
  /**
   * Writes the database as of some moment of the call to a new file; others go on with theirs meanwhile. `path` is the
   * machine's. Durable, and one file, when it resolves. Faults: `conflict` (something is there), `disk-full`, `disk-io`.
   */
  copyTo(path: string): Promise<void>;
  close(): Promise<void>;
}

/** One step of a database's schema. Applied once, in the order of the list, and never edited afterwards. */
export interface Migration {
  name: string;
  sql: string;
}

export interface StoreTerms {
  /** FULL: a commit outlives a power cut. NORMAL: it outlives a crash of the process. */
  synchronous: 'FULL' | 'NORMAL';
  migrations?: readonly Migration[];
  /** Free pages can be given back with `PRAGMA incremental_vacuum` (SQLite 3 "auto_vacuum"). For a new file only. */
  reclaim?: boolean;
  /** What is deleted is overwritten with zeros (`PRAGMA secure_delete`). */
  overwrites?: boolean;
}

/** Where a program keeps what must survive it: plain files and databases, all under one folder. */
export interface Place {
  /** The files of a folder of it; '.' is the place itself. */
  disk(folder: string): Disk;
  /**
   * Opens or makes the database in that file of the place. Faults: `state-corrupt`, `state-locked`, `state-newer`,
   * `disk-full`, `disk-io`.
   */
  openStore(file: string, terms: StoreTerms): Promise<Store>;
}

export interface BusMessage {
  topic: string;
  payload: Uint8Array;
  retained: boolean;
}

export interface Subscription {
  cancel(): Promise<void>;
}

export interface Bus {
  /** QoS 1 resolves when the broker has acknowledged, QoS 0 when the bytes were handed over. */
  publish(topic: string, payload: Uint8Array, options: { qos: 0 | 1; retain: boolean }): Promise<void>;
  /** The handler is called in order of arrival and must not block. */
  subscribe(filter: string, handler: (message: BusMessage) => void): Promise<Subscription>;
}

/** The registry's side of the bus, also able to send bulk frames past the broker's queues. */
export interface RegistryBus extends Bus {
  /**
   * Sends one QoS 0 frame to one device's topic; resolves when it left our buffers (at most
   * `bulkInFlightBytesMax` wait per device). False where the device is not connected, is not
   * subscribed or did not read for `bulkStallMs`. Frames of one topic arrive in the order of the calls. `body`: what
   * follows `frame` in it; not copied, so not to be changed before this resolves.
   */
  sendBulk(deviceId: string, topic: string, frame: Uint8Array, body?: Uint8Array): Promise<boolean>;
  /** Ends the device's connection, if there is one. */
  disconnect(deviceId: string): Promise<void>;
}

export type FetchTarget =
  | { kind: 'blob'; sha256: string }
  | { kind: 'metadata'; name: string }
  /** All metadata that a device lacks in one answer (shared/wire/refresh.ts). */
  | { kind: 'refresh'; held: Record<string, number>; namespaces: Record<string, number> }
  /** Smaller files from which a device that holds these makes that one (shared/wire/ways.ts). */
  | { kind: 'ways'; sha256: string; held: string[] };

/** A part of what was asked for, as it arrives. */
export interface FetchPiece {
  offset: number;
  bytes: Uint8Array;
  totalBytes: number;
}

export interface Fetcher {
  /**
   * Bytes from `offset`, at most `length` of them; `totalBytes` is the whole size of the file. A Fetcher that has them
   * in pieces may hand these to `onPiece` as they come, in order and without a gap, before it answers with all of them.
   * Refusals: `fetch-not-found`, `fetch-denied`, `fetch-timeout`, `fetch-busy` (it is not its turn), `bus-offline`.
   */
  range(
    target: FetchTarget,
    offset: number,
    length: number,
    onPiece?: (piece: FetchPiece) => void,
  ): Promise<Result<{ bytes: Uint8Array; totalBytes: number }>>;
  /** The caller gave up because the bytes came too slowly: another way to them may be faster. */
  tooSlow?(): void;
}

/** Evidence of one probe of a release in its own child. Latency in milliseconds, memory in bytes. */
export interface ProbeEvidence {
  goldenCases: number;
  goldenPassed: number;
  /** The first case that failed, in words, for the report. */
  firstFailure: string | null;
  latencyP50Ms: number;
  latencyP95Ms: number;
  memoryBytesPeak: number;
}

/** How a candidate is tried on copies of live inputs. */
export interface ShadowPolicy {
  /** Compared requests that are enough. */
  requests: number;
  /** Of one core, at most, for the candidate's runs. */
  cpuPercent: number;
  timeoutMs: number;
  /** Least agreement, 0 to 1; null: any, it is only measured. */
  agreementMin: number | null;
}

/** What shadowing showed. Latencies are the time inside the runtime on the same inputs, milliseconds. */
export interface ShadowEvidence {
  /** Live requests that were answered meanwhile. */
  requests: number;
  compared: number;
  /** Not tried: the candidate was busy, or its CPU budget was used. */
  skipped: number;
  /** Tried and refused by the candidate, or answered in a form that cannot be compared. They count as no agreement. */
  failed: number;
  /** Mean over compared and failed; null where there are none. */
  agreement: number | null;
  /** The first reason of a failure. */
  firstFailure: string | null;
  latencyP95Ms: number | null;
  activeLatencyP95Ms: number | null;
  /** By output: requests by their largest absolute difference, on `differenceEdges` (shared/stats/agreement.ts). */
  differences: { output: string; counts: number[] }[];
}

/** A release with its verified files, as the runtime loads it. `diskPath` is relative to the state disk. */
export interface LoadableRelease {
  /** Name under which it is served. */
  as: string;
  /** `NS/NAME@VERSION`. */
  releaseId: string;
  /** SHA-256 of the manifest, hex: the identity of the release's bytes. */
  manifestSha256: string;
  files: (ReleaseFile & { diskPath: string })[];
  /** It served on this device before: no estimate is held against it. */
  proven?: boolean;
}

/** Loads, probes and switches models. Implemented by the inference host; a stub in the simulator. */
export interface Runtime {
  /** Loads into its own child, warmed up and able to answer. Idempotent for a release that is loaded. */
  load(release: LoadableRelease): Promise<Result<void>>;
  /** Runs the golden cases in the candidate's child. A failed case is evidence, not a refusal. */
  probe(release: LoadableRelease): Promise<Result<ProbeEvidence>>;
  /**
   * Gives the loaded candidate copies of what the release that serves `as` is asked, and compares the answers, until
   * there are enough of them or the time is over. Never delays an answer. Refusals: `infer-not-ready`,
   * `model-crashed`, `infer-deadline` (the candidate does not answer), `update-superseded` (it was unloaded).
   */
  shadow(release: LoadableRelease, policy: ShadowPolicy): Promise<Result<ShadowEvidence>>;
  /** Moves new requests for `as` to this loaded release and drains the old one. Idempotent. */
  activate(as: string, manifestSha256: string): Promise<Result<void>>;
  /** Stops serving `as`. Idempotent. */
  deactivate(as: string): Promise<void>;
  /** Ends the child of a release that does not serve. Idempotent. */
  unload(as: string, manifestSha256: string): Promise<void>;
  /** Whether the serving release of `as` answers, with the reason where it does not. */
  healthy(as: string): Promise<Result<{ requests: number; errors: number; latencyP95Ms: number | null }>>;
}

/** A model with the files it needs, to be loaded and run on zeros in a throw-away process. */
export interface TrialModel {
  /** Of the release, with where each lies now (absolute). */
  files: { path: string; localPath: string }[];
  /** The one of them that is the model. */
  modelPath: string;
  inputs: TensorSignature[];
  /** Outputs to fetch: not the excluded ones. */
  outputs: string[];
  /** What its process may take, and who says so. */
  memory: MemoryBound;
  timeoutMs: number;
}

export interface TrialReport {
  /** Why it could not be loaded here, which says nothing about the model: there is no runtime. Null where it was. */
  untried: string | null;
  /** What the runtime said of zeros; null where they ran. Zeros are no legal input for every model. */
  runFailure: string | null;
  peakBytes: number | null;
}

export interface ModelTrial {
  /**
   * Refusals: `model-invalid` (the runtime does not take it), `model-load-failed` (this machine could not),
   * `model-trial-crashed` (it ended its process), `model-trial-memory`, `model-trial-timeout`, `interrupted`.
   */
  run(model: TrialModel): Promise<Result<TrialReport>>;
  /** Ends the trial under way and refuses those to come, with `interrupted`. */
  stop(): void;
}

/** Raw DEFLATE (RFC 1951) off the event loop. */
export interface Deflate {
  deflate(bytes: Uint8Array): Promise<Uint8Array>;
  /** Refusals: `telemetry-too-large` where more than `bytesMax` come out, `telemetry-unreadable`. */
  inflate(bytes: Uint8Array, bytesMax: number): Promise<Result<Uint8Array>>;
}

/** One POST; the status of the answer, whatever it is. Refusal: `webhook-unreachable`, also where it was aborted. */
export type HttpPost = (
  url: string,
  options: { headers: Record<string, string>; body: Uint8Array; timeoutMs: number; signal: AbortSignal },
) => Promise<Result<number>>;

/** Makes files of smaller ones on a device, in a process of its own: it takes memory that the agent must not. */
export interface Rebuilder {
  /**
   * Writes the file that the encoded one (shared/onnx/delta) and its bases make, whole, not synced and not named for
   * what it is: the caller digests it. Paths are relative to the state disk. Refusals: every `delta-…` code,
   * `interrupted`. Faults: `disk-full`, `disk-io`.
   */
  rebuild(job: {
    encodedPath: string;
    basePaths: readonly string[];
    targetPath: string;
    targetSha256: string;
    targetBytes: number;
  }): Promise<Result<void>>;
}

export interface FileToEncode {
  /** In its release; external data is found by it. */
  name: string;
  /** Where it lies. */
  path: string;
  sha256: string;
}

/** Encodes a file against others at the registry, in a process of its own. */
export interface DeltaEncoder {
  /** The encoded file, or null where it is no smaller than `bytesMax`. Refusals: `delta-…`, `interrupted`. */
  encode(job: {
    bases: readonly FileToEncode[];
    target: FileToEncode;
    /** Of the target's release: where the target is external data, its model tells what lies in it. */
    beside: readonly FileToEncode[];
    bytesMax: number;
  }): Promise<Result<Uint8Array | null>>;
  /** Ends what is under way and refuses what is to come, with `interrupted`. */
  stop(): void;
}

/**
 * 1 to 22; or 'symbols': code lengths for each byte, and next to no search for repetitions; or 'text': within a tenth of
 * 19 for what repeats itself with changes, in a sixth of its time.
 */
export type ZstdLevel = number | 'symbols' | 'text';

/**
 * zstd (RFC 8878) of bytes in memory, at once. Frames tell their content's size and hold no checksum. A dictionary is
 * raw content; a wrong one gives wrong bytes without a word, so that whoever decodes checks a digest.
 */
export interface Zstd {
  /** One frame. */
  compress(bytes: Uint8Array, level: ZstdLevel, dictionary?: Uint8Array): Uint8Array;
  /**
   * One frame, given without its four bytes of magic, into memory of the size that it declares. False where it is no
   * such frame; `into` is undefined then.
   */
  decompress(frame: Uint8Array, into: Uint8Array, dictionary?: Uint8Array): boolean;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** One JSON line an event. Fields carry ids and codes, never payloads or keys. */
export interface Log {
  emit(level: LogLevel, event: LogEvent, fields?: Record<string, unknown>): void;
}

/** Another region as it is reached: its door's address and the Ed25519 key of its certificate, hex. */
export interface DoorPeer {
  url: string;
  publicKey: string;
}

export interface DoorAsk {
  method: 'GET' | 'POST';
  /** With its query. */
  path: string;
  body?: Uint8Array;
  /** More is refused. */
  bytesMax: number;
  timeoutMs: number;
}

export interface DoorAnswer {
  status: number;
  bytes: Uint8Array;
  /** As they went over the wire. */
  wireBytes: number;
}

/** Asks other regions, with this region's certificate. */
export interface RegionLine {
  /**
   * Refusals: `region-unreachable`, `region-untrusted` (another key answers there), `region-answer-invalid` (more than
   * was asked for).
   */
  ask(peer: DoorPeer, ask: DoorAsk): Promise<Result<DoorAnswer>>;
}

/** What came through this region's door; the key is proven by the handshake, whoever has it. */
export interface DoorRequest {
  publicKey: string;
  method: string;
  path: string;
  query: URLSearchParams;
  body: Uint8Array;
}

export type DoorHandler = (request: DoorRequest) => Promise<{ status: number; bytes: Uint8Array }>;
