// Why: the sources that manifests name besides HTTP: a Unix socket of the model's own, topics of a local broker.
// Each is there while its model serves. Trusts: file permissions and the device's own broker.
// Must never: let a source that fails touch what serves, or queue samples without bound.

import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import type { LocalBroker } from '../../shared/host/local-broker.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import type { InferenceHost } from '../inference/host.ts';
import { type InferStream, openStream } from '../inference/streams.ts';
import { createLineReader, faultLine, parseSamples, stepLine, wholeSamples } from './samples.ts';

export interface StreamSources {
  /** Opens what is named by models that serve, closes what no longer is. */
  reconcile(): void;
  close(): Promise<void>;
}

export interface StreamSourcesOptions {
  inference: InferenceHost;
  clock: Clock;
  log: Log;
  stateFolder: string;
  /** Absent where the agent was given none. */
  broker?: LocalBroker;
}

interface Source {
  name: string;
  close(): void;
}

/** A Unix socket's path is cut at 108 bytes by the kernel. */
const socketPathMax = 104;
export const socketPath = (stateFolder: string, as: string): string =>
  join(stateFolder, 'streams', `${as}.sock`);
/** Answers go to the sample's topic with this behind it. */
export const answerSuffix = '/inference';
/** Messages of one topic that wait; older ones are let go. */
const waitingMax = 32;

export function createStreamSources(options: StreamSourcesOptions): StreamSources {
  const { inference, clock, log, broker } = options;
  const sources = new Map<string, Source>();

  const complain = (as: string, source: string, detail: string): void =>
    log.emit('warn', 'stream.source.failed', { as, source, detail });

  const unixSource = (as: string): Source | null => {
    const path = socketPath(options.stateFolder, as);
    if (Buffer.byteLength(path) > socketPathMax) {
      complain(as, 'unix', `${path} is longer than ${socketPathMax} bytes`);
      return null;
    }
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // Left by an agent that was killed; the folder is locked for this one.
    rmSync(path, { force: true });
    const sockets = new Set<Socket>();
    const server: Server = createServer((socket) => {
      if (sockets.size >= limits.streamsMax) {
        socket.destroy();
        return;
      }
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      socket.on('error', () => undefined);
      void serveSocket(as, socket);
    });
    server.on('error', (error) => complain(as, 'unix', error.message));
    server.listen(path, () => chmodSync(path, 0o600));
    return {
      name: 'unix',
      close: () => {
        for (const socket of sockets) socket.destroy();
        server.close();
        rmSync(path, { force: true });
      },
    };
  };

  async function serveSocket(as: string, socket: Socket): Promise<void> {
    const stream = openStream(inference, as, clock);
    if (!stream.ok) {
      socket.end(faultLine(stream.refusal.code, stream.refusal.detail));
      return;
    }
    const reader = createLineReader(stream.value);
    try {
      for await (const chunk of socket) {
        const samples = reader.take(chunk as Uint8Array);
        if (!samples.ok) {
          socket.end(faultLine(samples.refusal.code, samples.refusal.detail));
          return;
        }
        for (const part of samples.value) {
          const steps = await stream.value.push(part);
          if (!steps.ok) {
            socket.end(faultLine(steps.refusal.code, steps.refusal.detail));
            return;
          }
          for (const step of steps.value) {
            if (!socket.write(stepLine(step)) && !socket.destroyed)
              await new Promise<void>((resolve) => socket.once('drain', resolve).once('close', resolve));
          }
        }
      }
      socket.end();
    } catch {
      // The other end went away in mid-line.
      socket.destroy();
    }
  }

  const topicSource = (as: string, filter: string, form: 'json' | 'raw'): Source | null => {
    if (broker === undefined) {
      complain(as, `mqtt:${filter}`, 'the agent was given no --stream-broker');
      return null;
    }
    const topics = new Map<string, { stream: InferStream; waiting: Uint8Array[]; running: boolean }>();
    const drain = async (topic: string): Promise<void> => {
      const one = topics.get(topic);
      if (one === undefined || one.running) return;
      one.running = true;
      for (let payload = one.waiting.shift(); payload !== undefined; payload = one.waiting.shift()) {
        const outcome = await answerPayload(one.stream, payload, form);
        for (const line of outcome.lines) broker.publish(`${topic}${answerSuffix}`, line);
        // What went wrong may have been this message; the next ones begin a new stream.
        if (outcome.failed) {
          topics.delete(topic);
          return;
        }
      }
      one.running = false;
    };
    const subscription = broker.subscribe(filter, (topic, payload) => {
      if (topic.endsWith(answerSuffix)) return;
      let one = topics.get(topic);
      if (one === undefined) {
        if (topics.size >= limits.streamsMax) return;
        const stream = openStream(inference, as, clock);
        if (!stream.ok) return complain(as, `mqtt:${filter}`, stream.refusal.detail);
        one = { stream: stream.value, waiting: [], running: false };
        topics.set(topic, one);
      }
      one.waiting.push(payload.slice());
      if (one.waiting.length > waitingMax) one.waiting.shift();
      drain(topic).catch((error: unknown) => complain(as, `mqtt:${filter}`, asFleetError(error).message));
    });
    return { name: `mqtt:${filter}`, close: () => subscription.cancel() };
  };

  const open = (as: string, source: string): Source | null => {
    if (source === 'unix') return unixSource(as);
    const topic = /^mqtt(\+raw)?:(.+)$/.exec(source);
    if (topic?.[2] !== undefined) return topicSource(as, topic[2], topic[1] === undefined ? 'json' : 'raw');
    if (source !== 'http')
      complain(as, source, 'unknown; sources are http, unix, mqtt:FILTER, mqtt+raw:FILTER');
    return { name: source, close: () => undefined };
  };

  return {
    reconcile: () => {
      const wanted = new Map(
        inference.models().flatMap(({ as, recipe }) => {
          const source = recipe.stream?.source;
          return source === undefined ? [] : [[as, source] as const];
        }),
      );
      for (const [as, source] of sources) {
        if (wanted.get(as) === source.name) continue;
        source.close();
        sources.delete(as);
      }
      for (const [as, source] of wanted) {
        if (sources.has(as)) continue;
        try {
          const opened = open(as, source);
          if (opened !== null) sources.set(as, { ...opened, name: source });
        } catch (error) {
          complain(as, source, asFleetError(error).message);
        }
      }
    },
    close: async () => {
      for (const source of sources.values()) source.close();
      sources.clear();
      await broker?.close();
    },
  };
}

/** One message: a line of JSON, or whole raw samples. */
async function answerPayload(
  stream: InferStream,
  payload: Uint8Array,
  form: 'json' | 'raw',
): Promise<{ lines: Uint8Array[]; failed: boolean }> {
  const samples = form === 'json' ? parseSamples(payload, stream) : wholeSamples(payload, stream);
  if (!samples.ok) return fault(samples.refusal);
  const steps = await stream.push(samples.value);
  if (!steps.ok) return fault(steps.refusal);
  return { lines: steps.value.map(stepLine), failed: false };
}

function fault({ code, detail }: { code: string; detail: string }): { lines: Uint8Array[]; failed: boolean } {
  return { lines: [faultLine(code, detail)], failed: true };
}
