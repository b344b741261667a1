// Why: how the stand-in answers questions of trust: the time, a certificate, metadata in one parcel, what devices
// give back. Trusts: shared/trust, as the real registry does. Must never: check what the device should check.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { readDeviceRequest } from '../../shared/host/certificates.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { signAuthorities } from '../../shared/trust/authorities.ts';
import { signTime } from '../../shared/trust/time.ts';
import {
  type Envelope,
  encodeMessage,
  heldMessageSchema,
  parseMessage,
  type RefreshTarget,
  renewRequestSchema,
  type TimeStatement,
  timeRequestSchema,
} from '../../shared/wire/messages.ts';
import { encodeParcel, type Parcel, packParcel } from '../../shared/wire/refresh.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { TestCatalogue } from './test-catalogue.ts';

export interface TrustTamper {
  /** The envelopes to answer with; none is silence. */
  time?: (honest: Envelope, statement: TimeStatement) => Envelope[];
  renewal?: (result: Record<string, unknown>) => Record<string, unknown> | null;
  /** Null: it does not know parcels. */
  parcel?: (parcel: Parcel) => Parcel | null;
}

export interface TrustAnswers {
  answer(channel: 'time' | 'renew' | 'result', deviceId: string, payload: Uint8Array): Promise<void>;
  parcel(target: RefreshTarget): Promise<Uint8Array | undefined>;
}

export function trustAnswers(parts: {
  catalogue: TestCatalogue;
  region: string;
  clock: Clock;
  tamper(): TrustTamper;
  authorities(): string[];
  issue(deviceId: string, publicKey: Uint8Array): Promise<string>;
  asked: { time: number; renewal: number };
  returned: { file: string; bytes: Uint8Array }[];
  publish(topic: string, body: Uint8Array): Promise<void>;
}): TrustAnswers {
  const { catalogue, region, clock, asked, returned } = parts;
  const head = () => ({ schemaVersion: 1 as const, messageId: 'stand-in', sentAtMs: clock.wall() });
  const pieces = new Map<string, Uint8Array[]>();

  async function tellTime(deviceId: string, payload: Uint8Array): Promise<void> {
    asked.time += 1;
    const { nonce } = unwrap(parseMessage(timeRequestSchema, payload));
    const statement = { schemaVersion: 1 as const, deviceId, region, nonce, timeMs: clock.wall() };
    const honest = signTime(statement, catalogue.time());
    const envelopes = parts.tamper().time?.(honest, statement) ?? [honest];
    for (const envelope of envelopes) {
      await parts.publish(
        deviceTopic(region, deviceId, 'time/reply'),
        encodeMessage({ ...head(), envelope }),
      );
    }
  }

  async function renew(deviceId: string, payload: Uint8Array): Promise<void> {
    asked.renewal += 1;
    const { csr } = unwrap(parseMessage(renewRequestSchema, payload));
    const { publicKey } = unwrap(await readDeviceRequest(csr));
    const result = {
      status: 'accepted',
      certificate: await parts.issue(deviceId, publicKey),
      authorities: signAuthorities(
        { schemaVersion: 1, region, issuedAtMs: clock.wall(), certificates: parts.authorities() },
        catalogue.command(),
      ),
    };
    const { renewal } = parts.tamper();
    const answer = renewal === undefined ? result : renewal(result);
    if (answer === null) return;
    const body = encodeMessage({ ...head(), result: answer });
    await parts.publish(deviceTopic(region, deviceId, 'renew/reply'), body);
  }

  function takeBack(payload: Uint8Array): void {
    const message = unwrap(parseMessage(heldMessageSchema, payload));
    const name = `${message.file} ${message.sha256}`;
    const got = [...(pieces.get(name) ?? []), new Uint8Array(Buffer.from(message.bytes, 'base64'))];
    pieces.set(name, got);
    const bytes = new Uint8Array(Buffer.concat(got));
    if (bytes.length < message.totalBytes) return;
    pieces.delete(name);
    if (sha256Hex(bytes) !== message.sha256)
      throw new Error(`${message.file} came back in pieces that do not fit`);
    returned.push({ file: message.file, bytes });
  }

  return {
    answer: async (channel, deviceId, payload) => {
      if (channel === 'time') return tellTime(deviceId, payload);
      if (channel === 'renew') return renew(deviceId, payload);
      takeBack(payload);
    },

    parcel: async ({ held, namespaces }) => {
      const { namespaces: offered, ...now } = catalogue.versions();
      const files = new Map<string, Uint8Array>();
      const put = (name: string): void => {
        const bytes = catalogue.files.get(name);
        if (bytes !== undefined) files.set(name, bytes);
      };
      for (let version = held.root + 1; version <= now.root; version += 1) put(`${version}.root.json`);
      for (let version = held.regionRoot + 1; version <= now.regionRoot; version += 1) {
        put(`region/${version}.root.json`);
      }
      if (now.timestamp > held.timestamp) put('timestamp.json');
      if (now.snapshot > held.snapshot) put(`${now.snapshot}.snapshot.json`);
      if (now.targets > held.targets) put(`${now.targets}.targets.json`);
      for (const [name, version] of Object.entries(namespaces)) {
        if ((offered[name] ?? 0) > version) put(`${offered[name]}.${name}.json`);
      }
      const roles = ['root', 'regionRoot', 'timestamp', 'snapshot', 'targets'] as const;
      const honest: Parcel = {
        files,
        behind: roles.filter((role) => held[role] > now[role]),
        behindNamespaces: Object.keys(namespaces).filter(
          (name) => (namespaces[name] ?? 0) > (offered[name] ?? 0),
        ),
      };
      const tamper = parts.tamper().parcel;
      const parcel = tamper === undefined ? honest : tamper(honest);
      if (parcel === null) return undefined;
      const plain = packParcel(parcel);
      return encodeParcel(plain, await systemDeflate.deflate(plain));
    },
  };
}
