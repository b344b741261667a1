// Why: the publisher's machine: it makes releases, good ones and bad ones of every kind that devices must notice, signs
// them, and asks the registry until it has taken them. Trusts: its own key; what the registry says of floors.
// Must never: sign two different files under one version of its metadata, nor lose what it signed.

import type { JsonValue } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { nextCounter, nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { drawBytes, drawInt } from '../chance.ts';
import type { World } from '../world.ts';
import type { RegistryParts } from './registry-node.ts';

export const namespace = 'acme';

/** How a release turns out on the devices. */
export const releaseKinds = [
  'good',
  'bad-golden',
  'slow',
  'hungry',
  'no-load',
  'fails-in-service',
  'crashes-in-service',
  'disagrees',
  'other-arch',
] as const;
export type ReleaseKind = (typeof releaseKinds)[number];

export interface SimRelease {
  releaseId: string;
  model: string;
  kind: ReleaseKind;
  counter: number;
  manifestSha256: string;
  /** Every file, the manifest too, by digest. */
  digests: string[];
}

export interface Publisher {
  /** Signed so far, whether the registry has it or not. */
  signed(): readonly SimRelease[];
  ofManifest(sha256: string): SimRelease | undefined;
  /** Of a file of a release, the manifest too. */
  bytesOf(sha256: string): Uint8Array | undefined;
  publicKeyHex: string;
  /** Makes, signs and uploads a release. */
  push(registry: RegistryParts, release: { model: string; kind: ReleaseKind }): Promise<Result<SimRelease>>;
  raiseFloor(registry: RegistryParts, model: string, floor: number): Promise<Result<unknown>>;
  withdraw(registry: RegistryParts, release: SimRelease): Promise<Result<unknown>>;
}

/** `y = Identity(x)` of so many bytes: small enough to be quick, large enough to be fetched in several pieces. */
function identityModel(note: Uint8Array): Uint8Array {
  const value = (name: string): ProtobufWriter => {
    const shape = new ProtobufWriter().message(1, new ProtobufWriter().string(2, 'n'));
    const tensor = new ProtobufWriter().int(1, 1).message(2, shape);
    return new ProtobufWriter().string(1, name).message(2, new ProtobufWriter().message(1, tensor));
  };
  const node = new ProtobufWriter().string(1, 'x').string(2, 'y').string(4, 'Identity');
  const graph = new ProtobufWriter()
    .message(1, node)
    .string(2, 'identity')
    .message(11, value('x'))
    .message(12, value('y'));
  return new ProtobufWriter()
    .int(1, 8)
    .string(6, Buffer.from(note).toString('hex'))
    .message(7, graph)
    .message(8, new ProtobufWriter().int(2, 13))
    .finish();
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

const yearMs = 365 * 86_400_000;

export function createPublisher(world: World, arch: string): Publisher {
  const { seed } = world;
  const signer = signerFromSeed(drawBytes(32, seed, 'publisher'), 'node');
  const signed: SimRelease[] = [];
  const byManifest = new Map<string, SimRelease>();
  const byDigest = new Map<string, Uint8Array>();
  let made = 0;

  /** The namespace's metadata as the registry has it now, and the numbers that it says were lost. */
  async function ground(registry: RegistryParts) {
    const { repository } = registry.core;
    const publisher = await repository.publisher(namespace);
    if (publisher === null) unwrap(await repository.delegate(namespace, [self.publicKeyHex], 1));
    const { metadataVersion = 0, versionFloor = 0, counterFloors = {} } = publisher ?? {};
    const current =
      metadataVersion === 0 ? null : await repository.file(`${metadataVersion}.${namespace}.json`);
    return { current, versionFloor, counterFloors: new Map(Object.entries(counterFloors)) };
  }

  function filesOf(name: string, kind: ReleaseKind) {
    const note = drawBytes(drawInt(0, 1_500, seed, 'model-size', name), seed, 'model', name);
    const model = identityModel(note);
    const card = Buffer.from(`# ${name}\n`);
    const files = [
      { path: 'model.onnx', role: 'model', bytes: model },
      { path: 'card.md', role: 'card', bytes: card },
    ];
    const requires = kind === 'other-arch' ? { arch: ['riscv64'] } : { arch: [arch] };
    return { files, requires };
  }

  const self: Publisher = {
    signed: () => signed,
    ofManifest: (sha256) => byManifest.get(sha256),
    bytesOf: (sha256) => byDigest.get(sha256),
    publicKeyHex: Buffer.from(signer.publicKey).toString('hex'),

    async push(registry, { model, kind }) {
      made += 1;
      const version = `${made}.0.0`;
      const releaseId = `${namespace}/${model}@${version}`;
      const name = parseReleaseId(releaseId);
      if (name === null) throw new Error(`not a release id: ${releaseId}`);
      const { files, requires } = filesOf(releaseId, kind);
      const manifest = encodeMessage({
        schemaVersion: 1,
        name: `${namespace}/${model}`,
        version,
        files: files.map(({ path, role, bytes }) => ({
          path,
          role,
          sha256: sha256Hex(bytes),
          bytes: bytes.length,
        })),
        requires,
        limits: { latencyP95Ms: 100, memoryMiB: 200 },
      });
      for (const { bytes } of files) {
        const put = await registry.core.blobs.put(sha256Hex(bytes), once(bytes));
        if (!put.ok) return put;
      }
      const { current, versionFloor, counterFloors } = await ground(registry);
      const counter = unwrap(nextCounter(current, { namespace, name: model }, counterFloors));
      const metadata = nextPublisherTargets({
        namespace,
        current,
        versionFloor,
        counterFloors,
        add: [
          {
            release: name,
            entry: {
              bytes: manifest.length,
              sha256: sha256Hex(manifest),
              counter,
              requires: requires as JsonValue,
            },
          },
        ],
        expiresAtMs: world.originMs + world.nowMs() + yearMs,
        signers: [signer],
      });
      if (!metadata.ok) return metadata;
      const release: SimRelease = {
        releaseId,
        model,
        kind,
        counter,
        manifestSha256: sha256Hex(manifest),
        digests: [sha256Hex(manifest), ...files.map(({ bytes }) => sha256Hex(bytes))],
      };
      // Signed from here on, whatever becomes of the answer.
      signed.push(release);
      byManifest.set(release.manifestSha256, release);
      for (const bytes of [manifest, ...files.map((file) => file.bytes)])
        byDigest.set(sha256Hex(bytes), bytes);
      world.note(`publisher signs ${releaseId} ${kind} counter ${counter}`);
      const pushed = await registry.core.releases.push({
        releaseId,
        metadata: metadata.value,
        manifest,
        pushedBy: 'publisher',
      });
      return pushed.ok ? { ok: true, value: release } : pushed;
    },

    async raiseFloor(registry, model, floor) {
      const { current, versionFloor, counterFloors } = await ground(registry);
      const metadata = nextPublisherTargets({
        ...{ namespace, current, versionFloor, counterFloors },
        add: [],
        floors: new Map([[model, floor]]),
        expiresAtMs: world.originMs + world.nowMs() + yearMs,
        signers: [signer],
      });
      if (!metadata.ok) return metadata;
      world.note(`publisher raises the floor of ${model} to ${floor}`);
      return registry.core.releases.takeStep({ namespace, metadata: metadata.value, pushedBy: 'publisher' });
    },

    async withdraw(registry, release) {
      const { current, versionFloor, counterFloors } = await ground(registry);
      const metadata = nextPublisherTargets({
        ...{ namespace, current, versionFloor, counterFloors },
        add: [],
        withdrawn: new Map([[release.model, new Set([release.counter])]]),
        expiresAtMs: world.originMs + world.nowMs() + yearMs,
        signers: [signer],
      });
      if (!metadata.ok) return metadata;
      world.note(`publisher withdraws ${release.releaseId}`);
      return registry.core.releases.takeStep({ namespace, metadata: metadata.value, pushedBy: 'publisher' });
    },
  };
  return self;
}
