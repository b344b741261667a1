// Why: the Log port as JSON lines for people and machines: {level, time, event, …fields}.
// Trusts: callers to give ids and codes, not payloads. Must never: write to stdout, which carries results,
// nor write a field whose name says that it is secret.

import { pino } from 'pino';
import type { Log, LogLevel } from '../kernel/ports.ts';

export interface LogOptions {
  level: LogLevel | 'silent';
  /** Default: stderr, written synchronously so that the last line before a crash is there. */
  destination?: { write(line: string): void };
}

/** Fields that hold secrets in this system; a slip is hidden rather than written. */
const secretFields = ['privateKey', 'seed', 'secret', 'token', 'password', 'authorization', 'payload'];

function describe(value: unknown): unknown {
  if (value instanceof Error) {
    return 'code' in value
      ? { code: value.code, message: value.message }
      : { message: value.message, stack: value.stack };
  }
  if (typeof value === 'bigint') return value.toString();
  return value;
}

export function openLog(options: LogOptions): Log {
  const sink = options.destination ?? pino.destination({ fd: 2, sync: true });
  const logger = pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretFields, censor: '[secret]' },
    },
    sink,
  );
  return {
    emit: (level, event, fields = {}) => {
      if (!logger.isLevelEnabled(level)) return;
      const line: Record<string, unknown> = { event };
      for (const [name, value] of Object.entries(fields)) line[name] = describe(value);
      line['event'] = event;
      logger[level](line);
    },
  };
}
