// Why: `lepton-agent tuf` as the conformance suite drives it: init, refresh, download, and a look at what it kept.
// Trusts: the simulator for the repository. Must never: leave a folder, a server or a process behind.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type TufFlags, tuf } from '../../agent/cli/tuf.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { projectFolder } from '../support/data.ts';
import { type Answer, type KeyKind, type Served, serve, TufSimulator } from './tuf-simulator.ts';

const program = join(projectFolder, 'dist/agent/cli/main.js');

export class Client {
  readonly folder = mkdtempSync(join(tmpdir(), 'lepton-tuf-'));
  readonly metadata = join(this.folder, 'metadata');
  readonly targets = join(this.folder, 'targets');
  /** Of the last run that failed. */
  code = '';
  readonly served: Served;
  /** Real processes instead of the function that the command calls. */
  readonly asProcess: boolean;

  constructor(served: Served, asProcess: boolean) {
    this.served = served;
    this.asProcess = asProcess;
    mkdirSync(this.metadata);
    mkdirSync(this.targets);
  }

  async run(action: string, root: string | undefined, flags: TufFlags, nowMs?: number): Promise<number> {
    this.code = '';
    if (this.asProcess) return this.spawn(action, root, flags);
    const clock = nowMs === undefined ? systemClock : { ...systemClock, wall: () => nowMs };
    try {
      await tuf(action, root, flags, clock);
      return 0;
    } catch (error) {
      // A bug is no verdict.
      if (asFleetError(error).code === 'internal') throw error;
      this.code = asFleetError(error).code;
      return this.code === 'config-invalid' ? 2 : 1;
    }
  }

  async spawn(action: string, root: string | undefined, flags: TufFlags): Promise<number> {
    const options = Object.entries({
      '--metadata-dir': flags.metadataDir,
      '--metadata-url': flags.metadataUrl,
      '--target-name': flags.targetName,
      '--target-base-url': flags.targetBaseUrl,
      '--target-dir': flags.targetDir,
    }).flatMap(([name, value]) => [value ?? []].flat().flatMap((one) => [name, one]));
    return this.command(['tuf', ...options, action, ...(root === undefined ? [] : [root])]);
  }

  command(args: string[]): Promise<number> {
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    return new Promise((resolve) => {
      child.once('close', (exit) => {
        this.code = /^lepton: ([a-z-]+): [^\n]*\n$/.exec(stderr)?.[1] ?? (stderr === '' ? '' : `? ${stderr}`);
        resolve(exit ?? -1);
      });
    });
  }

  init(root: Uint8Array): Promise<number> {
    const path = join(this.folder, 'initial_root.json');
    writeFileSync(path, root);
    return this.run('init', path, { metadataDir: this.metadata });
  }

  refresh(nowMs?: number): Promise<number> {
    const flags = { metadataDir: this.metadata, metadataUrl: this.served.metadataUrl };
    return this.run('refresh', undefined, flags, nowMs);
  }

  download(name: string | string[], nowMs?: number): Promise<number> {
    const flags = {
      metadataDir: this.metadata,
      metadataUrl: this.served.metadataUrl,
      targetName: [name].flat(),
      targetBaseUrl: this.served.targetsUrl,
      targetDir: this.targets,
    };
    return this.run('download', undefined, flags, nowMs);
  }

  /** Trusted roles and their versions, as the suite reads them: every file that ends in .json. */
  trusted(): Record<string, number> {
    const names = readdirSync(this.metadata).filter((name) => name.endsWith('.json'));
    return Object.fromEntries(
      names.sort().map((name) => {
        const file = JSON.parse(this.bytes(name).toString()) as { signed: { version: number } };
        return [name.replace(/\.json$/, ''), file.signed.version];
      }),
    );
  }

  version(role: string): number | undefined {
    return this.trusted()[role];
  }

  bytes(name: string): Buffer {
    return readFileSync(join(this.metadata, name));
  }

  /** What was downloaded, in order of modification. */
  downloads(): string[] {
    const paths = readdirSync(this.targets).map((name) => join(this.targets, name));
    return paths
      .sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs)
      .map((path) => readFileSync(path).toString());
  }
}

export interface Scene {
  repository: TufSimulator;
  client: Client;
}

export interface SceneOptions {
  kind?: KeyKind;
  asProcess?: boolean;
  answer?: Answer;
  /** Do not run `init` with the repository's first root. */
  bare?: boolean;
}

/** A fresh repository and a client that trusts its root. */
export async function scene(t: TestContext, options: SceneOptions = {}): Promise<Scene> {
  const repository = new TufSimulator(options.kind);
  const served = await serve(repository, options.answer);
  const client = new Client(served, options.asProcess === true);
  t.after(async () => {
    await served.close();
    rmSync(client.folder, { recursive: true, force: true });
  });
  if (options.bare !== true && (await client.init(repository.latest('root'))) !== 0)
    throw new Error(`init: ${client.code}`);
  return { repository, client };
}
