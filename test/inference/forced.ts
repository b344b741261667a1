// Why: a release that passes every check of its own and dies of its clients' inputs, committed on a device: how long
// until the one before it answers again. The real update machine and the real host; only the authorities are played.
// Trusts: made.ts. Must never: help the device along.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { deferralMigrations } from '../../agent/update/deferral.ts';
import { updateMigrations } from '../../agent/update/journal.ts';
import { createUpdater, type Updater } from '../../agent/update/updater.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import type { LoadableRelease } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import type { AssignedRelease, Assignment, ReportedModel } from '../../shared/wire/messages.ts';
import { dies, whole } from './made.ts';
import { openStage } from './staging.ts';

export interface Forced {
  /** From the first answer that the bad release could not give to the first one of the good release. */
  outageMs: number;
  /** What was answered meanwhile, by code. */
  refused: Record<string, number>;
  model: ReportedModel;
}

const as = 'm';
const patienceMs = 30_000;

function assignmentOf(release: LoadableRelease, bytes: number, epoch: number): Assignment {
  const assigned: AssignedRelease = {
    as,
    releaseId: release.releaseId,
    manifestSha256: release.manifestSha256,
    manifestBytes: bytes,
    counter: epoch,
    requires: null,
    rolloutId: String(epoch),
    policy: { deadlinesMs: { fetching: 60_000, probing: 60_000, soaking: 60_000 }, soakMs: 0 },
  };
  return {
    schemaVersion: 1,
    deviceId: '0'.repeat(32),
    region: 'test',
    epoch,
    issuedAtMs: 0,
    expiresAtMs: 4_000_000_000_000,
    labels: {},
    releases: [assigned],
    telemetry: null,
    authoritiesSha256: null,
  };
}

async function until<T>(what: string, look: () => Promise<T | null> | T | null): Promise<T> {
  const endMs = systemClock.mono() + patienceMs;
  for (;;) {
    const seen = await look();
    if (seen !== null) return seen;
    assert.ok(systemClock.mono() < endMs, `never: ${what}`);
    await systemClock.timer(10).done;
  }
}

export async function forceBadRelease(): Promise<Forced> {
  const undo: (() => Promise<void>)[] = [];
  const updaters: Updater[] = [];
  const stage = openStage({ onTrouble: (fact) => updaters[0]?.troubled(fact) });
  undo.push(() => stage.close());
  try {
    const disk = openDisk(stage.folder);
    const store = await openStore(join(stage.folder, 'state.sqlite'), {
      synchronous: 'FULL',
      migrations: [...updateMigrations, ...deferralMigrations],
    });
    undo.push(() => store.close());
    /** What no journal names yet is collected from the disk: it is offered for download. */
    const offered = new Map<string, Buffer>();
    const updater = createUpdater({
      store,
      disk,
      clock: systemClock,
      entropy: systemEntropy,
      fetcher: {
        range: async (target, offset, length) => {
          const whole = target.kind === 'blob' ? offered.get(target.sha256) : undefined;
          if (whole === undefined) return refuse('fetch-not-found', 'not offered');
          return ok({ bytes: whole.subarray(offset, offset + length), totalBytes: whole.length });
        },
      },
      runtime: stage.host,
      log: { emit: () => undefined },
      trust: { agree: async () => ok() },
      onChange: () => undefined,
      arch: process.arch,
    });
    updaters.push(updater);
    undo.push(() => updater.stop());
    await updater.start();
    const releases: LoadableRelease[] = [];
    for (const [index, model] of [dies(12), dies()].entries()) {
      const release = stage.stage(as, model);
      releases.push(release);
      for (const sha256 of [release.manifestSha256, ...release.files.map((file) => file.sha256)])
        offered.set(sha256, readFileSync(join(stage.folder, 'blobs', sha256)));
      const bytes = offered.get(release.manifestSha256)?.length ?? 0;
      await updater.assign(assignmentOf(release, bytes, index + 1));
      await until(`${release.releaseId} is committed`, () => {
        const [model] = updater.models();
        return model?.state === 'committed' && model.active === release.releaseId ? model : null;
      });
    }
    const [good] = releases;
    assert.ok(good);
    const refused: Record<string, number> = {};
    let startMs: number | null = null;
    const outageMs = await until('the good release answers', async () => {
      const answer = await stage.host.infer(as, null, { inputs: whole(-1) });
      startMs ??= systemClock.mono();
      if (answer.ok) {
        assert.deepEqual([...(answer.value.outputs[0]?.data ?? [])], [-12]);
        assert.equal(answer.value.releaseId, good.releaseId);
        return systemClock.mono() - startMs;
      }
      const { code } = answer.refusal;
      refused[code] = (refused[code] ?? 0) + 1;
      return null;
    });
    const model = await until('the device rests', () => {
      const [now] = updater.models();
      return now?.state === 'idle' ? now : null;
    });
    assert.equal(model.active, good.releaseId);
    return { outageMs, refused, model };
  } finally {
    for (const end of undo.reverse()) await end();
  }
}
