// Why: the routes of the catalogue: files of releases, signed metadata, pushes, and how models look.
// Trusts: catalog/ and signing/ for every check. Must never: hold a whole file in memory.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId, sha256Pattern } from '../../shared/kernel/releases.ts';
import {
  modelSchema,
  publisherStepSchema,
  publisherStepTakenSchema,
  registryInfoSchema,
  releasePushedSchema,
  releasePushSchema,
} from '../../shared/wire/http.ts';
import { metadataNamePattern, nameSchema } from '../../shared/wire/messages.ts';
import type { Blobs } from '../catalog/blobs.ts';
import {
  type Api,
  noteAudited,
  problemResponse,
  type RegistryParts,
  requireAccess,
  requirePrincipal,
} from './context.ts';
import { body, json } from './documents.ts';
import { acceptsGzip, createPackedFiles, packFromBytes } from './packed.ts';

const octets = (description: string) => ({
  description,
  content: { 'application/octet-stream': { schema: { type: 'string' as const, format: 'binary' } } },
});
const digestParam = { params: z.object({ sha256: z.string().regex(sha256Pattern) }) };
const blobTakenSchema = z.object({ sha256: z.string(), bytes: z.number().int() });

const pushRelease = createRoute({
  method: 'post',
  path: '/api/v1/releases',
  summary: 'Push a release: its manifest and the namespace’s next signed metadata',
  request: { body: { required: true, content: { 'application/json': { schema: releasePushSchema } } } },
  responses: {
    200: json(releasePushedSchema, 'Waits for more signatures.'),
    201: json(releasePushedSchema, 'In the catalogue.'),
    default: problemResponse,
  },
});
const takeStep = createRoute({
  method: 'post',
  path: '/api/v1/publishers/{namespace}/metadata',
  summary:
    'The namespace’s next signed metadata where it adds no release: floors, withdrawals, a renewal; idempotent',
  request: { params: z.object({ namespace: nameSchema }), ...body(publisherStepSchema) },
  responses: {
    200: json(publisherStepTakenSchema, 'Waits for more signatures.'),
    201: json(publisherStepTakenSchema, 'In the catalogue.'),
    default: problemResponse,
  },
});
const listModels = createRoute({
  method: 'get',
  path: '/api/v1/models',
  summary: 'Every model with its releases',
  responses: { 200: json(z.array(modelSchema), 'By name; releases newest first.'), default: problemResponse },
});
const showModel = createRoute({
  method: 'get',
  path: '/api/v1/models/{namespace}/{name}',
  summary: 'One model with its releases',
  request: { params: z.object({ namespace: nameSchema, name: nameSchema }) },
  responses: { 200: json(modelSchema, 'Releases newest first.'), default: problemResponse },
});
const showRegistry = createRoute({
  method: 'get',
  path: '/api/v1/registry',
  summary: 'What this registry is and where it listens',
  responses: { 200: json(registryInfoSchema, 'This registry.'), default: problemResponse },
});

function documentStreams(api: Api): void {
  const { openAPIRegistry } = api;
  openAPIRegistry.registerPath({
    method: 'put',
    path: '/api/v1/blobs/{sha256}',
    summary: 'Upload a file of a release under its SHA-256; idempotent',
    request: {
      ...digestParam,
      body: {
        required: true,
        content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } },
      },
    },
    responses: {
      200: json(blobTakenSchema, 'It was there already.'),
      201: json(blobTakenSchema, 'Taken.'),
      default: problemResponse,
    },
  });
  for (const method of ['get', 'head'] as const) {
    openAPIRegistry.registerPath({
      method,
      path: '/api/v1/blobs/{sha256}',
      summary: 'A file of a release',
      request: digestParam,
      responses: { 200: octets('Its bytes.'), default: problemResponse },
    });
  }
  openAPIRegistry.registerPath({
    method: 'get',
    path: '/api/v1/metadata/{name}',
    summary: 'A TUF metadata file, exact bytes: timestamp.json, 3.root.json, 7.acme.json, region/1.root.json',
    request: { params: z.object({ name: z.string().regex(metadataNamePattern) }) },
    responses: { 200: octets('Exact bytes.'), default: problemResponse },
  });
}

const readBytes = 1024 * 1024;

function streamOf(blobs: Blobs, sha256: string, bytes: number): ReadableStream<Uint8Array> {
  let offset = 0;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const part = await blobs.readRange(sha256, offset, readBytes);
        if (part === null || part.length === 0) {
          controller.error(new FleetError('disk-io', `the file ${sha256} ended at ${offset} of ${bytes}`));
          return;
        }
        offset += part.length;
        controller.enqueue(part);
        if (offset >= bytes) controller.close();
      },
    },
    { highWaterMark: 1 },
  );
}

