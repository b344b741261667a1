// Why: files of a TUF repository over HTTP, bounded in bytes and in time whatever the server does.
// Trusts: nothing that arrives. Must never: take "could not be asked" for "there is none".

import type { ErrorCode } from '../../../shared/kernel/codes.ts';
import { ok, type Result, refuse } from '../../../shared/kernel/result.ts';

export interface DownloadLimits {
  bytesMax: number;
  /** From the request to the last byte. */
  timeoutMs: number;
}

export interface DownloadCodes {
  /** Where the server says that it has no such file (404, 403). */
  missing: ErrorCode;
  tooLarge: ErrorCode;
}

/** A sink refuses by its result; the rest of the body is not read then. */
export type Sink = (chunk: Uint8Array) => Promise<void>;

/**
 * Streams one file. Refusals: `codes.missing`, `codes.tooLarge`, `fetch-timeout`, `repository-unreachable`.
 * Faults of the sink are thrown.
 */
export async function download(
  url: URL,
  limits: DownloadLimits,
  codes: DownloadCodes,
  sink: Sink,
): Promise<Result<void>> {
  // The signal ends the body too: a server that sends a byte now and then is not waited for.
  const signal = AbortSignal.timeout(limits.timeoutMs);
  const started = await guarded(url, () =>
    fetch(url, {
      signal,
      // Lengths and digests are those of the file as it is.
      headers: { 'accept-encoding': 'identity', 'user-agent': 'lepton-agent' },
    }),
  );
  if (!started.ok) return started;
  const { status, body } = started.value;
  // Some object stores say 403 for what is not there.
  if (status === 404 || status === 403) {
    await body?.cancel();
    return refuse(codes.missing, `${url.href}: HTTP ${status}`);
  }
  if (status !== 200 || body === null) {
    await body?.cancel();
    return refuse('repository-unreachable', `${url.href}: HTTP ${status}`);
  }
  const reader: ReadableStreamDefaultReader<Uint8Array> = body.getReader();
  let bytes = 0;
  try {
    for (;;) {
      const read = await guarded(url, () => reader.read());
      if (!read.ok) return read;
      if (read.value.done) return ok();
      bytes += read.value.value.length;
      // Endless data attack.
      if (bytes > limits.bytesMax)
        return refuse(codes.tooLarge, `${url.href}: more than ${limits.bytesMax} bytes`);
      await sink(read.value.value);
    }
  } finally {
    // Also of a body that was cut: then this does nothing.
    await reader.cancel().catch(() => undefined);
  }
}

async function guarded<T>(url: URL, work: () => Promise<T>): Promise<Result<T>> {
  try {
    return ok(await work());
  } catch (error) {
    const name = error instanceof Error ? error.name : '';
    if (name === 'TimeoutError') return refuse('fetch-timeout', `${url.href} does not answer in time`);
    const cause =
      error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    return refuse('repository-unreachable', `${url.href}: ${cause}`);
  }
}

/** A small file as a whole. */
export async function downloadBytes(
  url: URL,
  limits: DownloadLimits,
  codes: DownloadCodes,
): Promise<Result<Uint8Array>> {
  const chunks: Uint8Array[] = [];
  const done = await download(url, limits, codes, async (chunk) => {
    chunks.push(chunk);
  });
  return done.ok ? ok(new Uint8Array(Buffer.concat(chunks))) : done;
}
