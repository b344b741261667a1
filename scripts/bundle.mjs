// Bundles the programs that are installed into dist/programs: fewer and smaller modules to load, so that a command starts in
// two thirds of the time or less and an agent holds some MB less. Other tests and the simulator use the modules in dist/.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const out = join(dist, 'programs');

const entryPoints = {
  lepton: 'registry/cli/main.js',
  'lepton-agent': 'agent/cli/main.js',
  // Processes that they start: each is found beside the file that starts it, by its name.
  child: 'agent/inference/child.js',
  'rebuild-child': 'shared/host/rebuild-child.js',
  'delta-encode-child': 'shared/host/delta-encode-child.js',
  'model-trial-child': 'shared/host/model-trial-child.js',
  'model-runs-child': 'shared/host/model-runs-child.js',
};

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
        if (!(child in entryPoints)) return { errors: [{ text: `${child} is started and not bundled` }] };
        return { contents: text };
      }
      const place = `new URL(${JSON.stringify(relative(out, path))}, import.meta.url).href`;
      return { contents: text.replaceAll('import.meta.url', place) };
    });
  },
};

const { metafile } = await build({
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
  plugins: [ownPlace],
  ...{ logLevel: 'warning', metafile: true, absWorkingDir: root },
});

// What an earlier build left. Not before: a program that runs may still load a part of it.
const written = new Set(Object.keys(metafile.outputs).map((path) => join(root, path)));
for (const name of existsSync(out) ? readdirSync(out) : [])
  if (!written.has(join(out, name))) rmSync(join(out, name));
