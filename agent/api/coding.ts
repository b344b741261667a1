// Why: gzip and deflate over HTTP: bodies of requests are inflated piece by piece, large answers are packed, both on
// zlib's threads. Trusts: zlib. Must never: inflate ahead of the reader who bounds it, or pack what gains nothing.

import { constants, createGunzip, createInflate, deflate, gzip } from 'node:zlib';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

export type Coding = 'gzip' | 'deflate';

/** Null where the body is plain. Refusal: `body-encoding`. */
export function readCoding(header: string | undefined): Result<Coding | null> {
  switch (header?.trim().toLowerCase()) {
    case undefined:
    case '':
    case 'identity':
      return ok(null);
    case 'gzip':
    case 'x-gzip':
      return ok('gzip');
    case 'deflate':
      return ok('deflate');
    default:
      return refuse('body-encoding', `bodies in ${JSON.stringify(header)} encoding`);
  }
}

export interface Unpacker {
  write(chunk: Buffer): void;
  /** Nothing more comes. */
  end(): void;
  /** Drops what waits. Idempotent. */
  stop(): void;
}

export interface UnpackerEvents {
  piece(bytes: Buffer): void;
  /** Take a pause with writing. */
  hold(): void;
  goOn(): void;
  /** Once, with what was wrong or null. Not after `stop`. */
  end(fault: string | null): void;
}

export function createUnpacker(coding: Coding, events: UnpackerEvents): Unpacker {
  const options = { chunkSize: 64 * 1024 };
  const stream = coding === 'gzip' ? createGunzip(options) : createInflate(options);
  let written = 0;
  let stopped = false;
  stream.on('data', (piece: Buffer) => {
    if (!stopped) events.piece(piece);
  });
  stream.on('drain', () => {
    if (!stopped) events.goOn();
  });
  stream.on('error', (error) => {
    if (!stopped) events.end(`no ${coding} stream: ${error.message}`);
  });
  stream.on('end', () => {
    if (stopped) return;
    // zlib stops at the end of its stream and says nothing of what follows.
    const rest = written - stream.bytesWritten;
    events.end(rest === 0 ? null : `${rest} bytes behind the end of the ${coding} stream`);
  });
  return {
    write: (chunk) => {
      written += chunk.length;
      if (!stream.write(chunk)) events.hold();
    },
    end: () => void stream.end(),
    stop: () => {
      stopped = true;
      stream.destroy();
    },
  };
}

/** Below this an answer fits one packet, packed or not. */
const packBytesMin = 1_400;
/** Numbers as raw bits shrink by a tenth at a megabyte in 30 ms; text shrinks to a third at level 1. */
const level = constants.Z_BEST_SPEED;

/**
 * The coding for an answer of this length, null for none; `accepted` is the header Accept-Encoding. A list of codings is
 * what HTTP libraries send by habit: it is followed for JSON. Raw tensors are packed only for who names one coding alone.
 */
export function chooseCoding(accepted: string | undefined, bytes: number, raw: boolean): Coding | null {
  if (accepted === undefined || bytes < packBytesMin) return null;
  const wanted = new Map<string, number>();
  for (const item of accepted.toLowerCase().split(',')) {
    const [name = '', ...parameters] = item.split(';').map((part) => part.trim());
    const weight = parameters.find((part) => part.startsWith('q='));
    wanted.set(name, weight === undefined ? 1 : Number(weight.slice(2)) || 0);
  }
  if (raw && wanted.size > 1) return null;
  const gzipWeight = wanted.get('gzip') ?? wanted.get('x-gzip') ?? 0;
  const deflateWeight = wanted.get('deflate') ?? 0;
  if (gzipWeight <= 0 && deflateWeight <= 0) return null;
  return gzipWeight >= deflateWeight ? 'gzip' : 'deflate';
}

/** Null where it would not have become smaller. */
export function pack(coding: Coding, pieces: readonly Uint8Array[]): Promise<Uint8Array | null> {
  const [first] = pieces;
  const bytes = pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces);
  return new Promise((resolve, reject) => {
    const packer = coding === 'gzip' ? gzip : deflate;
    packer(bytes, { level }, (error, packed) => {
      if (error !== null) reject(error);
      else resolve(packed.length < bytes.length ? packed : null);
    });
  });
}
