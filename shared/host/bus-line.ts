// Why: what the device's side of the bus decides: reconnecting with jitter, sessions of a limited scope, what is
// subscribed and what waits for an answer. The driver stands behind `BusDrivers`, so that the simulator's can.
// Trusts: its drivers to have judged the server's certificate but for its dates. Must never: queue without a bound,
// say that a message was delivered that nobody acknowledged, nor use a session for more than it was admitted for.

import { type CertificateDates, isWithin } from '../crypto/x509.ts';
import type { ErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';
import { limits } from '../kernel/limits.ts';
import type { Bus, BusMessage, Clock, Entropy, Log, Subscription, Timer } from '../kernel/ports.ts';
import { filterMatches, plainFilter } from '../wire/topics.ts';
import { refusalOf } from './broker-failure.ts';
import type { BusCredentials } from './broker-socket.ts';
import type { BusClient, BusDrivers } from './bus-drivers.ts';

/**
 * `limited`: a session for the topics of its scope alone stands. `refused`: this attempt failed for a reason that
 * has a code; the next attempt follows by itself.
 */
export type BusStatus = 'connected' | 'limited' | 'disconnected' | { refused: ErrorCode; detail: string };

/** What a session may be used for: everything, or these topics alone, and then without a last will. */
export type SessionScope = 'full' | { only: ReadonlySet<string> };

/** When the next attempt begins: at once, after the usual pause of a failure, or after so long. */
export type Restart = 'now' | 'later' | { afterMs: number };

export interface AgentBus extends Bus {
  /** True from the moment every subscription stands until the connection is lost; never in a limited session. */
  connected(): boolean;
  /** From the next connection on. */
  use(credentials: BusCredentials): void;
  /** Ends the present connection with an MQTT DISCONNECT, for a new one. */
  restart(when: Restart): void;
  /** Ends the connection with an MQTT DISCONNECT (so no last will) and stops reconnecting. */
  close(): Promise<void>;
}

export interface ConnectBusOptions extends BusCredentials {
  /** `mqtts://HOST:PORT`. */
  url: string;
  clientId: string;
  will?: { topic: string; payload: Uint8Array; qos: 0 | 1; retain: boolean };
  clock: Clock;
  entropy: Entropy;
  log: Log;
  onStatus(status: BusStatus): void;
  /**
   * What a session with this broker may be used for, null for nothing. Its certificate is good but for its dates,
   * which are not looked at before. Where absent, they must hold by the wall clock.
   */
  admit?(dates: CertificateDates): SessionScope | null;
  reconnectBaseMs?: number;
  reconnectMaxMs?: number;
}

/** Publications that wait for their PUBACK at one time; more are refused with `bus-offline`. */
const unacknowledgedMax = 256;
/** A connection that stood this long was good: the next one is tried without delay built up before. */
const stableMs = 10_000;
/** How long `close` waits for the broker to take the DISCONNECT. */
const closeMs = 2_000;

function offline(detail: string): FleetError {
  return new FleetError('bus-offline', detail);
}

/** One connection from its TCP handshake to its end. */
interface Link {
  /** Null while TLS is not done. */
  client: BusClient | null;
  scope: SessionScope;
  /** Asked to end, for a new one or for good. */
  ending: boolean;
  /** Resolves when its socket is gone. */
  ended: Promise<void>;
  destroy(): void;
}

export function connectBusOver(drivers: BusDrivers, options: ConnectBusOptions): AgentBus {
  const { clock, entropy, log } = options;
  const url = new URL(options.url);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? 8883 : Number(url.port);
  const baseMs = options.reconnectBaseMs ?? limits.reconnectBaseMs;
  const maxMs = options.reconnectMaxMs ?? limits.reconnectMaxMs;

  const handlers = new Map<string, Set<(message: BusMessage) => void>>();
  /** Rejects what waits for an answer on the present connection. */
  const waiting = new Set<(error: FleetError) => void>();
  let link: Link | null = null;
  let pause: Timer | null = null;
  let credentials: BusCredentials = options;
  let ready = false;
  let limited = false;
  let closed = false;
  let failures = 0;
  let restart: Restart = 'later';
  let lastRefusal = '';

  const refused = (code: ErrorCode, detail: string): void => {
    // A device that is offline for a week must not fill its log with one and the same line.
    const level = lastRefusal === code ? 'debug' : 'warn';
    lastRefusal = code;
    log.emit(level, 'bus.refused', { code, detail, broker: `${host}:${port}` });
    options.onStatus({ refused: code, detail });
  };

  /** Sends one packet that is answered (or flushed); rejects when the connection goes first. */
  const answered = <T>(start: (done: (error: unknown, value: T) => void) => void): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      const lost = (error: FleetError): void => reject(error);
      waiting.add(lost);
      start((error, value) => {
        waiting.delete(lost);
        if (error === null || error === undefined) resolve(value);
        else reject(error);
      });
    });

  const requestSubscription = async (client: BusClient, filter: string): Promise<void> => {
    const granted = await answered<boolean>((done) => {
      client.subscribe(filter, (error, isGranted) => {
        done(error === null ? null : offline(error.message), isGranted);
      });
    });
    if (!granted) throw new FleetError('broker-subscribe-denied', filter);
  };

  const onConnect = async (current: Link, client: BusClient): Promise<void> => {
    const { scope } = current;
    const filters = [...handlers.keys()].filter((filter) => scope === 'full' || scope.only.has(filter));
    const results = await Promise.allSettled(filters.map((filter) => requestSubscription(client, filter)));
    if (link !== current || closed) return;
    let denied = 0;
    for (const result of results) {
      if (result.status === 'rejected' && result.reason instanceof FleetError) {
        if (result.reason.code === 'bus-offline') return;
        denied += 1;
        refused(result.reason.code, result.reason.message);
      }
    }
    // A device that may hear nothing at all is not connected to anything.
    if (filters.length > 0 && denied === filters.length) {
      endLink(current);
      return;
    }
    if (scope === 'full') {
      ready = true;
      lastRefusal = '';
    } else limited = true;
    log.emit('info', 'bus.connected', { broker: `${host}:${port}`, ...(limited ? { limited } : {}) });
    options.onStatus(limited ? 'limited' : 'connected');
  };

  const dispatch = (message: BusMessage): void => {
    for (const [filter, set] of handlers) {
      if (!filterMatches(plainFilter(filter), message.topic)) continue;
      for (const handler of [...set]) handler(message);
    }
  };

  const admit = options.admit ?? ((dates) => (isWithin(dates, clock.wall()) ? 'full' : null));

  const open = (): void => {
    let failure: unknown = null;
    let accepted = false;
    let connectedAtMs = 0;
    restart = 'later';
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });

    const run = async (): Promise<void> => {
      const opening = drivers.dial({ host, port }, credentials, clock);
      current.destroy = opening.destroy;
      const channel = await opening.opened;
      const scope = admit(channel.dates);
      if (scope === null || current.ending) {
        channel.destroy();
        if (scope === null)
          throw new FleetError('broker-server-untrusted', 'its certificate is outside its dates');
        return;
      }
      current.scope = scope;
      const gone = new Promise<void>((resolve) => {
        current.client = channel.start(
          { clientId: options.clientId, will: scope === 'full' ? (options.will ?? null) : null },
          {
            connected: () => {
              const { client } = current;
              if (client === null) return;
              accepted = true;
              connectedAtMs = clock.mono();
              void onConnect(current, client);
            },
            message: (message) => {
              if (link === current && !closed) dispatch(message);
            },
            failed: (error) => {
              failure ??= error;
            },
            closed: resolve,
          },
        );
      });
      await gone;
      current.client?.end(true);
    };

    const current: Link = { client: null, scope: 'full', ending: false, ended, destroy: () => undefined };
    link = current;
    void run()
      .catch((error: unknown) => {
        failure ??= error;
      })
      .then(() => {
        end();
        if (link !== current) return;
        link = null;
        const stood = ready || limited;
        const wasFull = ready;
        ready = false;
        limited = false;
        for (const lost of [...waiting]) lost(offline('the connection was lost'));
        waiting.clear();
        if (stood) {
          log.emit('info', 'bus.disconnected', { broker: `${host}:${port}` });
          options.onStatus('disconnected');
        }
        if (closed) return;
        if (!accepted && !current.ending) {
          const { code, detail } = refusalOf(failure ?? new Error('the broker closed the connection'));
          refused(code, detail);
        }
        if (wasFull && clock.mono() - connectedAtMs >= stableMs) failures = 0;
        else if (restart !== 'now') failures += 1;
        reconnectLater();
      });
  };

  /** With a DISCONNECT where there is somebody to hear it; a broker that does not let go is left. */
  const endLink = (current: Link): void => {
    current.ending = true;
    if (current.client === null) {
      current.destroy();
      return;
    }
    current.client.end(!current.client.connected());
    const guard = clock.timer(closeMs);
    void guard.done.then(current.destroy);
    void current.ended.then(() => guard.cancel());
  };

  const pauseMs = (): number => {
    if (restart === 'now') return 0;
    if (restart !== 'later') return restart.afterMs;
    // Full jitter: a broker that comes back is not met by its whole fleet at once.
    const ceilingMs = Math.min(maxMs, baseMs * 2 ** Math.min(failures, 20));
    return Math.floor((entropy.u32() / 2 ** 32) * ceilingMs);
  };

  const reconnectLater = (): void => {
    if (closed) return;
    const timer = clock.timer(pauseMs());
    pause = timer;
    void timer.done.then(() => {
      if (pause !== timer) return;
      pause = null;
      if (!closed) open();
    });
  };

  /** The client that may publish on this topic now. */
  const present = (topic: string): BusClient => {
    if (closed) throw offline('the bus is closed');
    const client = link?.client ?? null;
    if (link === null || client?.connected() !== true) throw offline('not connected to the broker');
    if (link.scope !== 'full' && !link.scope.only.has(topic)) throw offline('not in this session');
    return client;
  };

  /** The client with which a filter can be asked for now, or null: then it waits for a session that may have it. */
  const hearing = (filter: string): BusClient | null => {
    const client = link?.client ?? null;
    if (link === null || client?.connected() !== true) return null;
    return link.scope === 'full' || link.scope.only.has(filter) ? client : null;
  };

  open();

  return {
    connected: () => ready,

    async publish(topic, payload, { qos, retain }) {
      const client = present(topic);
      if (waiting.size >= unacknowledgedMax) throw offline('too many messages wait for an acknowledgement');
      await answered<void>((done) => {
        client.publish(topic, payload, { qos, retain }, (error) =>
          done(error === null ? null : offline(error.message), undefined),
        );
      });
    },

    async subscribe(filter, handler): Promise<Subscription> {
      const set = handlers.get(filter) ?? new Set();
      const isNew = set.size === 0;
      handlers.set(filter, set.add(handler));
      const cancel = async (): Promise<void> => {
        if (!set.delete(handler) || set.size > 0) return;
        handlers.delete(filter);
        const client = hearing(filter);
        if (client === null) return;
        try {
          await answered<void>((done) => client.unsubscribe(filter, (error) => done(error, undefined)));
        } catch (error) {
          // The connection ended first, and the subscription with it.
          log.emit('debug', 'bus.disconnected', { filter, detail: String(error) });
        }
      };
      const client = hearing(filter);
      if (isNew && client !== null) {
        try {
          await requestSubscription(client, filter);
        } catch (error) {
          // Lost on the way: it is asked for again with the next connection.
          if (error instanceof FleetError && error.code === 'bus-offline') return { cancel };
          set.delete(handler);
          if (set.size === 0) handlers.delete(filter);
          throw error;
        }
      }
      return { cancel };
    },

    use(next) {
      credentials = next;
    },

    restart(when) {
      if (closed) return;
      restart = when;
      if (link !== null) {
        if (!link.ending) endLink(link);
      } else if (when === 'now' && pause !== null) {
        pause.cancel();
        pause = null;
        open();
      }
    },

    async close() {
      if (closed) return;
      closed = true;
      ready = false;
      limited = false;
      pause?.cancel();
      pause = null;
      const current = link;
      link = null;
      for (const lost of [...waiting]) lost(offline('the bus is closed'));
      waiting.clear();
      if (current === null) return;
      endLink(current);
      const guard = clock.timer(closeMs);
      await Promise.race([current.ended, guard.done]);
      guard.cancel();
      current.destroy();
    },
  };
}
