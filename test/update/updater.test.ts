// Why: the shell around the machine: what it does when ports fail, hang, lie or answer late.
// Trusts: the rig's virtual time. Must never: depend on how long this computer takes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { type ReportedModel, reportedModelSchema } from '../../shared/wire/messages.ts';
import { createRig } from './rig.ts';

const never = new Promise<never>(() => undefined);
const only = (models: ReportedModel[]): ReportedModel => {
  assert.equal(models.length, 1);
  const model = models[0];
  assert.ok(model);
  return model;
};

test('a release is fetched, proven, served and reported; each report follows the schema', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  const { manifestSha256, releaseId } = rig.catalogue.release('alpha/good/0');
  assert.equal(rig.runtime.serving.get('alpha'), manifestSha256);
  const model = only(rig.updater.models());
  assert.deepEqual(
    { ...model, probe: null },
    {
      name: 'alpha',
      state: 'committed',
      active: releaseId,
      activeSha256: manifestSha256,
      candidate: null,
      lastGood: releaseId,
      target: releaseId,
      rolloutId: '1',
      reason: null,
      progress: null,
      probe: null,
    },
  );
  assert.equal(model.probe?.goldenPassed, 4);
  for (const models of rig.changes) for (const one of models) reportedModelSchema.parse(one);
  const states = [...new Set(rig.changes.map((models) => models[0]?.state))];
  assert.deepEqual(states, [
    'offered',
    'fetching',
    'verifying',
    'staging',
    'probing',
    'switching',
    'soaking',
    'committed',
  ]);
  assert.ok(rig.changes.length < 60, `${rig.changes.length} reports`);
  assert.ok(rig.changes.some((models) => (models[0]?.progress?.doneBytes ?? 0) > 0));
});

test('files that are here already are not asked for again', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  rig.asked.clear();
  await rig.settle(rig.updater.assign(rig.assignment(2, { alpha: 'alpha/good/1' })));
  const before = new Set(rig.catalogue.release('alpha/good/0').digests);
  assert.ok(rig.asked.size > 0);
  for (const digest of rig.asked.keys()) assert.ok(!before.has(digest));
});

for (const [kind, code] of [
  ['bad-golden', 'probe-golden-failed'],
  ['slow', 'probe-latency-exceeded'],
  ['hungry', 'probe-memory-exceeded'],
  ['other-arch', 'release-incompatible'],
  ['wrong-bytes', 'blob-digest-mismatch'],
  ['wrong-size', 'blob-size-mismatch'],
  ['unsigned', 'target-unknown'],
  ['no-load', 'model-invalid'],
  ['fails-in-service', 'soak-errors'],
] as const) {
  test(`${kind}: refused with ${code}, the old release serves, files and child are gone`, async () => {
    const rig = await createRig();
    await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
    const files = rig.disk.paths();
    await rig.settle(rig.updater.assign(rig.assignment(2, { alpha: `alpha/${kind}/0` })));
    const model = only(rig.updater.models());
    const good = rig.catalogue.release('alpha/good/0');
    assert.deepEqual([model.state, model.reason?.code, model.active], ['idle', code, good.releaseId]);
    assert.equal(rig.runtime.serving.get('alpha'), good.manifestSha256);
    assert.deepEqual(rig.disk.paths(), files);
    assert.equal(rig.runtime.children.size, 1);
    const refused = rig.events.filter(({ event }) => event === 'update.refused');
    assert.deepEqual(
      refused.map(({ fields }) => fields['code']),
      [code],
    );
  });
}

test('a release for other hardware is refused before its files are asked for', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/other-arch/0' })));
  assert.deepEqual([...rig.asked.keys()], [rig.catalogue.release('alpha/other-arch/0').manifestSha256]);
});

test('offline: it waits, says why, and gives up at the deadline with the last problem named', async () => {
  const rig = await createRig({ fetcher: () => ({ range: async () => refuse('bus-offline', 'no line') }) });
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' }, { fetchingMs: 600_000 })));
  const waiting = rig.changes.some(
    (models) => models[0]?.state === 'fetching' && models[0].reason?.code === 'bus-offline',
  );
  assert.ok(waiting);
  const model = only(rig.updater.models());
  assert.deepEqual([model.state, model.reason?.code], ['idle', 'deadline-missed']);
  assert.match(model.reason?.detail ?? '', /bus-offline/);
  assert.ok(rig.world.nowMs() >= 600_000 && rig.world.nowMs() < 660_000);
});

test('when the network is back a waiting fetch goes on at once', async () => {
  let line = false;
  const rig = await createRig({
    fetcher: (inner) => ({
      range: async (...args) => (line ? inner.range(...args) : refuse('bus-offline', 'no line')),
    }),
  });
  rig.world.later(120_000, () => {
    line = true;
    rig.updater.retryNow();
  });
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  assert.equal(only(rig.updater.models()).state, 'committed');
  assert.ok(rig.world.nowMs() < 125_000, `${rig.world.nowMs()} ms`);
});

