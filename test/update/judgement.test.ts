// Why: the verdicts of the update machine at their edges. Trusts: nothing.
// Must never: accept missing evidence as good evidence.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { judgeHealth, judgeProbe, judgeRequires } from '../../agent/update/judgement.ts';
import { ok } from '../../shared/kernel/result.ts';

const evidence = {
  goldenCases: 3,
  goldenPassed: 3,
  firstFailure: null,
  latencyP50Ms: 1,
  latencyP95Ms: 2,
  memoryBytesPeak: 1e6,
};

describe('verdicts', () => {
  test('a limit without a measurement is exceeded', () => {
    assert.equal(
      judgeProbe({ ...evidence, latencyP95Ms: Number.NaN }, { latencyP95Ms: 5 })?.code,
      'probe-latency-exceeded',
    );
    assert.equal(
      judgeProbe({ ...evidence, latencyP95Ms: 6 }, { latencyP95Ms: 5 })?.code,
      'probe-latency-exceeded',
    );
    assert.equal(
      judgeProbe({ ...evidence, memoryBytesPeak: 3e6 }, { memoryMiB: 2 })?.code,
      'probe-memory-exceeded',
    );
    assert.equal(
      judgeProbe({ ...evidence, goldenPassed: 2, firstFailure: 'case 0' }, {})?.code,
      'probe-golden-failed',
    );
    assert.equal(judgeProbe(evidence, { latencyP95Ms: 2, memoryMiB: 1 }), null);
  });

  test('requirements: architecture, opset, memory, agent', () => {
    const device = { arch: 'arm64', opsetMax: 21, memoryMiB: 512, agentVersion: '1.2.3' };
    const code = (requires: Parameters<typeof judgeRequires>[0]) =>
      judgeRequires(requires, device)?.code ?? 'fits';
    assert.equal(code({}), 'fits');
    assert.equal(code({ arch: ['x64', 'arm64'], opset: 21, memoryMiB: 512, agent: '>=1.2.3' }), 'fits');
    assert.equal(code({ arch: ['x64'] }), 'release-incompatible');
    assert.equal(code({ opset: 22 }), 'release-incompatible');
    assert.equal(code({ memoryMiB: 513 }), 'release-incompatible');
    assert.equal(code({ agent: '1.3.0' }), 'release-incompatible');
    assert.equal(code({ agent: '0.9.9' }), 'fits');
    assert.equal(code({ agent: 'the newest' }), 'release-incompatible');
  });

  test('in service more than half of enough requests must fail', () => {
    const of = (requests: number, errors: number) =>
      judgeHealth(ok({ requests, errors, latencyP95Ms: 1 }))?.code ?? 'holds';
    assert.equal(of(19, 19), 'holds');
    assert.equal(of(20, 10), 'holds');
    assert.equal(of(20, 11), 'soak-errors');
  });
});
