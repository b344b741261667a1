// Why: flags become values in one way for every command, and a bad one exits with 2 and says why.
// Trusts: nothing that was typed. Must never: guess what a malformed flag meant.

import { type Command, InvalidArgumentError } from 'commander';
import { parseModelId, parseReleaseId, type ReleaseName } from '../../shared/kernel/releases.ts';
import { durationSchema } from '../../shared/wire/rollout-file.ts';

export interface GlobalFlags {
  registry?: string;
  token?: string;
  json?: boolean;
}

/** Adds --registry, --token and --json. */
export function connected(command: Command): Command {
  return command
    .option('--registry <url>', 'the registry (or LEPTON_REGISTRY)')
    .option('--token <token>', 'access token (or LEPTON_TOKEN)')
    .option('--json', 'one JSON document on stdout');
}

export function duration(text: string): number {
  const parsed = durationSchema.safeParse(text);
  if (!parsed.success || parsed.data === 0)
    throw new InvalidArgumentError('Expected a duration such as 30s, 10m, 24h, 30d.');
  return parsed.data;
}

export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('Expected a whole number from 1 up.');
  return value;
}

/** Collects `k=v` flags. */
export function label(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Expected key=value.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

export function collect(text: string, before: string[] = []): string[] {
  return [...before, text];
}

export function releaseId(text: string): ReleaseName {
  const parsed = parseReleaseId(text);
  if (parsed === null)
    throw new InvalidArgumentError('Expected NAMESPACE/NAME@VERSION, e.g. acme/yolox@1.0.0.');
  return parsed;
}

export function modelId(text: string): { namespace: string; name: string } {
  const parsed = parseModelId(text);
  if (parsed === null) throw new InvalidArgumentError('Expected NAMESPACE/NAME, e.g. acme/yolox.');
  return parsed;
}
