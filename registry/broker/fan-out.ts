// Why: who hears which topic, and the sending of one message to all of them (DESIGN 4).
// Trusts: broker.ts to have granted each subscription. Must never: wait for a client.

import type { Clock } from '../../shared/kernel/ports.ts';
import type { RetainedMessage, RetainedStore } from './retained.ts';
import type { Session } from './session.ts';

/** Of a session, what the sending to many needs. */
export type Listener = Pick<Session, 'topics' | 'send'>;

/** Subscribers of one topic that are written to before others get a turn. */
const fanOutBatch = 256;

export class FanOut {
  readonly #retained: RetainedStore;
  readonly #clock: Clock;
  readonly #subscribers = new Map<string, Set<Listener>>();

  constructor(retained: RetainedStore, clock: Clock) {
    this.#retained = retained;
    this.#clock = clock;
  }

  /** Adds a subscription and sends what is retained on its topic (MQTT-3.8.4-3: also when it is repeated). */
  subscribe(session: Listener, topic: string, qos: 0 | 1): void {
    session.topics.set(topic, qos);
    const set = this.#subscribers.get(topic) ?? new Set();
    this.#subscribers.set(topic, set.add(session));
    const message = this.#retained.get(topic);
    if (message !== undefined) send(session, message, true);
  }

  unsubscribe(session: Listener, topic: string): void {
    session.topics.delete(topic);
    const set = this.#subscribers.get(topic);
    set?.delete(session);
    if (set?.size === 0) this.#subscribers.delete(topic);
  }

  remove(session: Listener): void {
    for (const topic of [...session.topics.keys()]) this.unsubscribe(session, topic);
  }

  /**
   * Sends to everybody who hears the topic, in batches, so that ringing ten thousand doorbells holds nobody
   * up. Two messages on one topic stay in order: the earlier one is always a batch ahead.
   */
  publish(message: RetainedMessage): void {
    const sessions = [...(this.#subscribers.get(message.topic) ?? [])];
    const batch = (from: number): void => {
      for (const session of sessions.slice(from, from + fanOutBatch)) send(session, message, false);
      const next = from + fanOutBatch;
      if (next < sessions.length) void this.#clock.timer(0).done.then(() => batch(next));
    };
    batch(0);
  }
}

function send(session: Listener, message: RetainedMessage, retain: boolean): void {
  const granted = session.topics.get(message.topic);
  if (granted === undefined) return;
  session.send({ ...message, qos: granted === 0 ? 0 : message.qos, retain });
}
