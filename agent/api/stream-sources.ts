// Why: the sources that manifests name besides HTTP: a Unix socket of the model's own, topics of a local broker.
// Each is there while its model serves. Trusts: file permissions and the device's own broker.
// Must never: let a source that fails touch what serves, or queue samples without bound.

import type { Socket } from 'node:net';
import { join } from 'node:path';
import { connectLocalBroker, type LocalBroker } from '../../shared/host/local-broker.ts';
import { listenLocally } from '../../shared/host/local-socket.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { filterMatches } from '../../shared/wire/topics.ts';
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

/** What came on one topic is one stream. */
interface TopicStream {
  stream: InferStream;
  waiting: Uint8Array[];
  running: boolean;
}

interface Source {
  name: string;
  close(): void;
}

/** The same, with a connection to the local broker where the agent was given one. Fault: `config-invalid`. */
export function openSources(
  options: Omit<StreamSourcesOptions, 'broker'> & { brokerUrl?: string },
): StreamSources {
  const { brokerUrl, log } = options;
  if (brokerUrl === undefined) return createStreamSources(options);
  const broker = connectLocalBroker(brokerUrl, {
    clientId: `lepton-streams-${process.pid}`,
    onStatus: (connected) =>
      log.emit('info', connected ? 'stream.broker.connected' : 'stream.broker.lost', { broker: brokerUrl }),
    matches: filterMatches,
  });
  return createStreamSources({ ...options, broker });
}

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

  const unixSource = (as: string): Source => {
    const socket = listenLocally(socketPath(options.stateFolder, as), {
      connectionsMax: limits.streamsMax,
      onConnection: (connection) => void serveSocket(as, connection),
      onError: (error) => complain(as, 'unix', error.message),
    });
    return { name: 'unix', close: () => socket.close() };
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
    } catch (thrown) {
      // The other end going away in mid-line is an error of the socket; anything else is ours.
      if (socket.errored === null && !socket.destroyed) complain(as, 'unix', asFleetError(thrown).message);
      socket.destroy();
    }
  }

  const topicSource = (as: string, filter: string, form: 'json' | 'raw'): Source | null => {
    if (broker === undefined) {
      complain(as, `mqtt:${filter}`, 'the agent was given no --stream-broker');
      return null;
    }
    /** The longest silent first. */
    const topics = new Map<string, TopicStream>();
    const drain = async (topic: string, one: TopicStream): Promise<void> => {
      if (one.running) return;
      one.running = true;
      try {
        for (let payload = one.waiting.shift(); payload !== undefined; payload = one.waiting.shift()) {
          const outcome = await answerPayload(one.stream, payload, form);
          for (const line of outcome.lines) broker.publish(`${topic}${answerSuffix}`, line);
          if (!outcome.failed) continue;
          // What went wrong may have been this message: those that wait begin a new stream.
          const fresh = openStream(inference, as, clock);
          if (!fresh.ok) {
            topics.delete(topic);
            return;
          }
          one.stream = fresh.value;
        }
      } finally {
        one.running = false;
      }
    };
    const subscription = broker.subscribe(filter, (topic, payload) => {
      if (topic.endsWith(answerSuffix)) return;
      let one = topics.get(topic);
      if (one === undefined) {
        const [longest] = topics.keys();
        if (topics.size >= limits.streamsMax && longest !== undefined) topics.delete(longest);
        const stream = openStream(inference, as, clock);
        if (!stream.ok) return complain(as, `mqtt:${filter}`, stream.refusal.detail);
        one = { stream: stream.value, waiting: [], running: false };
      }
      topics.delete(topic);
      topics.set(topic, one);
      one.waiting.push(payload.slice());
      if (one.waiting.length > waitingMax) one.waiting.shift();
      drain(topic, one).catch((error: unknown) =>
        complain(as, `mqtt:${filter}`, asFleetError(error).message),
      );
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
