// Why: a wait looks often, and a process of the CLI for each look is most of what it costs: the same answers by HTTP.
// Trusts: the registry's public API. Must never: stand for the CLI where what it prints is what is tested.

import assert from 'node:assert/strict';
import type { DeviceView, FleetEvent } from '../../shared/wire/http.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';

export interface Address {
  http: string;
  token: string;
}

async function look({ http, token }: Address, path: string): Promise<string> {
  const response = await fetch(`${http}/api/v1/${path}`, { headers: { authorization: `Bearer ${token}` } });
  const body = await response.text();
  assert.equal(response.status, 200, `${path}: ${body}`);
  return body;
}

export async function deviceNow(registry: Address, id: string): Promise<DeviceView> {
  return JSON.parse(await look(registry, `devices/${id}`)) as DeviceView;
}

export async function rolloutNow(registry: Address, id: string): Promise<RolloutStatus> {
  return JSON.parse(await look(registry, `rollouts/${encodeURIComponent(id)}`)) as RolloutStatus;
}

export async function eventsNow(registry: Address, device?: string): Promise<FleetEvent[]> {
  const only = device === undefined ? '' : `&subject=${device}`;
  return JSON.parse(await look(registry, `events?limit=100${only}`)) as FleetEvent[];
}

/** Stored records of a class, in the order of storing. */
export async function recordsNow(
  registry: Address,
  asked: { class: string; device?: string },
): Promise<StoredRecord[]> {
  const lines = (await look(registry, `telemetry?${new URLSearchParams(asked)}`)).split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as StoredRecord);
}