for (const call of ['load', 'probe', 'activate', 'healthy'] as const) {
  test(`a runtime whose ${call} never answers costs a deadline, not the old release`, async () => {
    let hang = false;
    const rig = await createRig({
      runtime: (inner) => ({
        ...inner,
        [call]: (...args: never[]) => (hang ? never : (inner[call] as (...of: never[]) => unknown)(...args)),
      }),
    });
    await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
    hang = true;
    await rig.settle(rig.updater.assign(rig.assignment(2, { alpha: 'alpha/good/1' })));
    assert.equal(only(rig.updater.models()).reason?.code, 'deadline-missed');
    // A hanging activate may hold the loop that would switch back, but nothing was taken from it.
    if (call !== 'healthy') {
      assert.equal(rig.runtime.serving.get('alpha'), rig.catalogue.release('alpha/good/0').manifestSha256);
    }
  });
}

test('a file that rotted while the device was off is fetched again before it is loaded', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  const { digests, manifestSha256 } = rig.catalogue.release('alpha/good/0');
  const bytes = rig.disk.peek(`blobs/${digests[4]}`);
  assert.ok(bytes && bytes.length > 0);
  bytes[0] = (bytes[0] ?? 0) ^ 1;
  rig.asked.clear();
  await rig.reboot();
  assert.equal(rig.world.violation(), null);
  assert.deepEqual([...rig.asked.keys()], [digests[4]]);
  assert.equal(rig.runtime.serving.get('alpha'), manifestSha256);
});

test('the manifest of what serves rots: it is mended without a start, and what nobody needs is swept then', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  const good = rig.catalogue.release('alpha/good/0');
  const bytes = rig.disk.peek(`blobs/${good.manifestSha256}`);
  assert.ok(bytes);
  bytes[0] = (bytes[0] ?? 0) ^ 1;
  rig.asked.clear();
  // A refused update is followed by a sweep, which cannot tell what the rotten manifest needs.
  await rig.settle(rig.updater.assign(rig.assignment(2, { alpha: 'alpha/bad-golden/0' })));
  assert.ok(rig.asked.has(good.manifestSha256), 'it is fetched again');
  assert.equal(
    sha256Hex(rig.disk.peek(`blobs/${good.manifestSha256}`) ?? new Uint8Array(0)),
    good.manifestSha256,
  );
  const held = rig.disk.paths().map((path) => path.replace('blobs/', ''));
  assert.deepEqual(held, [...good.digests].sort(), 'the refused release is gone, what serves is whole');
});

test('a sweep that the disk does not bear is tried again', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  // More often than a start sweeps by itself.
  let failing = 6;
  await rig.reboot({
    parts: {
      disk: {
        ...rig.disk.port(rig.world.boot('other')),
        list: async () => {
          if (failing-- > 0) throw new FleetError('disk-io', 'for a while');
          return rig.disk.paths().map((path) => path.replace('blobs/', ''));
        },
      },
    },
  });
  assert.ok(failing < 0, 'it was tried again');
});

test('started without a network it serves, and start does not wait for the network', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0', beta: 'beta/good/0' })));
  const lost = rig.catalogue.release('beta/good/0').digests[4];
  const bytes = rig.disk.peek(`blobs/${lost}`);
  assert.ok(bytes);
  bytes[0] = (bytes[0] ?? 0) ^ 1;
  await rig.reboot({ fetcher: () => ({ range: () => never }) });
  assert.equal(rig.runtime.serving.get('alpha'), rig.catalogue.release('alpha/good/0').manifestSha256);
  assert.equal(rig.runtime.serving.get('beta'), undefined);
});

test('a removed model is taken down, its files go, and the journal forgets it', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  await rig.settle(rig.updater.assign(rig.assignment(2, {})));
  assert.deepEqual(rig.updater.models(), []);
  assert.deepEqual(await rig.machines(), []);
  assert.deepEqual(rig.disk.paths(), []);
  assert.equal(rig.runtime.children.size, 0);
});

test('a model that another region gave stays where it is named, and goes where it is not', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0', beta: 'beta/good/0' })));
  await rig.settle(rig.updater.assign({ ...rig.assignment(2, {}), keep: ['alpha'] }));
  assert.deepEqual(
    rig.updater.models().map(({ name, state }) => [name, state]),
    [['alpha', 'committed']],
  );
  assert.equal(rig.runtime.serving.get('alpha'), rig.catalogue.release('alpha/good/0').manifestSha256);
  await rig.settle(rig.updater.assign(rig.assignment(3, {})));
  assert.deepEqual(rig.updater.models(), []);
});

const twice = async (more: Parameters<typeof createRig>[0] = {}) => {
  const rig = await createRig(more);
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  await rig.settle(rig.updater.assign(rig.assignment(2, { alpha: 'alpha/good/1' })));
  const [first, second] = [rig.catalogue.release('alpha/good/0'), rig.catalogue.release('alpha/good/1')];
  const crashLoop = () =>
    rig.updater.troubled({
      as: 'alpha',
      manifestSha256: second.manifestSha256,
      refusal: { code: 'model-crash-loop', detail: 'exit 134' },
    });
  return { rig, first, second, crashLoop };
};

