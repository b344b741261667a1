// Why: puts model files into a state folder as the update machine would, for tests and benchmarks of
// the inference host. Trusts: the caller's paths. Must never: leave the folder behind.

import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AgentHttp, type AgentHttpOptions, startAgentHttp } from '../../agent/api/http.ts';
import {
  createInferenceHost,
  type InferenceHost,
  type InferenceHostOptions,
} from '../../agent/inference/host.ts';
import type { AgentStatus } from '../../agent/status.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import type { LoadableRelease, Log } from '../../shared/kernel/ports.ts';
import type { FileRole } from '../../shared/kernel/releases.ts';

export interface StagedFile {
  path: string;
  role: FileRole;
  bytes: Uint8Array;
}

export interface RecordedEvent {
  event: LogEvent;
  fields: Record<string, unknown>;
}

export interface Stage {
  folder: string;
  host: InferenceHost;
  events: RecordedEvent[];
  stage(as: string, model: string | StagedFile[], manifest?: object): LoadableRelease;
  /** Stages, loads and activates. */
  serve(as: string, model: string | StagedFile[], manifest?: object): Promise<LoadableRelease>;
  close(): Promise<void>;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

export function openStage(options: Partial<InferenceHostOptions> = {}): Stage {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-inference-'));
  mkdirSync(join(folder, 'blobs'));
  const events: RecordedEvent[] = [];
  const log: Log = { emit: (_level, event, fields = {}) => void events.push({ event, fields }) };
  const host = createInferenceHost({
    clock: systemClock,
    log,
    stateFolder: folder,
    disk: openDisk(folder),
    ...options,
  });
  let counter = 0;

  const put = (bytes: Uint8Array): { sha256: string; bytes: number; diskPath: string } => {
    const digest = sha256(bytes);
    writeFileSync(join(folder, 'blobs', digest), bytes);
    return { sha256: digest, bytes: bytes.length, diskPath: `blobs/${digest}` };
  };
  const stage: Stage['stage'] = (as, model, manifest = {}) => {
    const given =
      typeof model === 'string'
        ? [{ path: 'model.onnx', role: 'model' as const, bytes: readFileSync(model) }]
        : model;
    const files = given.map(({ path, role, bytes }) => ({ path, role, ...put(bytes) }));
    const version = `1.0.${counter++}`;
    const listed = files.map(({ path, role, sha256: digest, bytes }) => ({
      path,
      role,
      sha256: digest,
      bytes,
    }));
    const text = JSON.stringify({
      schemaVersion: 1,
      name: `test/${as}`,
      version,
      files: listed,
      ...manifest,
    });
    const { sha256: manifestSha256 } = put(Buffer.from(text));
    return { as, releaseId: `test/${as}@${version}`, manifestSha256, files };
  };
  return {
    folder,
    host,
    events,
    stage,
    serve: async (as, model, manifest) => {
      const release = stage(as, model, manifest);
      unwrap(await host.load(release));
      unwrap(await host.activate(as, release.manifestSha256));
      return release;
    },
    close: async () => {
      await host.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The status of an agent that nothing was assigned to. */
export const emptyStatus: AgentStatus = {
  schemaVersion: 1,
  device: null,
  region: null,
  broker: null,
  labels: {},
  agent: { version: '0.0.0', runtime: 'none', arch: 'none' },
  startedAtMs: null,
  connected: false,
  refusedBy: null,
  epoch: 0,
  verifiedTimeMs: 0,
  clock: { source: 'wall', nowMs: null, floorMs: 0 },
  certificate: null,
  held: null,
  attacks: { count: 0, last: null },
  models: [],
  timezone: null,
  deferral: null,
  requests: { answered: 0, failed: 0 },
  outbox: null,
  delivery: null,
  telemetryOff: null,
  movedFrom: null,
  move: null,
  carried: [],
  refusals: [],
};

export async function startHttp(stage: Stage, options: Partial<AgentHttpOptions> = {}): Promise<AgentHttp> {
  return startAgentHttp({
    host: '127.0.0.1',
    port: 0,
    inference: stage.host,
    status: async () => emptyStatus,
    clock: systemClock,
    log: { emit: () => undefined },
    ...options,
  });
}

export async function post(url: string, body: Uint8Array | string, headers: Record<string, string> = {}) {
  const response = await fetch(url, { method: 'POST', body, headers });
  return { response, bytes: new Uint8Array(await response.arrayBuffer()) };
}
