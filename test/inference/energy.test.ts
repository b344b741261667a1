// Why: joules are measured, modelled or unknown, and each says which. Trusts: files of its own in the shape of the
// kernel's. Must never: need a processor that counts.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createEnergyMeter, energyOf } from '../../agent/inference/energy.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemPower } from '../../shared/host/power.ts';
import type { Power } from '../../shared/kernel/ports.ts';
import { energyStatsSchema } from '../../shared/wire/energy.ts';

test('energy: what is measured comes before what is modelled, and nothing is guessed', () => {
  const facts = { used: { joules: 60, busyMs: 3_000 }, cpuMs: 1_000, model: undefined, requests: 10 };
  assert.deepEqual(energyOf(facts), { method: 'rapl', joules: 20 });
  const watts = { model: 'cpu-time', wattsPerCore: 5 } as const;
  assert.deepEqual(energyOf({ ...facts, model: watts }), { method: 'rapl', joules: 20 });
  const uncounted = { ...facts, used: { joules: null, busyMs: 3_000 } };
  assert.deepEqual(energyOf({ ...uncounted, model: watts }), { method: 'cpu-time', joules: 5 });
  assert.deepEqual(energyOf({ ...uncounted, cpuMs: null, model: watts }), { method: 'none', joules: null });
  const each = { model: 'per-request', joules: 0.5 } as const;
  assert.deepEqual(energyOf({ ...uncounted, cpuMs: null, model: each }), {
    method: 'per-request',
    joules: 5,
  });
  assert.deepEqual(energyOf(uncounted), { method: 'none', joules: null });
  // Read one after the other: never more than all of it.
  assert.deepEqual(energyOf({ ...facts, cpuMs: 3_010 }), { method: 'rapl', joules: 60 });
  assert.deepEqual(energyOf({ ...facts, used: { joules: 60, busyMs: 0 } }), { method: 'rapl', joules: 0 });
});

test('energy: windows add up the processes of a release, those that ended too', () => {
  const now = { joules: 100 as number | null, busyMs: 0, cpu: new Map([[7, 500]]) };
  const power: Power = {
    joules: () => now.joules,
    busyMs: () => now.busyMs,
    cpuMs: (pid) => now.cpu.get(pid) ?? null,
  };
  const meter = createEnergyMeter({ clock: systemClock, power });
  const first = meter.follow('pump', 'acme/pump@1', 7);
  now.cpu.set(7, 800);
  first.look();
  now.cpu.set(7, 900);
  first.end();
  now.cpu.delete(7);
  now.cpu.set(8, 40);
  const second = meter.follow('pump', 'acme/pump@1', 8);
  now.cpu.set(8, 140);
  now.joules = 110;
  now.busyMs = 1_000;
  for (let at = 0; at < 4; at += 1) meter.answered('pump', 'acme/pump@1', undefined);
  const [record, ...more] = meter.take();
  assert.deepEqual(more, []);
  const data = energyStatsSchema.parse(record?.data);
  assert.deepEqual(
    [data.model, data.requests, data.source, data.method, data.joules, data.cpuMs],
    ['pump', 4, 'measured', 'rapl', 5, 500],
  );
  // Nothing answered: no record, and its time is not the next window's.
  now.cpu.set(8, 10_000);
  assert.deepEqual(meter.take(), []);
  meter.answered('pump', 'acme/pump@1', { model: 'cpu-time', wattsPerCore: 2 });
  now.joules = null;
  now.cpu.set(8, 10_250);
  const later = energyStatsSchema.parse(meter.take()[0]?.data);
  assert.deepEqual([later.source, later.method, later.joules], ['modelled', 'cpu-time', 0.5]);
  second.end();
  meter.answered('pump', 'acme/pump@1', undefined);
  const unknown = energyStatsSchema.parse(meter.take()[0]?.data);
  assert.deepEqual([unknown.source, unknown.joules, unknown.cpuMs], ['unknown', null, 0]);
});

test('energy: the kernel’s counters, as they are written', () => {
  const root = mkdtempSync(join(tmpdir(), 'lepton-power-'));
  try {
    const write = (path: string, text: string): void => {
      mkdirSync(join(root, path, '..'), { recursive: true });
      writeFileSync(join(root, path), text);
    };
    const powercap = 'sys/class/powercap';
    assert.equal(systemPower(root).joules(), null);
    for (const [folder, name, energyUj] of [
      ['intel-rapl:0', 'package-0', 999_000_000],
      ['intel-rapl:0:0', 'core', 500],
      ['intel-rapl:1', 'package-1', 5_000_000],
      ['intel-rapl:2', 'psys', 77],
    ] as const) {
      write(`${powercap}/${folder}/name`, `${name}\n`);
      write(`${powercap}/${folder}/energy_uj`, `${energyUj}\n`);
      write(`${powercap}/${folder}/max_energy_range_uj`, '1000000000\n');
    }
    const power = systemPower(root);
    assert.equal(power.joules(), 0);
    // The first one went round.
    write(`${powercap}/intel-rapl:0/energy_uj`, '2000000\n');
    write(`${powercap}/intel-rapl:1/energy_uj`, '5500000\n');
    assert.equal(power.joules(), 3.5);
    write(`${powercap}/intel-rapl:1/energy_uj`, '');
    assert.equal(power.joules(), null);

    assert.equal(power.busyMs(), null);
    write('proc/stat', 'cpu  100 20 30 99999 5 1 2 3 40 50\ncpu0 1 1 1 1 1 1 1 1 1 1\n');
    assert.equal(power.busyMs(), 1_560);
    write('proc/42/stat', '42 (a b) c) S 1 42 42 0 -1 4194304 1 2 3 4 150 25 7 8 20 0 1 0 99 1 1\n');
    assert.equal(power.cpuMs(42), 1_750);
    assert.equal(power.cpuMs(43), null);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('energy: this machine’s own counters grow', { skip: process.platform !== 'linux' && 'no /proc' }, () => {
  const power = systemPower();
  const before = power.cpuMs(process.pid);
  assert.ok(before !== null && (power.busyMs() ?? 0) > 0);
  while ((power.cpuMs(process.pid) ?? 0) <= before) for (let at = 0; at < 1e6; at += 1) Math.sqrt(at);
});
