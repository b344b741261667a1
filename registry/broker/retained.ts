// Why: the retained messages of the bus, found by their exact topic, and the persistence that aedes asks
// for. Its own would scan every retained message for every filter of every subscriber (DESIGN 1).
// Trusts: the broker's access rules; a device cannot get a wildcard this far. Must never: keep anything
// for a client that is away: sessions are clean, and state comes from the registry's store.

import { Readable } from 'node:stream';
import { filterMatches } from '../../shared/wire/topics.ts';

export interface RetainedMessage {
  topic: string;
  payload: Buffer;
  qos: 0 | 1;
}

export interface RetainedStore {
  /** An empty payload removes (MQTT-3.3.1-10). */
  set(message: RetainedMessage): void;
  get(topic: string): RetainedMessage | undefined;
  /** For the registry itself only: scans where the filter has a wildcard. */
  matching(filter: string): RetainedMessage[];
}

export function retainedStore(): RetainedStore {
  const messages = new Map<string, RetainedMessage>();
  return {
    set: (message) => {
      if (message.payload.length === 0) messages.delete(message.topic);
      else messages.set(message.topic, message);
    },
    get: (topic) => messages.get(topic),
    matching: (filter) => {
      if (!/[+#]/.test(filter)) {
        const exact = messages.get(filter);
        return exact === undefined ? [] : [exact];
      }
      return [...messages.values()].filter((message) => filterMatches(filter, message.topic));
    },
  };
}

interface StoredPacket {
  topic: string;
  payload: string | Buffer;
  qos: number;
}
interface ClientRef {
  id: string;
}

/**
 * What aedes 1.2 calls on its persistence, for clean sessions at QoS 0 and 1 only: retained messages are
 * stored, wills are kept while their client is connected, and the rest is empty. Retained messages are
 * sent by session.ts, in order with what is published, so the retained streams are empty as well.
 */
export class CleanSessionPersistence {
  readonly #retained: RetainedStore;
  readonly #wills = new Map<string, object>();

  constructor(retained: RetainedStore) {
    this.#retained = retained;
  }

  async setup(): Promise<void> {
    // Nothing to open; aedes insists on an async function.
  }

  async storeRetained(packet: StoredPacket): Promise<void> {
    const payload = Buffer.from(packet.payload);
    this.#retained.set({ topic: packet.topic, payload, qos: packet.qos > 0 ? 1 : 0 });
  }

  createRetainedStream(): Readable {
    return Readable.from([]);
  }

  createRetainedStreamCombi(): Readable {
    return Readable.from([]);
  }

  async addSubscriptions(): Promise<void> {
    // Subscriptions end with their connection.
  }

  async removeSubscriptions(): Promise<void> {
    // Subscriptions end with their connection.
  }

  async cleanSubscriptions(): Promise<void> {
    // Subscriptions end with their connection.
  }

  async subscriptionsByClient(): Promise<object[]> {
    return [];
  }

  async subscriptionsByTopic(): Promise<object[]> {
    return [];
  }

  async countOffline(): Promise<{ subsCount: number; clientsCount: number }> {
    return { subsCount: 0, clientsCount: 0 };
  }

  async outgoingEnqueue(): Promise<void> {
    // Nothing is kept for a client that is away.
  }

  async outgoingEnqueueCombi(): Promise<void> {
    // Nothing is kept for a client that is away.
  }

  async outgoingUpdate(): Promise<void> {
    // Nothing is kept for a client that is away.
  }

  async outgoingClearMessageId(): Promise<undefined> {
    return undefined;
  }

  outgoingStream(): Readable {
    return Readable.from([]);
  }

  async incomingStorePacket(): Promise<void> {
    throw new Error('QoS 2 is refused before it is stored');
  }

  async incomingGetPacket(): Promise<never> {
    throw new Error('no such packet');
  }

  async incomingDelPacket(): Promise<never> {
    throw new Error('no such packet');
  }

  async cleanIncoming(): Promise<void> {
    // QoS 2 is refused, so there is nothing to clean.
  }

  async putWill(client: ClientRef, will: object): Promise<void> {
    this.#wills.set(client.id, will);
  }

  async getWill(client: ClientRef): Promise<object | undefined> {
    return this.#wills.get(client.id);
  }

  async delWill(client: ClientRef): Promise<object | undefined> {
    const will = this.#wills.get(client.id);
    this.#wills.delete(client.id);
    return will;
  }

  /** Wills of other brokers that died: there are no others. */
  streamWill(): Readable {
    return Readable.from([]);
  }

  getClientList(): Readable {
    return Readable.from([]);
  }

  async destroy(): Promise<void> {
    this.#wills.clear();
  }
}
