// Why: `lepton-agent defer`: somebody at the machine says "not now" to its daemon.
// Trusts: the state folder of this user. Must never: write into the folder itself: the daemon counts what is deferred.

import { resolve } from 'node:path';
import { speaker } from '../../shared/host/speech.ts';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type DeferAnswer, deferAnswerSchema, deferForMsMax } from '../update/deferral.ts';
import { parseDuration, required, setting } from './settings.ts';
import { whereIs } from './status.ts';

export interface DeferFlags {
  for?: string;
  clear?: boolean;
  state?: string;
  token?: string;
  json?: boolean;
}

const askMs = 10_000;

function asked(flags: DeferFlags): number | null {
  if ((flags.for === undefined) === (flags.clear !== true))
    throw new FleetError('config-invalid', 'give either --for DURATION or --clear');
  if (flags.for === undefined) return null;
  const forMs = parseDuration('--for', flags.for);
  if (forMs > deferForMsMax) throw new FleetError('config-invalid', '--for is at most 7d');
  return forMs;
}

async function tell(url: string, token: string | undefined, forMs: number | null): Promise<DeferAnswer> {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(new URL('/updates/v1/deferral', url), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...authorization },
    body: JSON.stringify({ forMs }),
    signal: AbortSignal.timeout(askMs),
  }).catch((cause: unknown) => {
    throw new FleetError('agent-not-running', `the agent at ${url} does not answer`, { cause });
  });
  if (response.status === 401)
    throw new FleetError('auth-required', `the agent at ${url} wants a token`, {
      hint: 'give --token or set LEPTON_AGENT_TOKEN',
    });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    const code = response.headers.get('x-lepton-code') ?? '';
    const said = typeof body === 'object' && body !== null && 'error' in body ? String(body.error) : '';
    throw new FleetError(isErrorCode(code) ? code : 'internal', said);
  }
  const parsed = deferAnswerSchema.safeParse(body);
  if (!parsed.success)
    throw new FleetError('agent-not-running', `what listens at ${url} is no agent that knows deferrals`);
  return parsed.data;
}

const date = (ms: number): string => new Date(ms).toISOString();

function text({ deferral, updates }: DeferAnswer): string {
  if (deferral === null) return 'nothing is deferred\n';
  const lines = [`deferred  until ${date(deferral.untilMs)}`];
  for (const { as, releaseId, untilMs } of updates)
    lines.push(`          ${as}: ${releaseId ?? '-'} until ${date(untilMs)}, by its rollout’s bound`);
  return `${lines.join('\n')}\n`;
}

/** Faults: `config-invalid`, `agent-not-running`, `auth-required`, `defer-exhausted`. */
export async function defer(flags: DeferFlags): Promise<void> {
  const forMs = asked(flags);
  const folder = resolve(required('state', flags.state));
  const where = whereIs(folder);
  if (where === null) throw new FleetError('agent-not-running', `no agent runs with ${folder}`);
  const answer = await tell(where.http, setting('token', flags.token), forMs);
  process.stdout.write(flags.json === true ? `${JSON.stringify(answer)}\n` : speaker().lines(text(answer)));
}
