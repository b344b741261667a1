// Why: no byte of a signed file may be changed, no file may be replaced by an older one, in any order.
// Trusts: fast-check's seeds, which it prints. Must never: depend on which check catches what.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { refuse } from '../../shared/kernel/result.ts';
import { findRelease, type TrustState, verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import { parseRootFile, parseSnapshotFile, parseTimestampFile } from '../../shared/trust/tuf/repository.ts';
import { codeOf, Device, fetchFrom, Repository, signerNamed } from './catalogue-fixture.ts';

const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };
const mutableFiles = ['timestamp.json', '1.snapshot.json', '1.targets.json', '1.acme.json'];

describe('bytes', () => {
  it('of which any one was changed, added or left out are refused', async () => {
    const repository = new Repository();
    const edit = fc.record({
      name: fc.constantFrom(...mutableFiles),
      at: fc.nat(),
      kind: fc.constantFrom('flip', 'drop', 'insert', 'cut'),
      mask: fc.integer({ min: 1, max: 255 }),
    });
    await fc.assert(
      fc.asyncProperty(edit, async ({ name, at, kind, mask }) => {
        const bytes = Buffer.from(repository.files.get(name) ?? []);
        const where = at % bytes.length;
        if (kind === 'flip') bytes[where] = (bytes[where] ?? 0) ^ mask;
        const before = bytes.subarray(0, where);
        const changed = {
          flip: bytes,
          drop: Buffer.concat([before, bytes.subarray(where + 1)]),
          insert: Buffer.concat([before, Buffer.from([mask]), bytes.subarray(where)]),
          cut: before,
        }[kind];
        const files = new Map([...repository.files, [name, new Uint8Array(changed)]]);
        const device = new Device(repository.firstRoot);
        const refreshed = await device.refresh(files, { namespaces: ['acme'] });
        // White space in a timestamp is not covered by its signature and changes nothing; all else is.
        const isSpace =
          name === 'timestamp.json' && kind === 'insert' && [0x20, 0x0a, 0x0d, 0x09].includes(mask);
        if (isSpace && refreshed.ok) return;
        assert.ok(!refreshed.ok || !findRelease(device.state, detector).ok, `${kind} at ${where} of ${name}`);
      }),
      { numRuns: 300 },
    );
  });
});

interface Numbers {
  root: number;
  timestamp: number;
  snapshot: number;
  files: Map<string, number>;
}

function numbersOf(state: TrustState): Numbers {
  const root = parseRootFile(state.root);
  const timestamp = state.timestamp === null ? null : parseTimestampFile(state.timestamp);
  const snapshot = state.snapshot === null ? null : parseSnapshotFile(state.snapshot);
  assert.ok(root.ok && timestamp?.ok !== false && snapshot?.ok !== false);
  return {
    root: root.value.version,
    timestamp: timestamp?.value.version ?? 0,
    snapshot: snapshot?.value.version ?? 0,
    files: new Map([...(snapshot?.value.files ?? [])].map(([name, file]) => [name, file.version])),
  };
}

const change = fc.constantFrom(
  'release',
  'other-release',
  'targets',
  'timestamp',
  'root',
  'root-key',
  'publisher-key',
);

/** One honest step of the repository's life. */
function apply(repository: Repository, kind: string, step: number): void {
  switch (kind) {
    case 'release':
      repository.release(`acme/detector/1.${step}.1`, step + 2);
      break;
    case 'other-release':
      repository.release(`beta/voice/1.${step}.1`, step + 2);
      break;
    case 'timestamp':
      repository.publishTimestamp();
      break;
    case 'root':
      repository.publishRoot();
      break;
    case 'root-key': {
      const before = repository.rootSigners;
      repository.rootSigners = [...before.slice(1), signerNamed(`root-${step}-new`)];
      repository.publishRoot(before);
      break;
    }
    case 'publisher-key':
      repository.publishers.set('beta', signerNamed(`beta-${step}`));
      repository.publishTargets();
      repository.publishNamespace('beta');
      repository.publishSnapshot();
      break;
    default:
      repository.publishTargets();
      repository.publishSnapshot();
  }
}

describe('histories', () => {
  it('never move a device back, whatever old file is served for whichever name', async () => {
    const step = fc.record({
      change,
      // For each file asked: the present one, an older one of its role, nothing, or a cut line.
      answers: fc.infiniteStream(
        fc.oneof(
          { weight: 5, arbitrary: fc.constant('true') },
          { weight: 1, arbitrary: fc.constantFrom('old', 'none', 'cut') },
        ),
      ),
      pick: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        const repository = new Repository();
        const device = new Device(repository.firstRoot);
        const past: [string, Uint8Array][] = [...repository.files];
        for (const [index, { change: kind, answers, pick }] of steps.entries()) {
          apply(repository, kind, index);
          past.push(...repository.files);
          const before = numbersOf(device.state);
          const serve = fetchFrom(repository.files);
          await device.refresh(async (name, max) => {
            const answer = answers.next().value;
            if (answer === 'cut') return refuse('fetch-timeout', 'cut');
            if (answer === 'none') return refuse('metadata-missing', name);
            const suffix = name.replace(/^\d+\./, '');
            const older = past.filter(([other]) => other.endsWith(suffix)).map(([, bytes]) => bytes);
            const old = older[pick % Math.max(older.length, 1)];
            return answer === 'old' && old !== undefined ? { ok: true, value: old } : serve(name, max);
          });
          const after = numbersOf(device.state);
          assert.ok(after.root >= before.root);
          assert.ok(after.timestamp >= before.timestamp);
          assert.ok(after.snapshot >= before.snapshot);
          for (const [name, version] of before.files)
            assert.ok((after.files.get(name) ?? 0) >= version, name);
          if (device.state.timestamp !== null)
            assert.equal(codeOf(verifyStoredCatalogue(device.state)), 'ok');
        }
        assert.equal(codeOf(await device.refresh(repository.files)), 'ok', 'an honest line always mends it');
        assert.deepEqual(numbersOf(device.state).timestamp, repository.versions.get('timestamp'));
      }),
      { numRuns: 60 },
    );
  });
});
