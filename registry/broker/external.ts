// Why: the registry's bus over a broker of another maker (DESIGN 4): the registry is one of its clients.
// Trusts: the broker to have checked certificates and access rules (`lepton broker files`).
// Must never: grow with what the broker does not take, hear a device that is shut out, or lose a retained message.

import { type BusCredentials, connectBus } from '../../shared/host/mqtt.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { BusMessage, Clock, Entropy, Log, RegistryBus } from '../../shared/kernel/ports.ts';
import { type BusIdentity, parseTopic, registryName, sharedFilter } from '../../shared/wire/topics.ts';
import { createSlots } from './slots.ts';

export interface ExternalBrokerOptions {
  /** `mqtts://HOST:PORT`. */
  url: string;
  /**
   * Of the shared subscriptions. Not to be guessed: mosquitto lets anybody join a group, and would hand a stranger
   * messages that it then keeps from him; they would be lost.
   */
  group: string;
  credentials: BusCredentials;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** Whether a device is one of the fleet and not shut out; the broker may still have its old connection. */
  mayConnect(identity: BusIdentity): Promise<boolean>;
  onRefused(refusal: { code: ErrorCode; subject: string | null; detail: string }): void;
  /** The broker went away, and with it all that is known of who is there. */
  onLost(): void;
  connect?: typeof connectBus;
}

export interface ExternalBroker {
  bus: RegistryBus;
  connected(): boolean;
  /** From the next connection on. */
  use(credentials: BusCredentials): void;
  close(): Promise<void>;
}

/** Publications that wait for the broker at one time: below what the line takes (shared/host/bus-line.ts). */
const controlAtOnce = 160;
const retainedAtOnce = 32;
/** Frames handed to the connection and not gone: two MiB at most, for all devices together. */
const bulkAtOnce = 32;
/** Those that wait for their turn; beyond it the caller is told, and its device asks again. */
const waitingMax = 20_000;
const retainedRetryMs = 200;
/** It is one client, and nothing goes without it. */
const reconnectMaxMs = 2_000;

