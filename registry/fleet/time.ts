// Why: a device whose clock may say anything asks its region for the time (DESIGN 3).
// Trusts: the registry's own clock; the broker for who asks. Must never: sign a time for a question that was not
// asked, or for a device that is not of this fleet.

import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { signTime } from '../../shared/trust/time.ts';
import {
  encodeMessage,
  parseMessage,
  type SignedMessage,
  schemaVersion,
  timeRequestSchema,
} from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import type { Standing } from './devices.ts';
import { messageId } from './message-id.ts';
import { createRate } from './rate.ts';

export interface Time {
  /** A message on the device's `time` topic, also of one whose certificate has expired. */
  handle(bus: RegistryBus, deviceId: string, payload: Uint8Array): Promise<void>;
}

export function createTime(
  core: RegistryCore,
  parts: { standing: (deviceId: string) => Promise<Standing | null> },
): Time {
  const { keyring, clock, entropy, log, region } = core;
  const rate = createRate(clock, {
    burst: core.limits.timeBurst,
    perSecond: core.limits.timePerSecond,
    keysMax: core.limits.ratedDevicesMax,
  });

  return {
    async handle(bus, deviceId, payload) {
      if (!rate.admit(deviceId)) return; // it asks again
      const request = parseMessage(timeRequestSchema, payload);
      if (!request.ok) {
        log.emit('warn', 'bus.message.refused', { deviceId, channel: 'time', ...request.refusal });
        return;
      }
      if ((await parts.standing(deviceId)) !== 'active') return;
      const { nonce } = request.value;
      const timeMs = clock.wall();
      const envelope = signTime({ schemaVersion, deviceId, region, nonce, timeMs }, keyring.signer('time'));
      const reply: SignedMessage = {
        schemaVersion,
        messageId: messageId(entropy),
        sentAtMs: timeMs,
        envelope,
      };
      await bus.publish(deviceTopic(region, deviceId, 'time/reply'), encodeMessage(reply), {
        qos: 1,
        retain: false,
      });
    },
  };
}
