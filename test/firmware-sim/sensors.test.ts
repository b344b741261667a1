// Why: the simulated machine is the demo's truth: one seed is one life, and wear shows in its sensors; the
// application beside the agent counts what really happened. Trusts: nothing. Must never: reach a network
// beyond 127.0.0.1.

import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { type Application, startApplication } from '../../firmware-sim/sensors/application.ts';
import { channels, createMachine, regimeOf, windowSamples } from '../../firmware-sim/sensors/machine.ts';
import { createNoise } from '../../firmware-sim/sensors/noise.ts';
import { windowFeatures } from '../../firmware-sim/sensors/window-features.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { until } from '../support/processes.ts';

test('noise: one seed is one stream, with the moments of its distribution', () => {
  const draws = (seed: number): number[] => {
    const noise = createNoise(seed);
    return Array.from({ length: 20_000 }, () => noise.normal());
  };
  assert.deepEqual(draws(1).slice(0, 50), draws(1).slice(0, 50));
  assert.notDeepEqual(draws(1).slice(0, 50), draws(2).slice(0, 50));
  for (const seed of [1, 2, 3]) {
    const values = draws(seed);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.05, `${mean} ${variance}`);
    const uniform = createNoise(seed);
    const quarter = Array.from({ length: 20_000 }, () => uniform.uniform()).filter((value) => value < 0.25);
    assert.ok(Math.abs(quarter.length - 5_000) < 250, `${quarter.length}`);
  }
});

test('one seed is one life; another seed another', () => {
  const life = (seed: number) => {
    const machine = createMachine({ seed, wear: 0.2, wearPerWindow: 0.01 });
    return Array.from({ length: 30 }, () => machine.window());
  };
  assert.deepEqual(life(7), life(7));
  assert.notDeepEqual(life(7)[3]?.samples, life(8)[3]?.samples);
});

test('wear goes through the regimes, and a broken machine is repaired', () => {
  const machine = createMachine({ seed: 3, wearPerWindow: 0.05 });
  const windows = Array.from({ length: 30 }, () => machine.window());
  assert.deepEqual(
    windows.map(({ index }) => index),
    Array.from({ length: 30 }, (_, at) => at),
  );
  const regimes = windows.map(({ regime }) => regime);
  const order = regimes.filter((regime, at) => regime !== regimes[at - 1]);
  assert.deepEqual(order, ['healthy', 'worn', 'failing', 'healthy', 'worn']);
  for (const { wear, regime } of windows) assert.equal(regime, regimeOf(wear));
});

test('a worn machine is hotter, and shakes harder with more knocks; the load hides the heat of one window', () => {
  const features = (wear: number) =>
    Array.from({ length: 40 }, (_, seed) => {
      const machine = createMachine({ seed, wear });
      machine.window();
      return windowFeatures(machine.window().samples);
    });
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [healthy, failing] = [features(0.1), features(0.9)];
  const heat = (all: typeof healthy) => all.map(({ level }) => level[0] ?? 0);
  const shaking = (all: typeof healthy) => all.map(({ rms }) => rms[1] ?? 0);
  const peaks = (all: typeof healthy) => all.map(({ peak }) => peak[1] ?? 0);
  assert.ok(mean(heat(failing)) > mean(heat(healthy)) + 5);
  assert.ok(Math.min(...shaking(failing)) > Math.max(...shaking(healthy)), 'vibration tells them apart');
  assert.ok(mean(peaks(failing)) > 2 * mean(peaks(healthy)));
  assert.ok(Math.min(...heat(features(0.55))) < Math.max(...heat(healthy)), 'the level alone does not');
});

test('a window is rows of temperature, vibration and current within what sensors can see', () => {
  for (let seed = 0; seed < 50; seed += 1) {
    const { samples } = createMachine({ seed, wear: seed / 50 }).window();
    assert.equal(samples.length, windowSamples * channels.length);
    for (let at = 0; at < samples.length; at += channels.length) {
      const [temperature = Number.NaN, vibration = Number.NaN, current = Number.NaN] = samples.subarray(
        at,
        at + 3,
      );
      assert.ok(temperature > 10 && temperature < 110, `${temperature}`);
      assert.ok(Math.abs(vibration) < 30, `${vibration}`);
      assert.ok(current > 5 && current < 25, `${current}`);
    }
  }
});

test('features of a window that is computed by hand', () => {
  const samples = Float32Array.from([1, 10, 100, 3, -10, 100, 1, 10, 104, 3, -10, 104]);
  const { level, rms, peak } = windowFeatures(samples);
  assert.deepEqual({ level, rms, peak }, { level: [2, 0, 102], rms: [1, 10, 2], peak: [1, 10, 2] });
});

