// Why: clients that ask without a pause while releases are switched under them, and believe no answer: each must be,
// byte for byte, what the release it names answers when nobody else is there. Trusts: the answers taken beforehand.
// Must never: forget a request that was not answered.

import { Agent, request } from 'node:http';
import { systemClock } from '../../shared/host/clock.ts';
import { encodeBinaryRequest, jsonLengthHeader } from '../../shared/wire/oip-binary.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

export interface Question {
  url: string;
  body: Buffer;
  headers: Record<string, string>;
}

export interface Answered {
  status: number;
  release: string;
  body: Buffer;
}

/** An inference request in binary form, its answer in binary form too. */
export function question(url: string, inputs: Tensor[]): Question {
  const { pieces, jsonBytes } = encodeBinaryRequest({ inputs, parameters: { binary_data_output: true } });
  return { url, body: Buffer.concat(pieces), headers: { [jsonLengthHeader]: String(jsonBytes) } };
}

export function askOver(agent: Agent, { url, body, headers }: Question): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: 'POST', agent, headers: { ...headers, 'content-length': body.length } },
      (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('error', reject);
        response.on('end', () => {
          const { statusCode: status = 0, headers: got } = response;
          resolve({ status, release: String(got['x-lepton-release']), body: Buffer.concat(pieces) });
        });
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

export interface Sample {
  startMs: number;
  endMs: number;
}

export interface LoadOutcome {
  samples: Sample[];
  byRelease: Map<string, number>;
  /** What was wrong, in words, one for each request. */
  problems: string[];
}

export interface SwapLoad {
  answered(): number;
  stop(): Promise<LoadOutcome>;
}

/** `own`: by release, the body of its own answer. */
export function startSwapLoad(
  asked: Question,
  own: ReadonlyMap<string, Buffer>,
  connections: number,
): SwapLoad {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const outcome: LoadOutcome = { samples: [], byRelease: new Map(), problems: [] };
  let stopping = false;

  const check = ({ status, release, body }: Answered): string | null => {
    if (status !== 200) return `${status}: ${body.toString('utf8').slice(0, 200)}`;
    const expected = own.get(release);
    if (expected === undefined) return `an answer of ${release}, which was never served`;
    return expected.equals(body) ? null : `not the answer that ${release} gives`;
  };
  const client = async (): Promise<void> => {
    while (!stopping) {
      const startMs = systemClock.mono();
      try {
        const answer = await askOver(agent, asked);
        const problem = check(answer);
        if (problem !== null) outcome.problems.push(problem);
        else outcome.byRelease.set(answer.release, (outcome.byRelease.get(answer.release) ?? 0) + 1);
      } catch (error) {
        outcome.problems.push(error instanceof Error ? error.message : String(error));
      }
      outcome.samples.push({ startMs, endMs: systemClock.mono() });
    }
  };
  const clients = Array.from({ length: connections }, client);
  return {
    answered: () => outcome.samples.length,
    stop: async () => {
      stopping = true;
      await Promise.all(clients);
      agent.destroy();
      return outcome;
    },
  };
}
