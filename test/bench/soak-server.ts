// Why: the device's HTTP and inference host in a process of its own, told by another one which release to serve, so
// that memory and latency are not the clients'. Trusts: its parent. Must never: outlive it.

import { setFlagsFromString } from 'node:v8';
import { openStage, startHttp } from '../inference/staging.ts';

export type Command = { id: number } & (
  | { do: 'load'; as: string; modelPath: string; manifest: object }
  | { do: 'activate'; as: string; release: number }
  | { do: 'unload'; as: string; release: number }
  | { do: 'facts' }
);
export interface Facts {
  requests: { answered: number; failed: number };
  childPids: number[];
}
export type Told = { url: string } | { id: number; release?: number; releaseId?: string; facts?: Facts };

// As the agent's own command sets them (agent/cli/main.ts).
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--optimize-for-size');
setFlagsFromString('--interrupt-budget=1000000');

const stage = openStage();
const http = await startHttp(stage);
const releases: ReturnType<typeof stage.stage>[] = [];
const known = new Map<string, number>();

async function obey(command: Command): Promise<Told> {
  const { id } = command;
  if (command.do === 'facts') {
    const childPids = stage.host.models().flatMap(({ pid }) => pid ?? []);
    return { id, facts: { requests: stage.host.requests(), childPids } };
  }
  if (command.do === 'load') {
    const key = `${command.as} ${command.modelPath}`;
    let release = known.get(key);
    if (release === undefined) {
      release = releases.push(stage.stage(command.as, command.modelPath, command.manifest)) - 1;
      known.set(key, release);
    }
    const staged = releases[release];
    if (staged === undefined) throw new Error(`no release ${release}`);
    const loaded = await stage.host.load(staged);
    if (!loaded.ok) throw new Error(loaded.refusal.detail);
    return { id, release, releaseId: staged.releaseId };
  }
  const staged = releases[command.release];
  if (staged === undefined) throw new Error(`no release ${command.release}`);
  if (command.do === 'unload') await stage.host.unload(command.as, staged.manifestSha256);
  else {
    const activated = await stage.host.activate(command.as, staged.manifestSha256);
    if (!activated.ok) throw new Error(activated.refusal.detail);
  }
  return { id };
}

process.on('message', (command) => {
  void obey(command as Command).then((told) => process.send?.(told));
});
process.once('disconnect', () => {
  void http
    .close()
    .then(() => stage.close())
    .then(() => process.exit(0));
});
process.send?.({ url: http.url } satisfies Told);
