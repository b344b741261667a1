// Why: the laws of the house (ARCHITECTURE.md) are held by this test, not by memory.
// Trusts: the source text; imports are found by their syntax. Must never: be loosened to let a change in.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { test } from 'node:test';
import { projectFolder } from './support/data.ts';

const floors = ['shared', 'agent', 'registry', 'firmware-sim', 'test'];

function sources(folder: string): string[] {
  return readdirSync(join(projectFolder, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = posix.join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

interface Source {
  path: string;
  text: string;
  /** The text without comments, strings kept. */
  code: string;
  imports: { specifier: string; typeOnly: boolean }[];
}

function read(path: string): Source {
  const text = readFileSync(join(projectFolder, path), 'utf8');
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[^:'"`])\/\/.*$/gm, '$1');
  const imports: Source['imports'] = [];
  for (const match of code.matchAll(/^\s*(import|export)\s+(type\s)?[^;'"]*?from\s+['"]([^'"]+)['"]/gm)) {
    imports.push({ specifier: match[3] ?? '', typeOnly: match[2] !== undefined });
  }
  for (const match of code.matchAll(/^\s*import\s+['"]([^'"]+)['"]/gm)) {
    imports.push({ specifier: match[1] ?? '', typeOnly: false });
  }
  for (const match of code.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) {
    imports.push({ specifier: match[1] ?? '', typeOnly: false });
  }
  return { path, text, code, imports };
}

const files = floors.flatMap(sources).map(read);

/** Project-relative path of a relative import, or null where it is a package. */
function target(from: Source, specifier: string): string | null {
  return specifier.startsWith('.') ? posix.normalize(posix.join(dirname(from.path), specifier)) : null;
}

function packageOf(specifier: string): string {
  if (specifier.startsWith('node:')) return specifier;
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] ?? '');
}

const within = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

test('floors: each wing sees only what stands below it', () => {
  const rules = [
    { from: 'shared', to: ['shared'], why: 'the ground floor carries everything and knows nobody' },
    { from: 'agent', to: ['agent', 'shared'], why: 'agent and registry meet only on the wire' },
    { from: 'registry', to: ['registry', 'shared'], why: 'agent and registry meet only on the wire' },
    {
      from: 'firmware-sim',
      to: ['firmware-sim', 'agent', 'registry', 'shared'],
      why: 'the simulator runs the real code, and nothing real may need the simulator',
    },
    { from: 'test', to: floors, why: 'the roof sees everything' },
  ];
  const broken: string[] = [];
  for (const file of files) {
    const rule = rules.find((one) => within(file.path, one.from));
    assert.ok(rule, `${file.path} stands on no floor`);
    for (const { specifier } of file.imports) {
      const path = target(file, specifier);
      if (path !== null && !rule.to.some((floor) => within(path, floor))) {
        broken.push(`${file.path} imports ${path}: ${rule.why}`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test('drivers: each has one room that may import it', () => {
  const rules: { driver: string; from: string[]; why: string }[] = [
    { driver: 'mqtt', from: ['shared/host'], why: 'one client, with our reconnect and our errors' },
    { driver: 'better-sqlite3', from: ['shared/host'], why: 'transactions and durability are decided once' },
    { driver: 'pino', from: ['shared/host'], why: 'logs have one shape' },
    { driver: 'zstd-napi', from: ['shared/host/zstd.ts'], why: 'its traps are closed in one file' },
    { driver: '@peculiar/x509', from: ['shared/host'], why: 'certificates are made and read in one file' },
    { driver: 'tweetnacl', from: ['shared/crypto'], why: 'signatures are made and checked in one room' },
    { driver: 'blakejs', from: ['shared/crypto'], why: 'nonces of sealed boxes are made in one file' },
    {
      driver: 'onnxruntime-node',
      from: [
        'agent/inference',
        'shared/host/model-runtime.ts',
        'shared/host/model-runs-child.ts',
        'shared/host/model-trial-child.ts',
      ],
      why: 'it may kill its process: children only; the registry tries and asks models in some of its own',
    },
    { driver: 'aedes', from: ['registry/broker'], why: 'its permissive defaults are closed there' },
    { driver: 'aedes-persistence', from: ['registry/broker'], why: 'part of the broker' },
    {
      driver: 'mqtt-packet',
      from: ['registry/broker', 'shared/host'],
      why: 'part of the broker and of the client',
    },
    { driver: 'hono', from: ['registry/api'], why: 'the web framework ends at the API' },
    { driver: '@hono/node-server', from: ['registry/api'], why: 'the web framework ends at the API' },
    { driver: '@hono/zod-openapi', from: ['registry/api'], why: 'the web framework ends at the API' },
    { driver: 'kysely', from: ['registry/store'], why: 'queries are built where the tables are known' },
    { driver: 'csv-parse', from: ['registry/learn/reading'], why: 'tables of text are read in one room' },
    { driver: 'yaml', from: ['registry/policy'], why: 'files that people write are read in one room' },
    {
      driver: 'commander',
      from: ['agent/cli', 'registry/cli', 'firmware-sim/cli'],
      why: 'flags end at the entry points',
    },
    {
      driver: 'messageformat',
      from: ['shared/host/languages.ts'],
      why: 'translations are formatted in one file, which the daemon of the agent does not load',
    },
    { driver: 'cli-progress', from: ['shared/host'], why: 'progress bars know about terminals' },
    { driver: 'zod', from: ['shared', 'registry', 'agent'], why: 'validation at the edges' },
    { driver: 'tuf-js', from: [], why: 'differential tests only' },
    { driver: '@tufjs/models', from: [], why: 'differential tests only' },
    { driver: 'fast-check', from: [], why: 'tests only' },
  ];
  const broken: string[] = [];
  for (const file of files) {
    if (within(file.path, 'test')) continue;
    for (const { specifier } of file.imports) {
      if (specifier.startsWith('.') || specifier.startsWith('node:')) continue;
      const rule = rules.find((one) => one.driver === packageOf(specifier));
      if (!rule) broken.push(`${file.path} imports ${specifier}, which no rule names`);
      else if (!rule.from.some((room) => within(file.path, room))) {
        broken.push(`${file.path} imports ${specifier}: ${rule.why}`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

/** Rooms that decide: everything they know about the world arrives as an argument. */
const pureRooms = [
  'shared/kernel',
  'shared/crypto',
  'shared/trust',
  'shared/wire',
  'shared/onnx',
  'shared/stats',
  'agent/update',
  'registry/regions/order-decision.ts',
  'registry/regions/region-commands.ts',
  'registry/regions/region-controller.ts',
  'registry/regions/region-facts.ts',
  'registry/rollout/assigning.ts',
  'registry/rollout/controller.ts',
  'registry/rollout/draft.ts',
  'registry/rollout/going-back.ts',
  'registry/rollout/orders.ts',
  'registry/rollout/wave-words.ts',
  'registry/learn',
  'registry/policy/card-fields.ts',
  'registry/policy/licences.ts',
  'registry/policy/policy-check.ts',
  'registry/policy/region-decisions.ts',
  'registry/reports/residency.ts',
  'registry/reports/models.ts',
];

test('purity: a core imports no driver, timer, entropy or clock', () => {
  // The registry's fleet and rollout rooms reach the world through the same ports as the pure ones.
  const throughPorts = [
    ...pureRooms,
    'agent/trust',
    'agent/bus',
    'agent/telemetry',
    'registry/cells',
    'registry/fleet',
    'registry/delivery',
    'registry/regions',
    'registry/reports',
    'registry/rollout',
    'registry/telemetry',
  ];
  const allowed: Record<string, string[]> = {
    'shared/crypto': ['node:crypto'],
    'shared/trust': ['node:crypto'],
  };
  const broken: string[] = [];
  for (const file of files) {
    const room = throughPorts.find((one) => within(file.path, one));
    if (room === undefined) continue;
    for (const { specifier } of file.imports) {
      if (!specifier.startsWith('node:')) continue;
      const free = Object.entries(allowed).some(
        ([folder, names]) => within(file.path, folder) && names.includes(specifier),
      );
      if (!free) broken.push(`${file.path} imports ${specifier}`);
    }
    for (const { specifier, typeOnly } of file.imports) {
      const path = target(file, specifier);
      if (
        path !== null &&
        within(path, 'shared/host') &&
        !typeOnly &&
        pureRooms.some((one) => within(file.path, one))
      ) {
        broken.push(`${file.path} imports ${path}: a pure room gets ports, not their implementations`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test('time and chance: clocks, timers and randomness are read in shared/host and the entry points only', () => {
  const free = [
    'shared/host',
    'agent/cli',
    'registry/cli',
    'firmware-sim/cli',
    'firmware-sim/guard.ts', // it makes the real ones throw
    'firmware-sim/world.ts', // it lets real SQLite and microtasks finish between two steps
    'test',
  ];
  const forbidden =
    /\b(new Date\(\s*\)|Date\.now|Date\(\)|Math\.random|setTimeout|setInterval|setImmediate|performance\.now|process\.hrtime|randomBytes|randomUUID|getRandomValues)\b/;
  const broken: string[] = [];
  for (const file of files) {
    if (free.some((room) => within(file.path, room))) continue;
    const lines = file.code.split('\n');
    for (const [index, line] of lines.entries()) {
      const hit = forbidden.exec(line);
      if (hit) broken.push(`${file.path}:${index + 1} uses ${hit[0]}`);
    }
  }
  assert.deepEqual(broken, []);
});

test('files and sockets: node:fs, net, tls, http and child_process stay in their rooms', () => {
  const rules: { modules: string[]; from: string[] }[] = [
    {
      modules: ['node:fs', 'node:fs/promises'],
      from: [
        'shared/host',
        'agent/cli',
        'agent/inference', // the child reads a model file that the agent verified
        'registry/cli',
        'registry/catalog', // blobs are streamed to and from files
        'registry/signing', // key files
        'registry/registry.ts',
        'registry/store', // migration files
        'firmware-sim/cli',
        'firmware-sim/demo/place.ts', // a folder of its own for the demo
      ],
    },
    {
      modules: ['node:net', 'node:tls'],
      from: ['shared/host', 'registry/broker', 'registry/api', 'agent/inference', 'agent/api'],
    },
    {
      modules: ['node:http', 'node:https', 'node:http2'],
      from: [
        ...['agent/api', 'registry/api', 'agent/cli', 'shared/host/https-door.ts'],
        'shared/host/region-door.ts', // both ends of the line between regions
      ],
    },
    {
      modules: ['node:child_process'],
      // A child for each model; the demo's programs; children that run seeds.
      from: [
        ...['agent/inference', 'firmware-sim/demo/place.ts'],
        'shared/host/limited-process.ts', // models that are tried or asked, encoding, rebuilding: under limits
        'firmware-sim/explore/workers.ts',
        'shared/host/model-child.ts', // the type of one
      ],
    },
    { modules: ['node:timers', 'node:timers/promises'], from: ['shared/host'] },
  ];
  const broken: string[] = [];
  for (const file of files) {
    if (within(file.path, 'test')) continue;
    for (const { specifier } of file.imports) {
      const rule = rules.find((one) => one.modules.includes(specifier));
      if (rule && !rule.from.some((room) => within(file.path, room)))
        broken.push(`${file.path} imports ${specifier}`);
    }
  }
  assert.deepEqual(broken, []);
});

test('single doors: what must not spread has the importers that are named, and no others', () => {
  const rules: { file: string; from: string[]; why: string }[] = [
    {
      file: 'shared/host/model-trial-child.ts',
      from: [],
      why: 'it ends the process that loads it: it is started, never imported',
    },
    {
      file: 'shared/host/model-runs-child.ts',
      from: [],
      why: 'it ends the process that loads it: it is started, never imported',
    },
    {
      file: 'shared/host/model-runtime.ts',
      from: ['shared/host/model-runs-child.ts', 'shared/host/model-trial-child.ts'],
      why: 'it loads the runtime into the process that calls it',
    },
    {
      file: 'shared/host/delta-encode-child.ts',
      from: [],
      why: 'it ends the process that loads it: it is started, never imported',
    },
    {
      file: 'shared/host/rebuild-child.ts',
      from: [],
      why: 'it ends the process that loads it: it is started, never imported',
    },
    {
      file: 'firmware-sim/explore/seed-child.ts',
      from: [],
      why: 'it ends the process that loads it: it is started, never imported',
    },
    {
      file: 'shared/crypto/foreign.ts',
      from: ['agent/cli/tuf'],
      why: 'ECDSA, RSA and SHA-512 are for the conformance command alone: production is Ed25519 and SHA-256',
    },
    {
      file: 'agent/cli/tuf/open-policy.ts',
      from: ['agent/cli/tuf', 'agent/cli/tuf.ts'],
      why: 'no device judges its catalogue by the open policy',
    },
    {
      file: 'shared/host/languages.ts',
      from: ['shared/host/start-speaking.ts', 'registry/api/problems.ts'],
      why: 'it carries the catalogues: the daemon of the agent has no memory for them',
    },
    {
      file: 'shared/host/start-speaking.ts',
      from: ['agent/cli/main.ts', 'registry/cli/main.ts', 'firmware-sim/cli/main.ts'],
      why: 'a language is chosen at the entry points',
    },
    {
      file: 'agent/cli/tuf.ts',
      from: ['agent/cli/main.ts'],
      why: 'the daemon does not load what only the command needs',
    },
  ];
  const broken: string[] = [];
  for (const file of files) {
    if (within(file.path, 'test')) continue;
    for (const { specifier } of file.imports) {
      const path = target(file, specifier);
      const rule = rules.find((one) => one.file === path);
      if (rule && !rule.from.some((room) => within(file.path, room)))
        broken.push(`${file.path} imports ${path}: ${rule.why}`);
    }
  }
  assert.deepEqual(broken, []);
  for (const { file } of rules)
    assert.ok(
      files.some((one) => one.path === file),
      `${file} is gone; mend the rule`,
    );
});

test('no cycles between files', () => {
  const graph = new Map(
    files.map((file) => [
      file.path,
      file.imports
        .filter(({ typeOnly }) => !typeOnly)
        .flatMap(({ specifier }) => target(file, specifier) ?? []),
    ]),
  );
  const done = new Set<string>();
  const walk = (path: string, trail: string[]): string[] | null => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path];
    if (done.has(path)) return null;
    for (const next of graph.get(path) ?? []) {
      const cycle = walk(next, [...trail, path]);
      if (cycle) return cycle;
    }
    done.add(path);
    return null;
  };
  for (const path of graph.keys()) assert.equal(walk(path, [])?.join(' → '), undefined);
});

test('names: no file is called by a word that says nothing', () => {
  const nameless = /(^|[-.])(utils?|helpers?|common|misc|managers?|services?)\.ts$/i;
  assert.deepEqual(
    files.filter((file) => nameless.test(posix.basename(file.path))).map((file) => file.path),
    [],
  );
});

test('heads: every file says why it exists, what it trusts and what it must never do', () => {
  const broken = files
    .filter((file) => {
      const head = file.text.split('\n').slice(0, 12).join('\n');
      return !/\/\/ Why:/.test(head) || !/Trusts:/.test(head) || !/Must never:/.test(head);
    })
    .map((file) => file.path);
  assert.deepEqual(broken, []);
});

test('types: no way around the compiler', () => {
  const inCode = /(:|<|\bas)\s+any\b|\bas unknown as\b|catch\s*(\(\w*\))?\s*\{\s*\}/;
  const inComments = /@ts-ignore|@ts-nocheck|@ts-expect-error/;
  const self = 'test/architecture.test.ts';
  const broken = files
    .filter((file) => file.path !== self)
    .flatMap((file) => {
      const hit = inCode.exec(file.code) ?? inComments.exec(file.text);
      return hit ? [`${file.path}: ${hit[0]}`] : [];
    });
  assert.deepEqual(broken, []);
});

test('topics: the wire prefix is written in one file', () => {
  const broken = files
    .filter((file) => !within(file.path, 'test') && file.path !== 'shared/wire/topics.ts')
    .filter((file) => /['"`]lepton\/1|\/d\/\$\{/.test(file.code))
    .map((file) => file.path);
  assert.deepEqual(broken, []);
});
