// Why: a device that keeps what it verified, with the real client of shared/trust, and gives it back to a registry
// that seems to have lost it: what an agent does, without its process.
// Trusts: world.ts for the bus. Must never: believe the registry more than a device may.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { checkAnswer } from '../../shared/trust/telemetry.ts';
import { findRelease, refreshCatalogue, type TrustState } from '../../shared/trust/tuf/client.ts';
import { parseSnapshot, parseTargets, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { parseRootFile } from '../../shared/trust/tuf/repository.ts';
import {
  type Assignment,
  encodeMessage,
  type HeldVersions,
  heldPieceBytes,
  parseMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import {
  type Parcel,
  parcelPlainBytesMax,
  readParcelHeader,
  unpackParcel,
} from '../../shared/wire/refresh.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { countedEntropy } from '../registry-core/support.ts';
import { BatchMaker } from '../telemetry/batch-maker.ts';
import { quiet } from '../telemetry/ingest-world.ts';
import { type Device, head, region, type World } from './world.ts';

export class Holder {
  readonly device: Device;
  world: World;
  trust: TrustState;
  regionRoot: Uint8Array;
  assignment: Assignment | null = null;
  /** Bytes of the messages, as they are given back. */
  readonly held = new Map<string, Uint8Array>();
  acknowledged = 0;
  private assignmentSha256 = '';
  private maker: BatchMaker | null = null;

  constructor(world: World, device: Device, roots: { root: Uint8Array; regionRoot: Uint8Array }) {
    this.world = world;
    this.device = device;
    this.trust = { root: roots.root, timestamp: null, snapshot: null, targets: null, delegated: {} };
    this.regionRoot = roots.regionRoot;
  }

  moveTo(world: World): void {
    this.world = world;
    this.device.moveTo(world);
  }

  versions(): HeldVersions {
    const { root, timestamp, snapshot, targets } = this.trust;
    return {
      root: unwrap(parseRootFile(root)).version,
      regionRoot: unwrap(parseRegionRoot(this.regionRoot)).version,
      timestamp: timestamp === null ? 0 : unwrap(parseTimestamp(timestamp)).version,
      snapshot: snapshot === null ? 0 : unwrap(parseSnapshot(snapshot)).version,
      targets: targets === null ? 0 : unwrap(parseTargets(targets)).version,
    };
  }

  /** One refresh by parcel. The refusal's code, and what the registry says that it is behind in. */
  async refresh(namespaces: string[]): Promise<{ refusal: string | null; behind: string[] }> {
    const wanted = Object.fromEntries(
      namespaces.map((name) => {
        const bytes = this.trust.delegated[name];
        return [name, bytes === undefined ? 0 : unwrap(parseTargets(bytes)).version];
      }),
    );
    const parcel = await this.parcel({ kind: 'refresh', held: this.versions(), namespaces: wanted });
    for (;;) {
      const next = unwrap(parseRegionRoot(this.regionRoot)).version + 1;
      const bytes = parcel.files.get(`region/${next}.root.json`);
      if (bytes === undefined) break;
      this.regionRoot = unwrap(updateRegionRoot(this.regionRoot, bytes)).bytes;
    }
    const refreshed = await refreshCatalogue({
      state: this.trust,
      fetcher: {
        fetch: async (name) => {
          const bytes = parcel.files.get(name) ?? (await this.world.repository.file(name));
          return bytes === null ? refuse('metadata-missing', name) : ok(bytes);
        },
      },
      nowMs: this.world.clock.wall(),
      namespaces,
      saveRoot: async (root) => {
        this.trust = { ...this.trust, root };
      },
    });
    if (refreshed.ok) this.trust = refreshed.value;
    const behind = [...parcel.behind, ...parcel.behindNamespaces.map((name) => `ns/${name}`)];
    return { refusal: refreshed.ok ? null : refreshed.refusal.code, behind };
  }

  private async parcel(target: object): Promise<Parcel> {
    const { bus } = this.world;
    bus.frames.delete(this.device.id);
    this.device.say('fetch', { ...head(this.world), requestId: 1, target, offset: 0, length: 1_000_000 });
    for (const end = performance.now() + 30_000; performance.now() < end; ) {
      const frames = bus.frames.get(this.device.id) ?? [];
      const bytes = Buffer.concat(frames.map((frame) => frame.payload));
      if (frames.length > 0 && bytes.length === frames[0]?.totalBytes) {
        const { deflated, body } = unwrap(readParcelHeader(new Uint8Array(bytes)));
        return unwrap(
          unpackParcel(deflated ? unwrap(await systemDeflate.inflate(body, parcelPlainBytesMax)) : body),
        );
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    throw new Error('no parcel');
  }

  /** Returns the signed bytes that these names stand for. */
  giveBack(names: readonly string[]): void {
    for (const name of names) {
      const { trust } = this;
      const bytes =
        name === 'root'
          ? trust.root
          : name === 'regionRoot'
            ? this.regionRoot
            : name === 'timestamp' || name === 'snapshot' || name === 'targets'
              ? trust[name]
              : name.startsWith('ns/')
                ? trust.delegated[name.slice(3)]
                : this.held.get(name);
      assert.ok(bytes, name);
      giveBack(this.world, this.device, name === 'regionRoot' ? 'region-root' : name, bytes);
    }
  }

  /** Takes what is on its topic as an agent does, and gives back its own where that is older. */
  async follow(): Promise<string> {
    const payload = this.world.bus.retained.get(deviceTopic(region, this.device.id, 'desired'));
    if (payload === undefined) return 'nothing';
    const { envelope } = unwrap(parseMessage(signedMessageSchema, payload));
    const checked = checkAssignment({
      envelope,
      regionRoot: unwrap(parseRegionRoot(this.regionRoot)),
      deviceId: this.device.id,
      region,
      current:
        this.assignment === null
          ? null
          : { epoch: this.assignment.epoch, payloadSha256: this.assignmentSha256 },
      nowMs: this.world.clock.wall(),
    });
    if (!checked.ok) {
      this.giveBack(['assignment']);
      return checked.refusal.code;
    }
    const { assignment, payloadSha256 } = checked.value;
    for (const release of assignment.releases) {
      const found = this.find(release.releaseId);
      if (!found.ok) return found.refusal.code;
      if (found.value.sha256 !== release.manifestSha256) return 'target-digest-mismatch';
    }
    this.assignment = assignment;
    this.assignmentSha256 = payloadSha256;
    this.held.set('assignment', encodeMessage(envelope));
    await this.device.obey();
    return 'taken';
  }

  private find(releaseId: string): Result<{ sha256: string }> {
    const release = parseReleaseId(releaseId);
    assert.ok(release);
    return findRelease(this.trust, release);
  }

  /** Sends batches of these records, again after it gave back what the region seems to have lost. */
  async send(records: TelemetryRecord[]): Promise<string> {
    const key = this.assignment?.telemetry;
    assert.ok(key);
    const { seed, id } = this.device;
    this.maker ??= new BatchMaker({ seed, region, key, entropy: countedEntropy(`batches ${id}`) });
    const { message } = await this.maker.make(records);
    const first = await this.exchange(message);
    if (first !== 'telemetry-gap') return first;
    this.giveBack(['acknowledgement']);
    await this.world.settle();
    return this.exchange(message);
  }

  /** The answer to a batch: `stored`, or the code of its refusal. */
  async exchange(message: Uint8Array): Promise<string> {
    const topic = deviceTopic(region, this.device.id, 'telemetry/ack');
    const answers = () => this.world.bus.published.filter((one) => one.topic === topic);
    const before = answers().length;
    this.world.bus.say(deviceTopic(region, this.device.id, 'telemetry'), message);
    await quiet(this.world);
    await this.world.settle();
    const answer = answers()[before];
    if (answer === undefined) return 'no answer';
    const { envelope } = unwrap(parseMessage(signedMessageSchema, answer.payload));
    const regionRoot = unwrap(parseRegionRoot(this.regionRoot));
    const checked = unwrap(checkAnswer({ envelope, regionRoot, deviceId: this.device.id, region }));
    if (checked.result.status === 'refused') return checked.result.code;
    if (checked.sequence > this.acknowledged) {
      this.acknowledged = checked.sequence;
      this.held.set('acknowledgement', encodeMessage(envelope));
    }
    return 'stored';
  }
}

/** Sends any bytes as a held file, in its pieces. */
export function giveBack(world: World, device: Device, file: string, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; offset += heldPieceBytes) {
    const piece = Buffer.from(bytes.subarray(offset, offset + heldPieceBytes)).toString('base64');
    device.say('result', {
      ...head(world),
      kind: 'held',
      file,
      sha256: sha256Hex(bytes),
      totalBytes: bytes.length,
      offset,
      bytes: piece,
    });
  }
}