test('a release that keeps dying gives way to the one before it, also after a reboot, and is not tried again', async () => {
  const { rig, first, second, crashLoop } = await twice();
  assert.equal(rig.runtime.serving.get('alpha'), second.manifestSha256);
  rig.updater.troubled({
    as: 'alpha',
    manifestSha256: second.manifestSha256,
    refusal: { code: 'infer-not-ready', detail: 'died once more' },
  });
  await rig.settle();
  assert.equal(rig.runtime.serving.get('alpha'), second.manifestSha256, 'not for a death or two');
  crashLoop();
  await rig.settle();
  const check = () => {
    const model = only(rig.updater.models());
    assert.equal(rig.runtime.serving.get('alpha'), first.manifestSha256);
    assert.deepEqual(
      [model.state, model.active, model.lastGood, model.target, model.reason?.code],
      ['idle', first.releaseId, first.releaseId, second.releaseId, 'model-crash-loop'],
    );
  };
  check();
  await rig.settle(rig.updater.assign(rig.assignment(3, { alpha: 'alpha/good/1' }, { rolloutId: '2' })));
  check();
  await rig.reboot();
  check();
  const refused = rig.events.filter(({ event }) => event === 'update.crash-loop');
  assert.deepEqual(
    refused.map(({ fields }) => fields['fallback']),
    [first.releaseId],
  );
});

test('a release that its publisher took back is not what a crash loop goes back to', async () => {
  let barred = '';
  const { rig, first, second, crashLoop } = await twice({
    parts: {
      trust: {
        agree: async ({ releaseId }) =>
          releaseId === barred ? refuse('release-withdrawn', 'taken back') : ok(),
      },
    },
  });
  barred = first.releaseId;
  crashLoop();
  await rig.settle();
  assert.equal(rig.runtime.serving.get('alpha'), second.manifestSha256);
  assert.equal(only(rig.updater.models()).state, 'committed');
  const [event] = rig.events.filter((one) => one.event === 'update.crash-loop');
  assert.deepEqual([event?.fields['fallback'], event?.fields['barredBy']], [null, 'release-withdrawn']);
});

test('after a reboot a release that dies while it loads gives way too', async () => {
  let dying = '';
  const rig = await createRig();
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  await rig.settle(rig.updater.assign(rig.assignment(2, { alpha: 'alpha/good/1' })));
  dying = rig.catalogue.release('alpha/good/1').manifestSha256;
  let loads = 0;
  await rig.reboot({
    runtime: (inner) => ({
      ...inner,
      load: async (release) => {
        if (release.manifestSha256 !== dying) return inner.load(release);
        loads += 1;
        return refuse(loads < 3 ? 'model-crashed' : 'model-crash-loop', 'SIGSEGV');
      },
    }),
  });
  await rig.settle();
  assert.equal(loads, 3);
  assert.equal(rig.runtime.serving.get('alpha'), rig.catalogue.release('alpha/good/0').manifestSha256);
});

test('a failed release is not tried again for the same rollout, and is for another', async () => {
  let probes = 0;
  const rig = await createRig({
    runtime: (inner) => ({
      ...inner,
      probe: (release) => {
        probes += 1;
        return inner.probe(release);
      },
    }),
  });
  const assign = (epoch: number, rolloutId: string) =>
    rig.settle(rig.updater.assign(rig.assignment(epoch, { alpha: 'alpha/bad-golden/0' }, { rolloutId })));
  await assign(1, 'r');
  await assign(2, 'r');
  assert.equal(probes, 1);
  await assign(3, 'r-retry');
  assert.equal(probes, 2);
});

test('a full store delays an event and loses none', async () => {
  let full = 0;
  const rig = await createRig({
    store: (inner) => ({
      ...inner,
      tx: (work) => {
        full += 1;
        if (full % 2 === 0) return Promise.reject(new FleetError('disk-full', 'no space'));
        return inner.tx(work);
      },
    }),
  });
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  assert.equal(only(rig.updater.models()).state, 'committed');
  assert.ok(
    rig.events.some(({ event, fields }) => event === 'update.waiting' && fields['code'] === 'disk-full'),
  );
});

test('nonsense as evidence is a failed probe, and the journal stays readable', async () => {
  const rig = await createRig({
    runtime: (inner) => ({
      ...inner,
      probe: async () =>
        ok({
          goldenCases: 0,
          goldenPassed: 0,
          firstFailure: null,
          latencyP50Ms: Number.NaN,
          latencyP95Ms: Number.NaN,
          memoryBytesPeak: 1,
        }),
    }),
  });
  await rig.settle(rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' })));
  assert.equal(only(rig.updater.models()).reason?.code, 'internal');
  assert.equal((await rig.machines())[0]?.phase, 'idle');
});

test('stopped: nothing begins any more, and an assignment under way says so', async () => {
  const rig = await createRig();
  const assigning = rig.updater.assign(rig.assignment(1, { alpha: 'alpha/good/0' }));
  const stopping = rig.updater.stop();
  await assert.rejects(rig.settle(assigning), { code: 'interrupted' });
  await rig.settle(stopping);
  const { length } = rig.world.trace();
  await rig.world.run();
  assert.equal(rig.world.trace().length, length);
  assert.equal(rig.asked.size, 0);
});