/** The body's chunks; an aborted upload rejects. */
async function* chunksOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    for (;;) {
      const next = await reader.read();
      if (next.done) return;
      yield next.value;
    }
  } finally {
    reader.releaseLock();
  }
}

function addBlobRoutes(api: Api, parts: RegistryParts): void {
  const { blobs } = parts;

  api.put('/api/v1/blobs/:sha256', async (c) => {
    // Files belong to no namespace before a manifest names them: whoever may push may upload.
    requireAccess(c, 'catalogue.push', requirePrincipal(c).namespace);
    const sha256 = c.req.param('sha256');
    const taken = unwrap(await blobs.put(sha256, chunksOf(c.req.raw.body)));
    return c.json({ sha256, bytes: taken.bytes }, taken.existed ? 200 : 201);
  });

  // Hono answers HEAD by the GET route without its body.
  api.get('/api/v1/blobs/:sha256', async (c) => {
    requireAccess(c, 'catalogue.read');
    const sha256 = c.req.param('sha256');
    const bytes = await blobs.size(sha256);
    if (bytes === null) throw new FleetError('not-found', `there is no file ${sha256.slice(0, 64)}`);
    const headers = {
      'content-type': 'application/octet-stream',
      'content-length': String(bytes),
      etag: `"${sha256}"`,
      'cache-control': 'private, max-age=31536000, immutable',
    };
    if (c.req.method === 'HEAD' || bytes === 0) return c.body(null, 200, headers);
    return c.body(streamOf(blobs, sha256, bytes), 200, headers);
  });
}

export function registerCatalogueRoutes(api: Api, parts: RegistryParts): void {
  const { repository, releases } = parts;
  documentStreams(api);
  addBlobRoutes(api, parts);
  const packed = createPackedFiles();

  // The name may hold a slash (region/1.root.json), which a path parameter would not match.
  api.get('/api/v1/metadata/:name{.+}', async (c) => {
    requireAccess(c, 'catalogue.read');
    const name = c.req.param('name');
    const bytes = metadataNamePattern.test(name) ? await repository.file(name) : null;
    if (bytes === null)
      throw new FleetError('metadata-missing', `there is no metadata file ${name.slice(0, 80)}`);
    const changes = name === 'timestamp.json';
    const headers = {
      'content-type': 'application/json',
      'cache-control': changes ? 'no-store' : 'private, max-age=31536000, immutable',
      vary: 'accept-encoding',
    };
    // Every name but that one has its version in it and always the same bytes.
    if (!changes && bytes.length > packFromBytes && acceptsGzip(c.req.header('accept-encoding'))) {
      const body = await packed.get(name, bytes);
      return c.body(new Uint8Array(body), 200, { ...headers, 'content-encoding': 'gzip' });
    }
    return c.body(new Uint8Array(bytes), 200, headers);
  });

  api.openapi(pushRelease, async (c) => {
    const push = c.req.valid('json');
    const release = parseReleaseId(push.releaseId);
    if (release === null)
      throw new FleetError('input-invalid', `releaseId: not NS/NAME@VERSION: ${push.releaseId}`);
    noteAudited(c, { subject: push.releaseId });
    const principal = requireAccess(c, 'catalogue.push', release.namespace);
    const pushed = unwrap(
      await releases.push({
        releaseId: push.releaseId,
        metadata: Buffer.from(push.metadata, 'base64'),
        manifest: Buffer.from(push.manifest, 'base64'),
        pushedBy: principal.user,
      }),
    );
    return c.json(pushed, pushed.status === 'accepted' ? 201 : 200);
  });

  api.openapi(takeStep, async (c) => {
    const { namespace } = c.req.valid('param');
    const principal = requireAccess(c, 'catalogue.push', namespace);
    const metadata = Buffer.from(c.req.valid('json').metadata, 'base64');
    const taken = unwrap(await releases.takeStep({ namespace, metadata, pushedBy: principal.user }));
    return c.json(taken, taken.status === 'accepted' ? 201 : 200);
  });

  api.openapi(listModels, async (c) => {
    requireAccess(c, 'catalogue.read');
    return c.json(await releases.list(), 200);
  });

  api.openapi(showModel, async (c) => {
    requireAccess(c, 'catalogue.read');
    const { namespace, name } = c.req.valid('param');
    return c.json(unwrap(await releases.show(`${namespace}/${name}`)), 200);
  });

  api.openapi(showRegistry, async (c) => {
    requireAccess(c, 'catalogue.read');
    return c.json(
      {
        region: parts.region,
        version: parts.version,
        mqtt: parts.addresses.mqtt,
        http: parts.addresses.http,
        catalogueRootSha256: await repository.catalogueRootSha256(),
        regionRootSha256: await repository.regionRootSha256(),
        keys: parts.keyring.kind,
      },
      200,
    );
  });
}
