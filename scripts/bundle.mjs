// Bundles the programs that are installed into dist/programs: fewer and smaller modules to load, so that a command starts in
// two thirds of the time or less and an agent holds some MB less. Other tests and the simulator use the modules in dist/.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const out = join(dist, 'programs');

/** Each of them by itself: a package is then as large in one as that one uses of it. */
const programs = [
  {
    lepton: 'registry/cli/main.js',
    // Processes that they start: each is found beside the file that starts it, by its name.
    'delta-encode-child': 'shared/host/delta-encode-child.js',
    'model-trial-child': 'shared/host/model-trial-child.js',
    'model-runs-child': 'shared/host/model-runs-child.js',
  },
  {
    'lepton-agent': 'agent/cli/main.js',
    child: 'agent/inference/child.js',
    'rebuild-child': 'shared/host/rebuild-child.js',
  },
];
const names = programs.flatMap(Object.keys);

const startsChild = /\.\/([\w-]+)\$\{extname\(import\.meta\.url\)\}/;

/** Where a module reads a file beside itself it goes on to find it; a child that it starts is one of the bundled ones. */
const ownPlace = {
  name: 'own place',
  setup(bundle) {
    bundle.onLoad({ filter: /\.js$/ }, ({ path }) => {
      if (!path.startsWith(dist)) return undefined;
      // As a namespace what is not used of it is left out: six of seven parts.
      const text = readFileSync(path, 'utf8').replace(
        "import { z } from 'zod';",
        "import * as z from 'zod';",
      );
      const [, child] = startsChild.exec(text) ?? [];
      if (child !== undefined) {
        if (!names.includes(child)) return { errors: [{ text: `${child} is started and not bundled` }] };
        return { contents: text };
      }
      const place = `new URL(${JSON.stringify(relative(out, path))}, import.meta.url).href`;
      return { contents: text.replaceAll('import.meta.url', place) };
    });
  },
};

/** Node's own streams in the place of a copy of them: what its switch READABLE_STREAM=disable does. */
const nodeStreams = {
  name: 'node streams',
  setup(bundle) {
    bundle.onLoad({ filter: /[\\/]readable-stream[\\/]lib[\\/]ours[\\/]index\.js$/ }, () => ({
      contents: "module.exports = require('node:stream');",
    }));
  },
};

/** What the MQTT client has for connections that none of ours are: over WebSockets, through proxies, in browsers. */
const unused = {
  name: 'unused',
  setup(bundle) {
    bundle.onResolve({ filter: /^(ws|socks|worker-timers)$/ }, ({ path, importer }) =>
      /[\\/]node_modules[\\/]mqtt[\\/]/.test(importer) ? { path, namespace: 'unused' } : undefined,
    );
    bundle.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: 'module.exports = {};' }));
  },
};

const bundles = programs.map((entryPoints) => ({
  entryPoints: Object.fromEntries(
    Object.entries(entryPoints).map(([name, path]) => [name, join(dist, path)]),
  ),
  ...{ outdir: out, bundle: true, splitting: true, format: 'esm', platform: 'node', target: 'node20' },
  // Native code, and what finds its own files by where it lies.
  external: ['better-sqlite3', 'onnxruntime-node', 'zstd-napi'],
  // Names stay as they are: errors and logs say them.
  ...{ minifyWhitespace: true, minifySyntax: true, legalComments: 'external' },
  // Of packages in CommonJS that ask for Node's own modules.
  banner: {
    js: "import{createRequire as requireFrom}from'node:module';const require=requireFrom(import.meta.url);",
  },
  plugins: [ownPlace, nodeStreams, unused],
  ...{ logLevel: 'warning', metafile: true, absWorkingDir: root },
}));
const outputs = (await Promise.all(bundles.map((options) => build(options)))).flatMap(({ metafile }) =>
  Object.keys(metafile.outputs),
);

// One letter beyond Latin 1, in a regular expression or a template, would take two bytes for each of its whole file.
const escaped = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`;
for (const path of outputs.filter((name) => name.endsWith('.js'))) {
  const text = readFileSync(join(root, path), 'utf8');
  const plain = text.replace(/[^\0-\xff]/g, escaped);
  if (plain !== text) writeFileSync(join(root, path), plain);
}

// What an earlier build left. Not before: a program that runs may still load a part of it.
const written = new Set(outputs.map((path) => join(root, path)));
for (const name of existsSync(out) ? readdirSync(out) : [])
  if (!written.has(join(out, name))) rmSync(join(out, name));
