// Why: what the device runs and why, asked from the running daemon, else read from its folder.
// Trusts: the state folder of this user. Must never: change anything in it, nor wait for its lock.

import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { speaker } from '../../shared/host/speech.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { DroppedRecords } from '../../shared/wire/telemetry.ts';
import { type AgentStatus, agentStatusSchema, statusFromStore, whereSchema } from '../status.ts';
import { required, setting } from './settings.ts';

export interface StatusFlags {
  state?: string;
  token?: string;
  json?: boolean;
}

type Shown = AgentStatus & { running: boolean; pid: number | null; http: string | null };

const askMs = 5_000;

/** Where the daemon of this folder listens; null where none says so. */
export function whereIs(folder: string): { pid: number; http: string } | null {
  let text: string;
  try {
    text = readFileSync(join(folder, 'agent.json'), 'utf8');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
    throw new FleetError('disk-io', `cannot read ${join(folder, 'agent.json')}`, { cause });
  }
  // A file cut off by a power loss: the daemon is not running, and writes a new one when it does.
  if (!text.startsWith('{') || !text.endsWith('}')) return null;
  const parsed = whereSchema.safeParse(JSON.parse(text));
  return parsed.success ? parsed.data : null;
}

/** The daemon's own answer, or null where nothing listens there any more. */
async function ask(url: string, token: string | undefined): Promise<AgentStatus | null> {
  let response: Response;
  try {
    response = await fetch(new URL('/status', url), {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(askMs),
    });
  } catch (cause) {
    if (cause instanceof Error && cause.name === 'TimeoutError') {
      throw new FleetError('infer-deadline', `the agent at ${url} does not answer`, {
        hint: 'see its log; stop and start it',
        cause,
      });
    }
    return null;
  }
  if (response.status === 401) {
    throw new FleetError('auth-required', `the agent at ${url} wants a token`, {
      hint: 'give --token or set LEPTON_AGENT_TOKEN',
    });
  }
  // Another program may have taken the port since.
  const body: unknown = await response.json().catch(() => null);
  const parsed = agentStatusSchema.safeParse(body);
  return parsed.success ? parsed.data : null;
}

async function fromFolder(folder: string, version: string): Promise<AgentStatus> {
  const path = join(folder, 'state.sqlite');
  if (!existsSync(path)) {
    throw new FleetError('not-found', `${folder} holds no agent state`, {
      hint: 'give the folder that lepton-agent run --state names',
    });
  }
  const store = await openStore(path, { synchronous: 'FULL', readOnly: true });
  try {
    return await statusFromStore(store, {
      version,
      runtime: `node ${process.versions.node}`,
      arch: process.arch,
    });
  } finally {
    await store.close();
  }
}

async function gather(flags: StatusFlags, version: string): Promise<Shown> {
  const folder = resolve(required('state', flags.state));
  const where = whereIs(folder);
  const answer = where === null ? null : await ask(where.http, setting('token', flags.token));
  if (where !== null && answer !== null)
    return { running: true, pid: where.pid, http: where.http, ...answer };
  return { running: false, pid: null, http: null, ...(await fromFolder(folder, version)) };
}

function link(shown: Shown): string {
  if (shown.connected) return 'connected';
  return shown.refusedBy === null ? 'not connected' : `refused: ${shown.refusedBy}`;
}

const date = (ms: number): string => new Date(ms).toISOString();

/** What the device trusts, and by which clock. */
function trustLines({ clock, certificate, held, attacks }: Shown): string[] {
  const floor = clock.floorMs === 0 ? 'nothing verified yet' : `at least ${date(clock.floorMs)}`;
  const source = clock.source === 'signed' ? 'signed by the region' : 'the device’s own';
  const lines = [`clock     ${clock.nowMs === null ? floor : `${date(clock.nowMs)}, ${source}; ${floor}`}`];
  if (certificate !== null) {
    const refused = certificate.renewalRefusedBy;
    const renewal = refused === null ? '' : `; no renewal: ${refused}`;
    lines.push(`valid     until ${date(certificate.expiresAtMs)}${renewal}`);
  }
  if (held !== null) {
    const versions = Object.entries(held).map(([name, version]) => `${name} ${version}`);
    lines.push(`verified  ${versions.join(', ')}`);
  }
  const { count, last } = attacks;
  if (last !== null) lines.push(`attacks   ${count}, the last ${date(last.atMs)} ${last.code}`);
  return lines;
}

