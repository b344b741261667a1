// Why: the device's own signed word on what it runs and what it refused (DESIGN 3, 4).
// Trusts: the facts of its own machine. Must never: use a counter twice, also not over a crash: the
// counter is durable before the report that carries it leaves.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { Migration } from '../../shared/host/sqlite.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Clock, Entropy, Log, Store } from '../../shared/kernel/ports.ts';
import { signReport } from '../../shared/trust/report.ts';
import type { Report, ReportedModel } from '../../shared/wire/messages.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { createBackoff } from './backoff.ts';
import { createDoorbell } from './doorbell.ts';
import { messageHead, randomHex } from './message.ts';
import { listRefusals } from './refusals.ts';

export const reportMigrations: readonly Migration[] = [
  {
    name: 'agent-report-001',
    sql: `
      CREATE TABLE report_counter (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        counter INTEGER NOT NULL
      ) STRICT;
      INSERT INTO report_counter (id, counter) VALUES (1, 0);
    `,
  },
];

export interface AgentInfo {
  version: string;
  /** What runs the models, with its version. */
  runtime: string;
  /** As Node names it: `x64`, `arm64`. */
  arch: string;
  /** What its processes may take together; absent where nobody knows. */
  memoryMiB?: number;
  /** Execution providers that run models here; absent while nobody knows. */
  providers?: string[];
}

/** One start of this device, however often its line ends and begins anew meanwhile. */
export interface Start {
  /** Durable already. */
  boot: number;
  session(): string;
}

/** Registries take two sessions of one start for two devices. */
export function startOf(boot: number, entropy: Entropy): Start {
  let session: string | null = null;
  return {
    boot,
    /** Drawn anew at each start: a second device with this key cannot have the same. */
    session: () => (session ??= randomHex(entropy, 16)),
  };
}

export interface ReporterParts {
  store: Store;
  bus: Bus & { connected(): boolean };
  signer: Signer;
  deviceId: string;
  region: string;
  agent(): AgentInfo;
  timezone: string;
  models(): ReportedModel[];
  outbox(): Report['outbox'];
  /** How far it is with an order to another region; absent or undefined where there is none. */
  move?(): Report['move'] | undefined;
  start: Start;
  /** What the device has verified, and by which clock and certificate it goes. */
  trust(): Pick<Report, 'epoch' | 'verifiedTimeMs' | 'held' | 'certificateExpiresAtMs'> & {
    clockSource: 'signed' | 'wall';
  };
  /** Durable before a number leaves that may be used once only. */
  reserve(number: number): Promise<void>;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  everyMs?: number;
}

export interface Reporter {
  /** Something changed (or the bus is back): a report leaves soon. Many changes are one report. */
  changed(): void;
  /** Sends a last report where the bus is up, and ends. */
  stop(): Promise<void>;
}

/** Distance between two reports, so that a model that moves through its states does not flood the bus. */
const reportGapMs = 200;
/** Longest reason texts first; a device with 64 failing models still gets its report through. */
const reasonCharsSteps = [500, 100, 0] as const;

function shortened(models: ReportedModel[], charsMax: number): ReportedModel[] {
  return models.map((model) => ({
    ...model,
    reason: model.reason && { ...model.reason, detail: model.reason.detail.slice(0, charsMax) },
    probe: model.probe && {
      ...model.probe,
      firstFailure: model.probe.firstFailure === null ? null : model.probe.firstFailure.slice(0, charsMax),
    },
  }));
}

export function createReporter(parts: ReporterParts): Reporter {
  const { store, bus, signer, deviceId, region, clock, entropy, log } = parts;
  const everyMs = parts.everyMs ?? limits.reportEveryMs;
  const topic = deviceTopic(region, deviceId, 'reported');
  const doorbell = createDoorbell(clock);
  const backoff = createBackoff(entropy, reportGapMs);
  const { boot } = parts.start;
  const session = parts.start.session();
  let stopped = false;

  async function send(): Promise<void> {
    const { counter, refusals } = await store.tx((db) => {
      db.run('UPDATE report_counter SET counter = counter + 1 WHERE id = 1');
      const row = db.get<{ counter: number }>('SELECT counter FROM report_counter WHERE id = 1');
      return { counter: row?.counter ?? 1, refusals: listRefusals(db) };
    });
    await parts.reserve(Math.max(counter, refusals.at(-1)?.id ?? 0));
    const { clockSource, ...facts } = parts.trust();
    const wallMs = Math.max(0, Math.floor(clock.wall()));
    const move = parts.move?.();
    const report: Report = {
      schemaVersion: 1,
      deviceId,
      region,
      counter,
      boot,
      session,
      sentAtMs: wallMs,
      ...facts,
      timezone: parts.timezone,
      agent: parts.agent(),
      models: parts.models(),
      refusals,
      outbox: parts.outbox(),
      clock: { wallMs, source: clockSource },
      ...(move === undefined ? {} : { move }),
    };
    for (const charsMax of reasonCharsSteps) {
      const envelope = signReport({ ...report, models: shortened(report.models, charsMax) }, signer);
      const body = encodeMessage({ ...messageHead(clock, entropy), envelope });
      if (body.length > limits.busMessageBytesMax && charsMax > 0) continue;
      await bus.publish(topic, body, { qos: 1, retain: false });
      log.emit('debug', 'report.sent', { counter, bytes: body.length, refusals: refusals.length });
      return;
    }
  }

  /** True where it left. */
  async function trySend(): Promise<boolean> {
    try {
      await send();
      backoff.reset();
      return true;
    } catch (error) {
      const fault = asFleetError(error);
      // A bug or a broken disk is worth a person's look; a lost line is not.
      log.emit(fault.code === 'bus-offline' ? 'debug' : 'warn', 'report.failed', {
        code: fault.code,
        detail: fault.message,
      });
      return false;
    }
  }

  async function run(): Promise<void> {
    let waitMs = everyMs;
    while (!stopped) {
      await doorbell.wait(waitMs);
      waitMs = everyMs;
      // Back on the bus, `changed` is called; until then there is nobody to tell.
      if (stopped || !bus.connected()) continue;
      if (!(await trySend())) waitMs = reportGapMs + backoff.nextMs();
      else if (!stopped) await clock.timer(reportGapMs).done;
    }
  }

  const running = run();
  return {
    changed: () => doorbell.ring(),
    stop: async () => {
      if (stopped) return;
      stopped = true;
      doorbell.ring();
      await running;
      if (bus.connected()) await trySend();
    },
  };
}