/** An agent as its HTTP looks from outside, with answers that a test sets. */
interface StandIn {
  url: string;
  ready: boolean;
  infer: () => { status: number; body: object };
  append: (lines: string[]) => { status: number; body: object };
  close(): Promise<void>;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

const answer = (regime: number) => ({
  status: 200,
  body: {
    model_name: 'health',
    model_version: '1.0.0',
    outputs: [{ name: 'label', shape: [1], datatype: 'INT64', data: [regime] }],
  },
});

async function standIn(): Promise<StandIn> {
  const agent: StandIn = {
    url: '',
    ready: true,
    infer: () => answer(0),
    append: (lines) => ({ status: 200, body: { records: lines.length } }),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
  const server: Server = createServer((request, response) => {
    void textOf(request).then((text) => {
      const said = (() => {
        if (request.url === '/v2/models/health/ready') return { status: agent.ready ? 200 : 404, body: {} };
        if (request.url === '/v2/models/health/infer') return agent.infer();
        if (request.url === '/telemetry/v1/records') return agent.append(text.trimEnd().split('\n'));
        return { status: 404, body: { error: `no ${request.url}` } };
      })();
      response.writeHead(said.status, { 'content-type': 'application/json' }).end(JSON.stringify(said.body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  agent.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return agent;
}

async function withApplication(
  run: (agent: StandIn, application: Application) => Promise<void>,
  prepare: (agent: StandIn) => void = () => undefined,
): Promise<void> {
  const agent = await standIn();
  prepare(agent);
  const application = startApplication({
    machine: createMachine({ seed: 1 }),
    name: 'press-1',
    agentUrl: agent.url,
    model: 'acme/health',
    everyMs: 5,
    windowsPerAppend: 4,
    clock: systemClock,
    fetch,
  });
  try {
    await run(agent, application);
  } finally {
    await application.stop();
    await agent.close();
  }
}

test('application: asks only once the model serves, and counts verdicts and appended records', async () => {
  const bodies: string[][] = [];
  await withApplication(
    async (agent, application) => {
      assert.equal(application.counts().answered, 0);
      agent.ready = true;
      await until('twelve answers', () => application.counts().answered >= 12);
      await application.pause();
      const { answered, failed, byVersion, appended, waiting, last } = application.counts();
      assert.deepEqual({ failed, waiting, appended }, { failed: 0, waiting: 0, appended: answered });
      assert.deepEqual(byVersion, { '1.0.0': { answered, right: answered } });
      assert.equal(last?.regime, 'healthy');
      assert.equal(bodies.flat().length, answered);
      const record = JSON.parse(bodies[0]?.[0] ?? '');
      assert.equal(record.release, 'acme/health@1.0.0');
      assert.ok(Number.isInteger(record.timeMs));
      assert.deepEqual(
        [record.data.machine, record.data.window, record.data.regime],
        ['press-1', 0, 'healthy'],
      );
      application.resume();
      await until('it goes on', () => application.counts().answered > answered);
    },
    (agent) => {
      agent.ready = false;
      agent.infer = () => {
        assert.ok(agent.ready, 'asked before the model served');
        return answer(0);
      };
      agent.append = (lines) => {
        bodies.push(lines);
        return { status: 200, body: { records: lines.length } };
      };
    },
  );
});

test('application: what is not answered with a verdict is a failure, and is not asked again', async () => {
  let asked = 0;
  await withApplication(
    async (_, application) => {
      await until('ten requests', () => asked >= 10);
      await application.pause();
      const { answered, failed, firstFailure } = application.counts();
      assert.equal(answered + failed, asked);
      assert.equal(failed, Math.floor(asked / 3) * 2 + (asked % 3 > 0 ? 1 : 0) + (asked % 3 > 1 ? 1 : 0));
      assert.match(firstFailure ?? '', /HTTP 503: .*queue full/);
    },
    (agent) => {
      agent.infer = () => {
        asked += 1;
        if (asked % 3 === 1) return { status: 503, body: { error: 'queue full' } };
        return asked % 3 === 2 ? answer(9) : answer(1);
      };
    },
  );
});

test('application: records wait while the agent does not take them, in order and each once', async () => {
  const taken: number[] = [];
  let open = false;
  await withApplication(
    async (_, application) => {
      await until('some wait', () => application.counts().waiting >= 10);
      assert.match(application.counts().appendRefused ?? '', /HTTP 503/);
      assert.equal(application.counts().appended, 0);
      open = true;
      await application.pause();
      const { answered, appended, waiting, lost, appendRefused } = application.counts();
      assert.deepEqual([appended, waiting, lost, appendRefused], [answered, 0, 0, null]);
      assert.deepEqual(
        taken,
        Array.from({ length: answered }, (_value, at) => at),
      );
    },
    (agent) => {
      agent.append = (lines) => {
        if (!open) return { status: 503, body: { error: 'telemetry-not-ready' } };
        for (const line of lines) taken.push(JSON.parse(line).data.window);
        return { status: 200, body: { records: lines.length } };
      };
    },
  );
});

test('application: records that the agent will never take are given up and counted', async () => {
  await withApplication(
    async (_, application) => {
      await until('a refusal', () => application.counts().lost >= 4);
      await application.pause();
      const { answered, lost, appended } = application.counts();
      assert.deepEqual([lost, appended], [answered, 0]);
    },
    (agent) => {
      agent.append = () => ({ status: 400, body: { error: 'bad line' } });
    },
  );
});