const dropText: Readonly<Record<DroppedRecords['reason'], string>> = {
  space: 'the outbox was full',
  share: 'their class had its share',
  age: 'too old',
  refused: 'the region can never take them',
  reset: 'sealed for an enrolment that ended',
};

/** An order to another region, and what waits for those that it left. */
function moveLines({ move, carried }: Shown): string[] {
  const lines = carried.map(({ region, pendingBatches, pendingRecords, bytes }) =>
    pendingBatches === null
      ? `carried   some telemetry waits for ${region}`
      : `carried   ${pendingRecords} records wait for ${region}, ${pendingBatches} batches, ${bytes} bytes`,
  );
  if (move === null) return lines;
  const why = move.reason === null ? '' : `   ${move.reason.code}: ${move.reason.detail}`;
  return [...lines, `move      ${move.to === null ? '' : `to ${move.to}, `}${move.state}${why}`];
}

function text(shown: Shown): string {
  const lines = [
    `device    ${shown.device ?? '(not enrolled)'}`,
    `region    ${shown.region ?? '-'}${shown.movedFrom === null ? '' : `, before that ${shown.movedFrom}`}`,
    `agent     ${shown.running ? `running at ${shown.http}, process ${shown.pid}` : 'not running'}`,
    `broker    ${shown.broker ?? '-'} (${link(shown)})`,
    `assigned  ${shown.epoch === 0 ? 'nothing yet' : `epoch ${shown.epoch}`}`,
    ...trustLines(shown),
  ];
  const labels = Object.entries(shown.labels).map(([key, value]) => `${key}=${value}`);
  if (labels.length > 0) lines.push(`labels    ${labels.join(' ')}`);
  if (shown.outbox !== null) {
    const { producedRecords, acknowledgedRecords, droppedRecords, pendingBatches, bytes } = shown.outbox;
    lines.push(
      `telemetry ${producedRecords} records: ${acknowledgedRecords} acknowledged, ${droppedRecords} dropped; ` +
        `${pendingBatches} batches wait, ${bytes} bytes`,
    );
    for (const { class: className, reason, records } of shown.outbox.dropped ?? []) {
      lines.push(`          ${records} of ${className} dropped: ${dropText[reason]}`);
    }
  }
  lines.push(...moveLines(shown));
  if (shown.delivery !== null && shown.delivery.fileBytes > 0) {
    const { arrivedBytes, fileBytes, rebuiltFiles } = shown.delivery;
    lines.push(`fetched   ${arrivedBytes} bytes for files of ${fileBytes}, ${rebuiltFiles} of them rebuilt`);
  }
  if (shown.timezone !== null) lines.push(`timezone  ${shown.timezone}`);
  if (shown.deferral !== null) lines.push(`deferred  until ${date(shown.deferral.untilMs)}, at this device`);
  if (shown.telemetryOff !== null) lines.push(`telemetry off: ${shown.telemetryOff}`);
  for (const model of shown.models) {
    lines.push(`model     ${model.name}: ${model.active ?? 'nothing'} serves, ${model.state}`);
    if (model.candidate !== null) lines.push(`          trying ${model.candidate}`);
    if (model.progress !== null)
      lines.push(`          ${model.progress.doneBytes} of ${model.progress.totalBytes} bytes`);
    if (model.reason !== null) lines.push(`          ${model.reason.code}: ${model.reason.detail}`);
  }
  for (const refusal of shown.refusals.slice(-10)) {
    lines.push(`refused   ${new Date(refusal.atMs).toISOString()} ${refusal.code}: ${refusal.detail}`);
  }
  return lines.join('\n');
}

export async function status(flags: StatusFlags, version: string): Promise<void> {
  const shown = await gather(flags, version);
  process.stdout.write(
    flags.json === true ? `${JSON.stringify(shown)}\n` : `${speaker().lines(text(shown))}\n`,
  );
}
