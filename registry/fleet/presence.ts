// Why: whether a device is there: from its connections where the broker tells, else from its own message.
// Trusts: the broker for who connects. Must never: believe the last will of a connection that was replaced, or forget a
// word that the store did not take: nobody says it twice.

import type { Timer } from '../../shared/kernel/ports.ts';
import { parseMessage, presenceSchema } from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import type { DevicesTable } from '../store/fleet-tables.ts';
import type { FleetChange } from './fleet.ts';
import type { Tasks } from './tasks.ts';

export interface Presence {
  connected(deviceId: string): Promise<void>;
  disconnected(deviceId: string): Promise<void>;
  /** A message on the device's presence topic. */
  handle(deviceId: string, payload: Uint8Array): Promise<void>;
  /** At start: nobody is known to be there until it shows. */
  forgetAll(): Promise<void>;
  stop(): void;
}

interface Word {
  presence: DevicesTable['presence'];
  /** The store did not take it. */
  isOwed: boolean;
}

export function createPresence(
  core: RegistryCore,
  parts: { changed: (change: FleetChange) => void; tasks: Pick<Tasks, 'run'> },
): Presence {
  const { store, clock, log } = core;
  const { qb } = store;
  /** Connections by device; a replaced one may end after its successor has begun. */
  const connections = new Map<string, number>();
  /** The newest word about each device, until it is stored. */
  const words = new Map<string, Word>();
  let again: Timer | null = null;
  let isStopped = false;

  async function set(deviceId: string, presence: DevicesTable['presence']): Promise<void> {
    const word: Word = { presence, isOwed: false };
    words.set(deviceId, word);
    try {
      await keep(deviceId, presence);
    } catch (thrown) {
      word.isOwed = true;
      if (!isStopped) again ??= later();
      throw thrown;
    }
    if (words.get(deviceId) === word) words.delete(deviceId);
  }

  function later(): Timer {
    const timer = clock.timer(core.limits.publishRetryMs);
    void timer.done.then(() => {
      again = null;
      for (const [deviceId, { presence, isOwed }] of [...words])
        if (isOwed) parts.tasks.run('presence again', () => set(deviceId, presence));
    });
    return timer;
  }

  async function keep(deviceId: string, presence: DevicesTable['presence']): Promise<void> {
    const nowMs = clock.wall();
    const changes = await store.tx((db) => {
      const seen = qb.updateTable('devices').set({ last_seen_ms: nowMs }).where('device_id', '=', deviceId);
      db.run(seen);
      return db.run(
        qb
          .updateTable('devices')
          .set({ presence, presence_at_ms: nowMs })
          .where('device_id', '=', deviceId)
          .where('presence', '!=', presence),
      ).changes;
    });
    if (changes === 0) return;
    log.emit('info', 'presence.changed', { deviceId, presence });
    parts.changed({ kind: 'presence', deviceId });
  }

  return {
    async connected(deviceId) {
      connections.set(deviceId, (connections.get(deviceId) ?? 0) + 1);
      await set(deviceId, 'online');
    },

    async disconnected(deviceId) {
      const left = (connections.get(deviceId) ?? 1) - 1;
      if (left > 0) {
        connections.set(deviceId, left);
        return;
      }
      connections.delete(deviceId);
      await set(deviceId, 'offline');
    },

    async handle(deviceId, payload) {
      const message = parseMessage(presenceSchema, payload);
      // A goodbye is believed when the connection has ended; see `disconnected`.
      if (message.ok && !message.value.online && connections.has(deviceId)) return;
      if (message.ok) {
        await set(deviceId, message.value.online ? 'online' : 'offline');
        return;
      }
      log.emit('warn', 'bus.message.refused', { deviceId, channel: 'presence', ...message.refusal });
    },

    stop() {
      isStopped = true;
      again?.cancel();
    },

    async forgetAll() {
      for (const deviceId of [...words.keys()]) if (!connections.has(deviceId)) words.delete(deviceId);
      const nowMs = clock.wall();
      await store.tx((db) =>
        db.run(
          qb
            .updateTable('devices')
            .set({ presence: 'unknown', presence_at_ms: nowMs })
            .where('presence', '!=', 'unknown')
            // Who connected between the broker's start and this line is known.
            .where('device_id', 'not in', connections.size === 0 ? [''] : [...connections.keys()]),
        ),
      );
    },
  };
}
