// Why: the whole agent in this process against a hostile stand-in, over a real broker and real TLS. One broker
// serves the whole group; each lab enrols a device of its own, so that no row sees what another one left.
// Trusts: test/agent/registry-stand-in.ts. Must never: wait for an outcome that another row caused.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agentMigrations, type RunningAgent, startAgent } from '../../agent/daemon.ts';
import { agentStatusSchema } from '../../agent/status.ts';
import { loadTrust } from '../../agent/trust/trust-store.ts';
import { createLightHost } from '../../firmware-sim/load/light-host.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { decodeFrame, encodeFrame } from '../../shared/wire/frames.ts';
import { type StandIn, standIn } from '../agent/registry-stand-in.ts';
import { until } from '../agent/scene.ts';
import type { Bench, Lab, Trick } from './attack-case.ts';
import { dayMs, HostileRepository } from './hostile-repository.ts';

const baseline = new HostileRepository();
const firstRoot = baseline.files.get('1.root.json') ?? new Uint8Array();

/** Waits that a fleet spreads by chance are at their longest here: nothing but what a row asks for happens soon. */
const slowestEntropy: Entropy = { ...systemEntropy, u32: () => 0xffffffff };
/** A silent registry is given up after this; every other answer comes in milliseconds. */
const fetchTimeoutMs = 1_000;
const outcomeMs = 60_000;

/** What one device is told. */
interface Line {
  files: ReadonlyMap<string, Uint8Array>;
  tricks: Readonly<Record<string, Trick>>;
}

export interface WireLab extends Lab {
  /** The hostile registry: its `tamper`, its reports, the retained messages of every device. */
  readonly registry: StandIn;
  readonly deviceId: string;
  agent(): RunningAgent;
  /** Publishes this as the retained `desired`; resolves with the outcome as `assign` does. */
  publish(envelope: ReturnType<StandIn['sign']>): Promise<string>;
}

export interface WireBench extends Bench {
  open(): Promise<WireLab>;
}

/** Memory where the machine offers it: hundreds of devices would otherwise wait for each other's disk. */
const scratch = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export async function openWireBench(): Promise<WireBench> {
  const folder = mkdtempSync(join(scratch, 'lepton-attacks-'));
  const registry = await standIn({ emit: () => undefined });
  const lines = new Map<string, Line>();
  registry.tamper.files = (device) => lines.get(device)?.files ?? baseline.files;
  registry.tamper.frame = (name, frame, device) => trick(lines.get(device)?.tricks[name], frame);
  // A region that tells the time would heal the clocks that rows set wrong; test/agent shows that it does.
  registry.tamper.time = () => [];
  registry.tamper.enrolReply = (result) => ({
    ...result,
    ...('catalogueRoot' in result ? { catalogueRoot: Buffer.from(firstRoot).toString('base64') } : {}),
  });
  const claim: ClaimFile = {
    ...(await registry.claim({ uses: 10_000 })),
    catalogueRootSha256: sha256Hex(firstRoot),
  };
  let labs = 0;
  return {
    kind: 'wire',
    open: () => {
      labs += 1;
      return openWireLab({ registry, lines, claim, stateFolder: join(folder, `device-${labs}`) });
    },
    close: async () => {
      await registry.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function trick(what: Trick | undefined, frame: Uint8Array): Uint8Array | null {
  if (what === undefined) return frame;
  if (what === 'silent') return null;
  const read = decodeFrame(frame);
  assert.ok(read.ok);
  return encodeFrame({ ...read.value, status: 'data', totalBytes: 2 ** 45, payload: new Uint8Array(16_384) });
}

interface LabParts {
  registry: StandIn;
  lines: Map<string, Line>;
  claim: ClaimFile;
  stateFolder: string;
}

async function openWireLab({ registry, lines, claim, stateFolder }: LabParts): Promise<WireLab> {
  const honest = baseline.fork();
  let wallMs: number | null = null;
  let epoch = 0;
  /** The outcome that the device's log named last, and how many there were. */
  const outcomes: string[] = [];
  const log: Log = {
    emit: (_level, event, fields = {}) => {
      if (event === 'assignment.accepted' && fields['epoch'] === epoch) outcomes.push('accepted');
      else if (event === 'assignment.refused') outcomes.push(String(fields['code']));
      else if (event === 'trust.refused' && fields['what'] === 'assignment' && isTricked())
        outcomes.push(String(fields['code']));
    },
  };
  const clock: Clock = { ...systemClock, wall: () => wallMs ?? Date.now() };
  const start = (): Promise<RunningAgent> =>
    startAgent({
      stateFolder,
      http: { host: '127.0.0.1', port: 0 },
      claim,
      labels: {},
      reEnroll: false,
      clock,
      entropy: slowestEntropy,
      log,
      version: '0.0.0-attacked',
      inference: (options) => createLightHost({ clock: options.clock, loadMs: 1 }),
      reportEveryMs: 3_600_000,
      fetchTimeoutMs,
    });
  let running = await start();
  const { deviceId } = running;
  const line: Line = { files: honest.files, tricks: {} };
  lines.set(deviceId, line);
  /** Only a registry that goes silent makes a timeout the outcome; else it is this machine's load. */
  const isTricked = (): boolean => Object.values(line.tricks).includes('silent');
  await until('the device is connected', () => registry.connected().includes(deviceId));

  const lab: WireLab = {
    honest,
    registry,
    deviceId,
    agent: () => running,
    serve: (repository, tricks = {}) => {
      line.files = repository.files;
      line.tricks = tricks;
      served = repository;
    },
    update: (...paths) => lab.assign(paths.map((path) => served.assignmentOf(path))),
    assign: (releases) => {
      epoch += 1;
      const expiresAtMs = Date.now() + 100 * 365 * dayMs;
      return lab.publish(registry.sign(registry.assign(deviceId, [...releases], { epoch, expiresAtMs })));
    },
    publish: async (envelope) => {
      const before = outcomes.length;
      await registry.publishDesired(deviceId, envelope);
      await until('the assignment is judged', () => outcomes.length > before, outcomeMs);
      const outcome = outcomes[before] ?? '';
      // What is refused must reach the operator: it is in the device's own list, from which reports are made.
      if (outcome !== 'accepted' && outcome !== 'fetch-timeout') {
        const answer = await fetch(`${running.httpUrl}/status`);
        const { refusals } = agentStatusSchema.parse(await answer.json());
        assert.ok(
          refusals.some((refusal) => refusal.code === outcome),
          `${outcome} is among the device's refusals`,
        );
      }
      return outcome;
    },
    held: async () => {
      const store = await openStore(join(stateFolder, 'state.sqlite'), {
        synchronous: 'NORMAL',
        readOnly: true,
      });
      const record = await loadTrust(store);
      await store.close();
      if (record === null) throw new Error('the device holds no roots');
      return record.catalogue;
    },
    edit: async (work) => {
      await running.stop();
      const store = await openStore(join(stateFolder, 'state.sqlite'), {
        synchronous: 'FULL',
        migrations: agentMigrations,
      });
      await store.tx(work);
      await store.close();
      running = await start();
      await until('the device is back', () => registry.connected().includes(deviceId));
    },
    setClock: (ms) => {
      wallMs = ms;
    },
    close: async () => {
      await running.stop();
      lines.delete(deviceId);
      rmSync(stateFolder, { recursive: true, force: true });
    },
  };
  let served = honest;
  return lab;
}
