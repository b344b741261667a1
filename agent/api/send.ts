// Why: how an answer leaves: packed where the client asked for it, whole before the connection is closed, and in the
// protocol's form also where the request was not even HTTP. Trusts: the answer. Must never: leave unread bytes for the
// next request, or answer one request with what another one earned.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { codes } from '../../shared/kernel/codes.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import type { Answer } from './answer.ts';
import { type Coding, chooseCoding, pack } from './coding.ts';

/** In whole seconds, as HTTP wants it; where nothing is known, queues empty and children start again within one. */
function retryAfter({ retryAfterMs }: Refusal): string {
  return String(Math.min(60, Math.max(1, Math.ceil((retryAfterMs ?? 0) / 1_000))));
}

export function refusalAnswer(refusal: Refusal): Answer {
  const { http } = codes[refusal.code];
  return {
    status: http,
    body: Buffer.from(JSON.stringify({ error: refusal.detail }), 'utf8'),
    headers: {
      'x-lepton-code': refusal.code,
      ...(http === 503 ? { 'retry-after': retryAfter(refusal) } : {}),
      ...(refusal.code === 'body-encoding' ? { 'accept-encoding': 'gzip, deflate' } : {}),
    },
  };
}

/** How long a refused body is read and thrown away, so that its sender gets to read why. */
const lingerMs = 2_000;

/** Up to here a body is put behind its head as text, one piece for the socket; a second one would cost more. */
export const textBytesMax = 4 * 1024;

/** Each byte as the character of its number, which `latin1` writes back as that byte. */
export function asText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

/** Names and values in turn, as Node takes them fastest. */
function flat(headers: Record<string, string | number>): (string | number)[] {
  const list: (string | number)[] = [];
  for (const name in headers) list.push(name, headers[name] ?? '');
  return list;
}

/** An answer as it goes over the wire. */
export interface Parcel {
  status: number;
  /** Length and coding of the body among them. */
  headers: Record<string, string | number>;
  pieces: readonly Uint8Array[];
  bytes: number;
}

async function packed(parcel: Parcel, coding: Coding): Promise<Parcel> {
  const body = await pack(coding, parcel.pieces);
  if (body === null) return parcel;
  const { vary } = parcel.headers;
  const headers = {
    ...parcel.headers,
    'content-encoding': coding,
    vary: [vary, 'accept-encoding'].filter(Boolean).join(', '),
    'content-length': body.length,
  };
  return { status: parcel.status, headers, pieces: [body], bytes: body.length };
}

/** `accepted` is the header Accept-Encoding. At once where nothing is to be packed. */
export function parcelOf(answer: Answer, accepted: string | undefined): Parcel | Promise<Parcel> {
  const pieces = answer.body instanceof Uint8Array ? [answer.body] : answer.body;
  let bytes = 0;
  for (const piece of pieces) bytes += piece.length;
  const headers: Record<string, string | number> = {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    ...answer.headers,
    'content-length': bytes,
  };
  const parcel = { status: answer.status, headers, pieces, bytes };
  const coding = chooseCoding(accepted, bytes, headers['content-type'] === 'application/octet-stream');
  return coding === null ? parcel : packed(parcel, coding);
}

export async function send(
  request: IncomingMessage,
  response: ServerResponse,
  answer: Answer,
  clock: Clock,
): Promise<void> {
  if (response.headersSent || response.destroyed) return;
  const whole = request.complete;
  const accepted = request.headers['accept-encoding'];
  const given = parcelOf(answer, typeof accepted === 'string' ? accepted : undefined);
  const { status, headers, bytes, ...parcel } = given instanceof Promise ? await given : given;
  // Gone meanwhile: a write would end in an error that nobody handles.
  if (response.destroyed) return;
  let { pieces } = parcel;
  // Bytes that were not read must not be taken for the next request.
  if (!whole) headers['connection'] = 'close';
  response.writeHead(status, flat(headers));
  if (request.method === 'HEAD') pieces = [];
  const [first] = pieces;
  if (whole && pieces.length === 1 && first !== undefined && bytes <= textBytesMax) {
    response.end(asText(first), 'latin1');
    return;
  }
  const last = pieces.length - 1;
  // One write to the socket: head and pieces together.
  response.cork();
  for (const piece of pieces.slice(0, last)) response.write(piece);
  const end = pieces[last];
  if (whole) {
    response.end(end);
    return;
  }
  // Closing now would reset the connection under a client that still sends, and lose the answer.
  if (end !== undefined) response.write(end);
  response.uncork();
  const patience = clock.timer(lingerMs);
  const sent = new Promise<void>((resolve) => request.once('end', resolve).once('close', resolve));
  request.resume();
  await Promise.race([sent, patience.done]);
  patience.cancel();
  response.end();
}

const brokenStatuses: Record<string, number> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

export interface BrokenRequests {
  /** Told of each request, so that no answer of another one is mistaken for its. */
  answering(socket: Duplex, response: ServerResponse): void;
  /** For the server's `clientError`: bytes that are no HTTP request, or not within their time. */
  refuse(error: Error & { code?: string }, socket: Duplex): void;
}

/** Whether a refusal written now would be read as the answer to an earlier request. */
function isOwed(latest: ServerResponse, socket: Duplex): boolean {
  if (latest.writableFinished) return false;
  // A broken body is its own request's fault, where that one is next in line and not answered yet.
  return latest.req.complete || latest.socket !== socket || latest.headersSent;
}

export function createBrokenRequests(clock: Clock): BrokenRequests {
  const latest = new WeakMap<Duplex, ServerResponse>();
  const waiting = new WeakSet<Duplex>();
  const refuse: BrokenRequests['refuse'] = (error, socket) => {
    // The parser complains again of each piece that follows.
    if (socket.writableEnded || waiting.has(socket)) return;
    const before = latest.get(socket);
    if (!socket.writable || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    if (before !== undefined && isOwed(before, socket)) {
      waiting.add(socket);
      before.once('finish', () => {
        waiting.delete(socket);
        refuse(error, socket);
      });
      return;
    }
    const status = brokenStatuses[error.code ?? ''] ?? 400;
    const body = JSON.stringify({ error: `no valid HTTP request: ${error.message}` });
    const code = status === 408 ? 'body-timeout' : 'input-invalid';
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\nx-lepton-code: ${code}\r\nconnection: close\r\n\r\n${body}`,
    );
    const patience = clock.timer(lingerMs);
    socket.once('close', () => patience.cancel());
    socket.resume();
    void patience.done.then(() => socket.destroy());
  };
  return { answering: (socket, response) => void latest.set(socket, response), refuse };
}
