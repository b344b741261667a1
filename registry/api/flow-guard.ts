// Why: what somebody reads who sits in another region goes there: asked of the region's policy before the first byte, and
// metered after the last. Trusts: requireAccess for who asks. Must never: let a part of an answer out where the policy
// refuses another part of it.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import type { RegistryCore } from '../core.ts';
import type { Principal } from '../policy/access.ts';
import type { Decision, FlowClass } from '../policy/flows.ts';

/** One answer on its way. */
export interface Passage {
  /** Notes what went out; written down by `end`, and by itself every few megabytes. */
  sent(flow: FlowClass, records: number, bytes: number): void;
  /** Idempotent. */
  end(): Promise<void>;
}

export interface FlowGuard {
  /**
   * Throws `policy-denied` where one of the classes may not go to where the reader sits, or to `to`, where he says the answer
   * goes; the detail names each class with its rule.
   */
  passage(reader: Principal, classes: readonly TelemetryClass[], to?: string): Promise<Passage>;
  /** Sums over devices; `devices`: of how many each is, 0 where nobody knows. Throws `policy-denied`, also where they are too few. */
  cells(reader: Principal, devices: readonly number[], body: object): Promise<void>;
}

/** A process that is killed forgets what it has not written down. */
const bytesBetweenCounts = 8 * 1024 * 1024;

/** Whether what is answered stays in the region. */
export const sitsIn = (region: string, reader: Principal): boolean =>
  reader.atRegion === null || reader.atRegion === region;

const nothing: Passage = { sent: () => undefined, end: async () => undefined };
const jsonBytes = (body: object): number => Buffer.byteLength(JSON.stringify(body));

interface Asked {
  flow: FlowClass;
  destination: string;
  decision: Decision;
}

export function createFlowGuard(
  parts: Pick<RegistryCore, 'region' | 'policies' | 'audit' | 'log'>,
): FlowGuard {
  const { region, policies, audit, log } = parts;

  const destinationsOf = (reader: Principal, to: string | undefined): string[] => [
    ...new Set([reader.atRegion ?? region, to ?? region].filter((one) => one !== region)),
  ];

  async function note(
    reader: Principal,
    { flow, destination, decision }: Asked,
    outcome: 'done' | 'refused',
  ) {
    await audit.append({
      ...{
        actor: `user:${reader.user}`,
        via: 'api',
        action: 'flow.records',
        subject: destination,
        reason: null,
      },
      ...{ outcome, code: outcome === 'done' ? null : 'policy-denied', rule: decision.rule, address: null },
      detail: { token: reader.tokenId, class: flow, at: reader.atRegion },
    });
  }

  async function refused(reader: Principal, asked: readonly Asked[]): Promise<FleetError> {
    const denied = asked.filter(({ decision }) => !decision.allowed);
    for (const one of denied) {
      await policies.count({ ...one, records: 0, bytes: 0 });
      await note(reader, one, 'refused');
    }
    const [first] = denied;
    const named = denied.map(
      ({ flow, destination, decision }) =>
        `${flow} may not go to ${destination} by ${decision.rule}${decision.rule.startsWith('flows/') ? `: “${decision.reason}”` : ` (${decision.reason})`}`,
    );
    const barred = new Set(denied.map(({ flow }) => flow));
    const left = [...new Set(asked.map(({ flow }) => flow).filter((flow) => !barred.has(flow)))];
    log.emit('warn', 'policy.denied', {
      ...{
        user: reader.user,
        classes: [...barred],
        destination: first?.destination,
        rule: first?.decision.rule,
      },
    });
    const hint =
      left.length === 0
        ? `read it with a token of somebody who sits in ${region}; lepton policy show tells what may leave`
        : `ask for one class that may go: ${left.map((flow) => `--class ${flow}`).join(', ')}`;
    return new FleetError('policy-denied', named.join('; '), { rule: first?.decision.rule, hint });
  }

  async function ask(reader: Principal, flows: readonly FlowClass[], destinations: readonly string[]) {
    const asked = destinations.flatMap((destination) =>
      flows.map((flow) => ({ flow, destination, decision: policies.flow(flow, destination) })),
    );
    if (asked.some(({ decision }) => !decision.allowed)) throw await refused(reader, asked);
    return asked;
  }

  function metered(asked: readonly Asked[]): Passage {
    let waiting = new Map<FlowClass, { records: number; bytes: number }>();
    let bytesWaiting = 0;
    let written: Promise<void> = Promise.resolve();
    // What was read and had nothing in it was a request all the same.
    let untold: readonly Asked[] = asked;
    const write = (): void => {
      const [counts, all] = [waiting, untold];
      [waiting, untold, bytesWaiting] = [new Map(), [], 0];
      const due = asked.filter((one) => counts.has(one.flow) || all.includes(one));
      written = written.then(async () => {
        for (const one of due)
          await policies.count({ ...one, ...(counts.get(one.flow) ?? { records: 0, bytes: 0 }) });
      });
      // Whoever ends the passage hears of it.
      written.catch(() => undefined);
    };
    return {
      sent(flow, records, bytes) {
        const sum = waiting.get(flow) ?? { records: 0, bytes: 0 };
        waiting.set(flow, { records: sum.records + records, bytes: sum.bytes + bytes });
        bytesWaiting += bytes;
        if (bytesWaiting >= bytesBetweenCounts) write();
      },
      async end() {
        if (waiting.size > 0 || untold.length > 0) write();
        await written;
      },
    };
  }

  return {
    async passage(reader, classes, to) {
      const destinations = destinationsOf(reader, to);
      if (destinations.length === 0) return nothing;
      const asked = await ask(reader, classes, destinations);
      // Before the first byte: a process that ends in between has not read in secret.
      for (const one of asked) await note(reader, one, 'done');
      return metered(asked);
    },

    async cells(reader, devices, body) {
      const destinations = destinationsOf(reader, undefined);
      if (destinations.length === 0) return;
      const asked = await ask(reader, ['cells'], destinations);
      const least = policies.cellDevicesMin();
      const few = devices.find((count) => count < least);
      if (few !== undefined) {
        const over = few === 0 ? 'nobody counted how many devices' : `${few} devices`;
        const reason = `it is a sum over ${over}, and cells of fewer than ${least} stay`;
        const decision = { allowed: false, rule: 'cells/devicesMin', reason };
        throw await refused(
          reader,
          asked.map((one) => ({ ...one, decision })),
        );
      }
      const passage = metered(asked);
      passage.sent('cells', devices.length, jsonBytes(body));
      await passage.end();
    },
  };
}

/** What was sent before a fault, or before the reader went away, has gone all the same. */
export async function* passing(
  lines: AsyncGenerator<Uint8Array>,
  passage: Passage,
): AsyncGenerator<Uint8Array> {
  try {
    yield* lines;
  } finally {
    await passage.end();
  }
}

/** One JSON answer of `records` records of a class. */
export async function sentWhole(
  passage: Passage,
  kind: TelemetryClass,
  records: number,
  body: object,
): Promise<void> {
  if (passage === nothing) return;
  passage.sent(kind, records, jsonBytes(body));
  await passage.end();
}
