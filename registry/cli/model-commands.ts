// Why: `lepton models`: what publishers push and sign, and how anybody checks it.
// Trusts: the verified catalogue (catalogue.ts). Must never: sign a file that was not verified or made here.

import { createReadStream, createWriteStream, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { z } from 'zod';
import type { JsonValue } from '../../shared/crypto/canonical-json.ts';
import { makeFolders } from '../../shared/host/folders.ts';
import { progress } from '../../shared/host/terminal.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { formatReleaseId, type ReleaseName } from '../../shared/kernel/releases.ts';
import { nextCounter, nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import {
  type ModelView,
  modelSchema,
  publisherSchema,
  type ReleasePushed,
  registryInfoSchema,
  releasePushedSchema,
} from '../../shared/wire/http.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import { verifiedChunks, verifiedRelease } from './catalogue.ts';
import { connect, type RegistryClient } from './client.ts';
import { connected, type GlobalFlags, modelId, releaseId } from './flags.ts';
import { note, print, size, table } from './output.ts';
import { type PublisherKey, publisherKey } from './publisher-key.ts';
import {
  findPublisher,
  namedKey,
  nextExpiryMs,
  publisherGround,
  tellReplaced,
  untilNotRaced,
} from './publisher-steps.ts';
import { type BuiltRelease, buildRelease } from './release-folder.ts';
import { addModelStepCommands, pushedText } from './step-commands.ts';

/** The namespace's key, delegated to on first use where the registry is a development one. */
async function delegatedKey(
  client: RegistryClient,
  namespace: string,
  keyFile: string | undefined,
): Promise<PublisherKey> {
  const path = `/api/v1/publishers/${namespace}`;
  const known = await findPublisher(client, namespace);
  if (known !== null) return namedKey(known, keyFile);
  const info = await client.get('/api/v1/registry', registryInfoSchema);
  if (info.keys !== 'development') {
    throw new FleetError('namespace-unknown', `the catalogue does not know the namespace ${namespace}`);
  }
  const key = publisherKey(namespace, keyFile, true);
  await client.send('PUT', path, { keys: [key.publicKeyHex], threshold: 1 }, publisherSchema);
  if (key.created) note(`made the key of ${namespace} in ${key.file}: keep it, it signs your releases\n`);
  return key;
}

async function uploadFiles(client: RegistryClient, built: BuiltRelease): Promise<void> {
  const total = built.files.reduce((sum, file) => sum + file.bytes, 0);
  const bar = progress('upload', total);
  try {
    for (const file of built.files) {
      const path = `/api/v1/blobs/${file.sha256}`;
      if (await client.exists(path)) {
        bar.advance(file.bytes);
        continue;
      }
      const body = createReadStream(file.localPath);
      body.on('data', (chunk) => bar.advance(chunk.length));
      await client.upload(path, Readable.toWeb(body) as ReadableStream<Uint8Array>, file.bytes);
    }
  } finally {
    bar.stop();
  }
}

/** What the device needs, as it stands signed in the catalogue; keys without a value are left out. */
function signedRequires(manifest: Manifest): JsonValue {
  const { agent, opset, arch, memoryMiB } = manifest.requires;
  return {
    ...(agent === undefined ? {} : { agent }),
    ...(opset === undefined ? {} : { opset }),
    ...(arch === undefined ? {} : { arch }),
    ...(memoryMiB === undefined ? {} : { memoryMiB }),
  };
}

async function pushSigned(
  client: RegistryClient,
  release: ReleaseName,
  built: BuiltRelease,
  key: PublisherKey,
): Promise<ReleasePushed> {
  return untilNotRaced(async () => {
    const { namespace, current, floors } = await publisherGround(client, release.namespace);
    const entry = {
      sha256: built.manifestSha256,
      bytes: built.manifestBytes.length,
      counter: unwrap(nextCounter(current, release, floors.counterFloors)),
      requires: signedRequires(built.manifest),
    };
    const metadata = unwrap(
      nextPublisherTargets({
        namespace,
        current,
        add: [{ release, entry }],
        ...floors,
        expiresAtMs: nextExpiryMs(),
        signers: [key.signer],
      }),
    );
    const pushed = await client.send(
      'POST',
      '/api/v1/releases',
      {
        releaseId: formatReleaseId(release),
        metadata: Buffer.from(metadata).toString('base64'),
        manifest: Buffer.from(built.manifestBytes).toString('base64'),
      },
      releasePushedSchema,
    );
    tellReplaced(namespace, pushed.replaced);
    return pushed;
  });
}

interface PushFlags extends GlobalFlags {
  name: { namespace: string; name: string };
  version: string;
  golden?: string;
  profile?: string;
  card?: string;
  manifest?: string;
  key?: string;
}

function addPush(models: Command): void {
  connected(models.command('push'))
    .description('check a model, sign it with the publisher’s key and upload it')
    .argument('<file-or-folder>', 'an .onnx file, or a folder with exactly one')
    .requiredOption('--name <ns/name>', 'model name', modelId)
    .requiredOption('--version <semver>', 'version of the release')
    .option('--golden <file>', 'golden cases that every device must reproduce')
    .option('--profile <file>', 'reference profile for drift')
    .option('--card <file>', 'model card: Markdown with fields in YAML front matter (licence, …), or JSON')
    .option('--manifest <file>', 'JSON or YAML with limits, state, excludeOutputs, session, …')
    .option('--key <file>', 'publisher’s private key (default: one a namespace in the config folder)')
    .action(async (path: string, flags: PushFlags) => {
      const release = releaseId(`${flags.name.namespace}/${flags.name.name}@${flags.version}`);
      const built = await buildRelease({
        path,
        release,
        ...(flags.golden === undefined ? {} : { golden: flags.golden }),
        ...(flags.profile === undefined ? {} : { profile: flags.profile }),
        ...(flags.card === undefined ? {} : { card: flags.card }),
        ...(flags.manifest === undefined ? {} : { manifest: flags.manifest }),
      });
      const client = connect(flags);
      const key = await delegatedKey(client, release.namespace, flags.key);
      await uploadFiles(client, built);
      const pushed = await pushSigned(client, release, built, key);
      if (built.goldenCases === 0) {
        note('no golden cases: devices can only check that the model loads and answers (--golden FILE)\n');
      }
      print({ json: flags.json === true }, pushed, () => pushedText(pushed));
    });
}

/** Why nobody may install the release any more; empty where everybody may. */
function standing(release: { withdrawn: boolean; belowFloor: boolean }): string {
  return [release.withdrawn ? 'withdrawn' : '', release.belowFloor ? 'below floor' : '']
    .filter(Boolean)
    .join(', ');
}

/** What a device fetches of each version, by what it holds. */
function waysTable(versions: ModelView['versions']): string {
  const rows = versions.flatMap((one) => {
    const row = (holds: string, way: string, bytes: number): string[] => [
      one.version,
      holds,
      way,
      size(bytes),
      one.bytes === 0 ? '-' : `${((100 * bytes) / one.bytes).toFixed(1)} %`,
    ];
    return [
      row('nothing', 'plain', one.bytes),
      ...(one.compressedBytes === null ? [] : [row('nothing', 'compressed', one.compressedBytes)]),
      ...one.deltas.map(({ from, bytes }) => row(from, 'delta', bytes)),
    ];
  });
  return table(['VERSION', 'DEVICE HOLDS', 'FETCHES', 'SIZE', 'OF PLAIN'], rows);
}

function addReading(models: Command): void {
  connected(models.command('list'))
    .description('models and their newest releases')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/models', z.array(modelSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['MODEL', 'NEWEST', 'RELEASES', 'WITHDRAWN', 'FLOOR', 'SIZE'],
          list.map((model) => {
            const [newest] = model.versions;
            return [
              model.name,
              newest === undefined ? '-' : [newest.version, standing(newest)].filter(Boolean).join(', '),
              `${model.versions.length}`,
              `${model.versions.filter((one) => one.withdrawn).length}`,
              `${model.floor}`,
              newest === undefined ? '-' : size(newest.bytes),
            ];
          }),
        ),
      );
    });

  connected(models.command('show'))
    .description('releases of one model: files, signatures, whether admitted')
    .argument('<model>', 'NS/NAME', modelId)
    .action(async (model: { namespace: string; name: string }, flags: GlobalFlags) => {
      const found = await connect(flags).get(`/api/v1/models/${model.namespace}/${model.name}`, modelSchema);
      print({ json: flags.json === true }, found, () =>
        [
          found.floor === 0
            ? found.name
            : `${found.name}, floor ${found.floor}: no lower counter is assigned`,
          table(
            ['VERSION', 'COUNTER', 'STANDING', 'SIZE', 'FILES', 'ADMITTED', 'MANIFEST', 'SIGNED BY'],
            found.versions.map((one) => [
              one.version,
              `${one.counter}`,
              standing(one) || 'assignable',
              size(one.bytes),
              one.files.map((file) => file.path).join(' '),
              one.admitted ? (one.reason === null ? 'yes' : `yes, ${one.reason}`) : (one.reason ?? 'no'),
              one.digest.slice(0, 16),
              one.signedBy.map((id) => id.slice(0, 12)).join(' '),
            ]),
          ),
          '',
          waysTable(found.versions),
        ].join('\n'),
      );
    });

  connected(models.command('pull'))
    .description('download a release, verified like a device does')
    .argument('<release>', 'NS/NAME@VERSION', releaseId)
    .requiredOption('--out <folder>', 'where to write it')
    .option('--root <file>', 'trusted root metadata (default: the one pinned at first contact)')
    .action(async (release: ReleaseName, flags: GlobalFlags & { out: string; root?: string }) => {
      const client = connect(flags);
      const { manifest, manifestBytes } = await verifiedRelease(client, release, flags.root);
      const bar = progress(
        'pull',
        manifest.files.reduce((sum, file) => sum + file.bytes, 0),
      );
      const written: string[] = [];
      try {
        for (const file of manifest.files) {
          const path = join(flags.out, file.path);
          makeFolders(dirname(path));
          await pipeline(
            verifiedChunks(client, file),
            async function* (chunks: AsyncIterable<Uint8Array>) {
              for await (const chunk of chunks) {
                bar.advance(chunk.length);
                yield chunk;
              }
            },
            createWriteStream(`${path}.unverified`),
          );
          renameSync(`${path}.unverified`, path);
          written.push(path);
        }
        const path = join(flags.out, 'manifest.json');
        writeFileSync(path, manifestBytes);
        written.push(path);
      } finally {
        bar.stop();
      }
      print({ json: flags.json === true }, { release: formatReleaseId(release), files: written }, () =>
        written.join('\n'),
      );
    });

  connected(models.command('verify'))
    .description('check a release from the root to the last byte, without keeping it')
    .argument('<release>', 'NS/NAME@VERSION', releaseId)
    .option('--root <file>', 'trusted root metadata (default: the one pinned at first contact)')
    .action(async (release: ReleaseName, flags: GlobalFlags & { root?: string }) => {
      const client = connect(flags);
      const { manifest, target } = await verifiedRelease(client, release, flags.root);
      const bar = progress(
        'verify',
        manifest.files.reduce((sum, file) => sum + file.bytes, 0),
      );
      try {
        for (const file of manifest.files) {
          for await (const chunk of verifiedChunks(client, file)) bar.advance(chunk.length);
        }
      } finally {
        bar.stop();
      }
      const done = {
        release: formatReleaseId(release),
        verified: true,
        manifestSha256: target.sha256,
        counter: target.counter,
        files: manifest.files.length,
        withdrawn: target.withdrawn,
        belowFloor: target.counter < target.floor,
      };
      print({ json: flags.json === true }, done, () =>
        [
          `${done.release}: signed by its publisher, ${done.files} file(s) match manifest ${done.manifestSha256}`,
        ]
          .concat(standing(done) === '' ? [] : [`${standing(done)}: no device installs it any more`])
          .join('\n'),
      );
    });
}

export function addModelCommands(program: Command): void {
  const models = program.command('models').description('releases: push, sign, look, pull, verify, take back');
  addPush(models);
  addModelStepCommands(models);
  addReading(models);
}
