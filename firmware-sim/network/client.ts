// Why: the driver of a simulated device's bus: dials over the simulated network, judges the certificate that the
// broker shows with the real checks, and speaks MQTT on it. What to do with that is the real bus-line.ts.
// Trusts: the network to know who listens. Must never: answer a life that is over, nor skip a check of the real driver.

import type { BrokerAddress, BusCredentials } from '../../shared/host/broker-socket.ts';
import type {
  BrokerChannel,
  BusClient,
  BusDrivers,
  ClientEvents,
  SessionStart,
} from '../../shared/host/bus-drivers.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { drawInt } from '../chance.ts';
import { type Incarnation, latencyMs, type World } from '../world.ts';
import type { Certificates } from './certificates.ts';
import { type Turns, takeTurns } from './turns.ts';
import type { ClientEnd, Wire } from './wire.ts';

export interface ClientParts {
  world: World;
  of: Incarnation;
  certificates: Certificates;
  /** Whether nothing passes between this device and the registry of that name at the moment. */
  blocked(host: string): boolean;
  /** Who listens there at the moment: shows its certificate for a server name, and takes a connection. */
  listener(
    host: string,
  ): { shown(serverName: string | undefined): string; connect(of: Incarnation): Wire } | null;
}

export function clientDrivers(parts: ClientParts): BusDrivers {
  const { world, of, certificates } = parts;
  let dials = 0;

  const judged = (address: BrokerAddress, credentials: BusCredentials): { wire: Wire; shown: Dates } => {
    const listener = parts.listener(address.host);
    if (listener === null) throw new Error(`connection refused by ${address.host}:${address.port}`);
    const named = credentials.serverName ?? (/^[\d.]+$|:/.test(address.host) ? undefined : address.host);
    const checked = certificates.judge(listener.shown(named), credentials.ca, address.host);
    if (!checked.ok) throw new FleetError(checked.refusal.code, checked.refusal.detail);
    return { wire: listener.connect(of), shown: checked.value };
  };

  const dial = (address: BrokerAddress, credentials: BusCredentials, clock: Clock) => {
    certificates.checkKey(credentials.cert, credentials.key);
    dials += 1;
    const number = dials;
    const unreachable = world.fault('link.unreachable', of.node);
    let wire: Wire | null = null;
    let over = false;
    let fail: (error: Error) => void = () => undefined;
    const opened = new Promise<BrokerChannel>((resolve, reject) => {
      const timer = clock.timer(limits.brokerConnectMs);
      fail = (error) => {
        over = true;
        timer.cancel();
        reject(error);
      };
      void timer.done.then(() => fail(new Error(`no answer in ${limits.brokerConnectMs} ms`)));
      const tookMs = latencyMs(world, 15, 300, 'dial', of.node, of.number, number);
      const answer = world.call(of, 'bus.dial', `${address.host}:${address.port}`, tookMs, () => {
        // Nobody answers: the time limit ends it.
        if (over || parts.blocked(address.host)) return;
        if (unreachable) throw new Error('the host is unreachable');
        // A machine without power does not even refuse.
        const refuses = drawInt(0, 1, world.seed, 'dial', of.node, of.number, number) === 1;
        if (parts.listener(address.host) === null && !refuses) return;
        const found = judged(address, credentials);
        const { client } = found.wire;
        wire = found.wire;
        over = true;
        timer.cancel();
        client.send({ cmd: 'hello', certificate: credentials.cert });
        resolve({
          dates: found.shown,
          start: (session, on) => startClient({ world, of, end: client, clock, number }, session, on),
          destroy: () => client.close(),
        });
      });
      answer.catch(fail);
    });
    // Whoever gave up does not listen any more.
    opened.catch(() => undefined);
    const destroy = (): void => {
      if (wire !== null) wire.client.close();
      else if (!over) fail(new Error('ended while connecting'));
    };
    return { opened, destroy };
  };
  return { dial };
}

type Dates = BrokerChannel['dates'];

interface StartParts {
  world: World;
  of: Incarnation;
  end: ClientEnd;
  clock: Clock;
  number: number;
}

const gone = (): Error => new Error('connection closed');

function startClient(parts: StartParts, session: SessionStart, on: ClientEvents): BusClient {
  const { world, of, end, clock, number } = parts;
  const turns: Turns = takeTurns(world, of, `client ${of.number}.${number}`);
  const answers = new Map<number, (error: Error | null, granted: boolean) => void>();
  /** Publications without their PUBACK, and what was not sent yet. */
  let owed = 0;
  let ids = 0;
  let connected = false;
  let ending = false;
  let bye = false;

  const guard = clock.timer(limits.brokerConnectMs);
  void guard.done.then(() => {
    on.failed(new Error('connack timeout'));
    end.close();
  });
  const sayGoodbye = (): void => {
    if (!ending || owed > 0 || bye) return;
    bye = true;
    void turns('bus.disconnect', '', () => {
      end.send({ cmd: 'disconnect' });
      end.close();
    });
  };
  const answer = (id: number, granted: boolean): void => {
    const told = answers.get(id);
    answers.delete(id);
    told?.(null, granted);
  };
  const settled = (): void => {
    owed -= 1;
    sayGoodbye();
  };
  end.onClose(() => {
    guard.cancel();
    connected = false;
    for (const told of [...answers.values()]) told(gone(), false);
    answers.clear();
    on.closed();
  });
  end.listen((packet) => {
    if (packet.cmd === 'connack') {
      guard.cancel();
      if (packet.returnCode === 0) {
        connected = true;
        on.connected();
        return;
      }
      on.failed(Object.assign(new Error('connection refused'), { code: packet.returnCode }));
      end.close();
    } else if (packet.cmd === 'publish') {
      const { topic, payload, retain } = packet;
      on.message({ topic, payload: payload.slice(), retained: retain });
    } else answer(packet.id, packet.cmd === 'suback' ? packet.granted : true);
  });
  end.send({ cmd: 'connect', ...session });

  /** Sends a packet that is answered. */
  const ask = (
    kind: 'subscribe' | 'unsubscribe',
    filter: string,
    done: (error: Error | null, granted: boolean) => void,
  ): void => {
    if (!connected || ending) {
      done(gone(), false);
      return;
    }
    ids += 1;
    const id = ids;
    answers.set(id, done);
    void turns(`bus.${kind}`, filter, () => end.send({ cmd: kind, id, filter }));
  };

  return {
    connected: () => connected,
    publish: (topic, payload, { qos, retain }, done) => {
      if (!connected || ending) {
        done(gone());
        return;
      }
      owed += 1;
      ids += 1;
      const id = qos === 0 ? 0 : ids;
      // A copy: the caller may use its buffer again.
      const packet = { cmd: 'publish' as const, id, topic, payload: payload.slice(), qos, retain };
      const told = (error: Error | null): void => {
        done(error);
        settled();
      };
      if (qos === 1) answers.set(id, told);
      void turns('bus.publish', `${topic} ${payload.length}`, () => {
        const stands = end.open;
        end.send(packet);
        return stands;
      }).then((sent) => {
        if (qos === 0) told(sent ? null : gone());
      });
    },
    subscribe: (filter, done) => ask('subscribe', filter, done),
    unsubscribe: (filter, done) => ask('unsubscribe', filter, (error) => done(error)),
    end: (force) => {
      if (force) {
        end.close();
        return;
      }
      ending = true;
      sayGoodbye();
    },
  };
}