export function connectExternalBroker(options: ExternalBrokerOptions): ExternalBroker {
  const { clock, entropy, log } = options;
  const retained = createRetained();
  const control = createSlots(controlAtOnce, waitingMax);
  const bulk = createSlots(bulkAtOnce, waitingMax);
  /** Devices that were refused since the connection began: one event each, not one for each message. */
  const told = new Set<string>();
  let closed = false;

  const line = (options.connect ?? connectBus)({
    ...options.credentials,
    url: options.url,
    clientId: registryName,
    clock,
    entropy,
    log,
    reconnectMaxMs,
    onStatus: (status) => {
      if (closed) return;
      if (status === 'connected') {
        told.clear();
        // It may have been started anew, and have nothing.
        retained.allDue();
        publishRetained();
      } else if (status === 'disconnected') {
        retained.giveUp();
        options.onLost();
      }
    },
  });

  let workers = 0;
  /** Every retained message that the broker may lack, the latest of its topic. */
  function publishRetained(): void {
    while (workers < Math.min(retainedAtOnce, retained.due())) {
      workers += 1;
      void workRetained().then(async (went) => {
        // A line that is just breaking still says that it stands: not asked again at once.
        if (!went) await clock.timer(retainedRetryMs).done;
        workers -= 1;
        if (!closed && retained.due() > 0 && line.connected()) publishRetained();
      });
    }
  }

  /** False where the line took one no more. */
  async function workRetained(): Promise<boolean> {
    while (!closed && line.connected()) {
      const next = retained.take();
      if (next === null) break;
      try {
        await line.publish(next.topic, next.payload, { qos: 1, retain: true });
        next.sent();
      } catch {
        // The connection was lost; with the next one everything is due. The line has logged it.
        next.failed();
        return false;
      }
    }
    return true;
  }

  async function hear(message: BusMessage, handler: (message: BusMessage) => void): Promise<void> {
    const parsed = parseTopic(message.topic);
    if (parsed?.kind !== 'device' && parsed?.kind !== 'enrol') return;
    // No rule of mosquitto keeps a device from retaining; what it retained it would say again at every start.
    if (message.retained && !(parsed.kind === 'device' && parsed.channel === 'presence')) return;
    if (parsed.kind === 'device') {
      const { deviceId } = parsed;
      if (!(await options.mayConnect({ kind: 'device', deviceId }))) {
        if (!told.has(deviceId))
          options.onRefused({ code: 'broker-not-authorized', subject: deviceId, detail: message.topic });
        told.add(deviceId);
        return;
      }
    }
    handler(message);
  }

  const bus: RegistryBus = {
    async publish(topic, payload, { qos, retain }) {
      if (closed) throw new FleetError('bus-offline', 'the connection to the broker is closed');
      // A copy: the caller may reuse its buffer.
      const bytes = Uint8Array.from(payload);
      if (retain) {
        const published = retained.set(topic, bytes);
        if (!line.connected()) {
          // Taken: it is published with the next connection.
          retained.giveUp();
          return;
        }
        publishRetained();
        await published;
        return;
      }
      if (!(await control.take())) throw new FleetError('bus-offline', 'too many messages wait');
      try {
        await line.publish(topic, bytes, { qos, retain: false });
      } finally {
        control.free();
      }
    },

    async subscribe(filter, handler) {
      // Retained messages do not come over a shared subscription, and everybody must know who is there.
      const asked = filter.endsWith('/presence') ? filter : sharedFilter(options.group, filter);
      return line.subscribe(asked, (message) => {
        hear(message, handler).catch((thrown: unknown) => {
          log.emit('error', 'broker.message.failed', { topic: message.topic, detail: String(thrown) });
        });
      });
    },

    async sendBulk(_deviceId, topic, frame, body) {
      if (closed || !line.connected() || !(await bulk.take())) return false;
      try {
        const whole = body === undefined ? Uint8Array.from(frame) : Buffer.concat([frame, body]);
        // Answered when the connection has taken it: a broker that does not read holds us up, and is never outrun.
        await line.publish(topic, whole, { qos: 0, retain: false });
        return true;
      } catch (thrown) {
        log.emit('debug', 'broker.stalled', { topic, detail: String(thrown) });
        return false;
      } finally {
        bulk.free();
      }
    },

    // Nobody but the broker can end a connection: its rules and lists do (`lepton broker files`). Until then the device
    // is not heard (`hear`), and the director has taken back what it should run.
    disconnect: async () => undefined,
  };

  return {
    bus,
    connected: () => line.connected(),
    use: (credentials) => line.use(credentials),
    async close() {
      closed = true;
      retained.giveUp();
      control.end();
      bulk.end();
      await line.close();
    },
  };
}

interface DueMessage {
  topic: string;
  payload: Uint8Array;
  sent(): void;
  failed(): void;
}

/** The latest message of each retained topic, and which of them the broker may not have. */
function createRetained() {
  const present = new Map<string, Uint8Array>();
  const due = new Set<string>();
  const waiting = new Map<string, (() => void)[]>();

  const settle = (topic: string): void => {
    for (const done of waiting.get(topic) ?? []) done();
    waiting.delete(topic);
  };

  return {
    due: () => due.size,
    allDue: () => {
      for (const topic of present.keys()) due.add(topic);
    },
    /** Resolves when the broker has it, or when that has become the next connection's work. */
    set: (topic: string, payload: Uint8Array): Promise<void> => {
      present.set(topic, payload);
      due.add(topic);
      return new Promise((resolve) => waiting.set(topic, [...(waiting.get(topic) ?? []), resolve]));
    },
    take: (): DueMessage | null => {
      const [topic] = due;
      if (topic === undefined) return null;
      due.delete(topic);
      const payload = present.get(topic) ?? new Uint8Array(0);
      return {
        topic,
        payload,
        sent: () => {
          // Replaced meanwhile: the next one says when it is there.
          if (due.has(topic)) return;
          // An empty one clears the topic; it has done its work.
          if (payload.length === 0 && present.get(topic) === payload) present.delete(topic);
          settle(topic);
        },
        failed: () => {
          due.add(topic);
          settle(topic);
        },
      };
    },
    giveUp: () => {
      for (const topic of [...waiting.keys()]) settle(topic);
    },
  };
}
