// Why: a request for inference that says nothing unusual and comes without delay is read from its connection and
// answered here, for half of what node:http takes. Anything else on a connection, and all that follows it there, is
// node:http's: it gets the bytes as they came. Trusts: fast-head.ts for what is plain.
// Must never: answer a request that did not come whole, answer two at once on one connection, or keep a byte from
// node:http that is its.

import { STATUS_CODES, validateHeaderValue } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import type { InputAhead } from '../inference/process.ts';
import type { Answer, ClientMemory } from './answer.ts';
import type { Body, Gathering } from './body.ts';
import { Departure } from './departure.ts';
import { type FastHead, readFastHead } from './fast-head.ts';
import { asText, type Parcel, parcelOf, textBytesMax } from './send.ts';

const headBytesMax = 4 * 1024;
/** A body that is not whole by then is node:http's, which has patience and words for it. */
const bodyWithinMs = 1_000;
/** Between two looks at who has said nothing for too long. */
const lookMsMax = 2_000;
const headEnd = Buffer.from('\r\n\r\n', 'latin1');
const nothing: Buffer = Buffer.alloc(0);

/** A body on its way to where it is used. */
export interface BodyAhead {
  /** So many bytes of it are there. */
  ready(bytes: number): void;
  /** For whoever answers. */
  input: InputAhead;
}

export interface FastRequest {
  head: FastHead;
  body: Body;
  ahead: InputAhead | undefined;
  departure: Departure;
  memory: ClientMemory;
}

export interface FastPathOptions {
  clock: Clock;
  /** Whether such a request is answered here; else node:http gets it. */
  takes(head: FastHead): boolean;
  answer(request: FastRequest): Promise<Answer>;
  /** Memory for a body that comes in pieces; null where it need not come, or is longer than is answered here. */
  gather(head: FastHead): Gathering | null;
  /** Takes a body, which comes into this memory, on its way at once; null where that gains nothing. */
  ahead(head: FastHead, whole: Uint8Array): BodyAhead | null;
  /** Whether connections are to end with their next answer. */
  closing(): boolean;
  /** Gives a connection away, with what is unread. Nothing here touches it afterwards. */
  toNode(socket: Socket): void;
  /** Says why, as on a connection of node:http, and ends it. */
  refuse(error: Error & { code?: string }, socket: Socket): void;
  /** An answer could not be sent; its connection is ended. */
  failed(thrown: unknown, path: string): void;
  /** How long a connection may say nothing before its first request, and between two. */
  silentMs: number;
  idleMs: number;
}

export interface FastPath {
  /** Takes a connection that was just made. */
  take(socket: Socket): void;
  /** Ends connections: those on which nothing is under way, or all. */
  end(which: 'idle' | 'all'): void;
}

export function createFastPath(options: FastPathOptions): FastPath {
  const { clock, silentMs, idleMs } = options;
  const open = new Set<Connection>();
  const terms = { ...options, headText: createHeadText(options) };
  const lookMs = Math.min(lookMsMax, silentMs / 2, idleMs / 2);
  let look: Timer | null = null;
  /** One timer for all connections, while there are any. */
  const watch = (): void => {
    if (look !== null || open.size === 0) return;
    const timer = clock.timer(lookMs);
    look = timer;
    void timer.done.then(() => {
      look = null;
      const nowMs = clock.mono();
      for (const connection of open) connection.endQuiet(nowMs);
      watch();
    });
  };
  return {
    take: (socket) => {
      const connection: Connection = new Connection(socket, terms, () => {
        open.delete(connection);
        if (open.size > 0) return;
        look?.cancel();
        look = null;
      });
      open.add(connection);
      watch();
    },
    end: (which) => {
      for (const connection of open) connection.endNow(which);
    },
  };
}

type HeadText = (parcel: Parcel, last: boolean) => string;

function headerLines(headers: Record<string, string | number>): string {
  let text = '';
  for (const name in headers) {
    const value = String(headers[name]);
    validateHeaderValue(name, value);
    text += `${name}: ${value}\r\n`;
  }
  return text;
}

/** What stands before the body of an answer, with the headers that node:http adds by itself. */
function createHeadText({ clock, idleMs }: FastPathOptions): HeadText {
  const open = headerLines({
    Connection: 'keep-alive',
    'Keep-Alive': `timeout=${Math.floor(idleMs / 1_000)}`,
  });
  const closed = headerLines({ Connection: 'close' });
  let dateSecond = Number.NaN;
  let date = '';
  return ({ status, headers }, last) => {
    const second = Math.floor(clock.wall() / 1_000);
    if (second !== dateSecond) date = headerLines({ Date: new Date(second * 1_000).toUTCString() });
    dateSecond = second;
    const lines = headerLines(headers) + date + (last ? closed : open);
    return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines}\r\n`;
  };
}

type Terms = FastPathOptions & { headText: HeadText };

interface Coming {
  head: FastHead;
  body: Gathering;
  /** Undefined before it is known where the body will lie. */
  ahead: BodyAhead | null | undefined;
}

class Connection {
  readonly #socket: Socket;
  readonly #terms: Terms;
  /** Called once it is closed or given away. */
  readonly #left: () => void;
  readonly #departure = new Departure();
  readonly #memory: ClientMemory = { last: null };
  /** What follows the request that is under way. */
  #kept = nothing;
  /** The request whose body still comes. */
  #coming: Coming | null = null;
  #patience: Timer | null = null;
  #state: 'waiting' | 'answering' | 'given-away' = 'waiting';
  #asked = false;
  /** Since when it says nothing. */
  #quietSinceMs: number;
  /** Heads of one client are the same again and again: the last one with its empty line, and what it says. */
  #headBytes = nothing;
  #head: FastHead | null = null;

  constructor(socket: Socket, terms: Terms, left: () => void) {
    this.#socket = socket;
    this.#terms = terms;
    this.#left = left;
    this.#quietSinceMs = terms.clock.mono();
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('error', this.#onError);
    socket.on('close', this.#onClose);
  }

  endNow(which: 'idle' | 'all'): void {
    if (which === 'idle' && this.#coming !== null) this.#giveAwayBody(this.#coming, nothing);
    else if (which === 'all' || this.#state === 'waiting') this.#socket.destroy();
  }

  /** Who asked something before is closed without a word, as pools of clients expect. */
  endQuiet(nowMs: number): void {
    if (this.#state !== 'waiting' || this.#coming !== null) return;
    const { silentMs, idleMs } = this.#terms;
    if (nowMs - this.#quietSinceMs < (this.#asked ? idleMs : silentMs)) return;
    if (this.#asked) this.#socket.destroy();
    else this.#refuse('no request came', 'ERR_HTTP_REQUEST_TIMEOUT');
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#coming !== null) this.#add(this.#coming, chunk);
    else if (this.#state === 'waiting') this.#consider(chunk);
    else {
      // Its turn comes after the answer; what follows it waits in the system.
      this.#kept = this.#kept.length === 0 ? chunk : Buffer.concat([this.#kept, chunk]);
      this.#socket.pause();
    }
  };

  /** Who sends nothing more is gone, as for node:http: whatever was asked need not be answered. */
  readonly #onEnd = (): void => {
    if (this.#coming === null) this.#socket.end();
    else this.#refuse('it ends in the middle', 'HPE_INVALID_EOF_STATE');
  };

  readonly #onError = (): void => {
    this.#socket.destroy();
  };

  readonly #onClose = (): void => {
    this.#stopComing();
    this.#left();
    this.#departure.abort();
  };

  #refuse(message: string, code: string): void {
    this.#leave();
    this.#terms.refuse(Object.assign(new Error(message), { code }), this.#socket);
  }

  #leave(): void {
    const socket = this.#socket;
    this.#state = 'given-away';
    this.#stopComing();
    this.#kept = nothing;
    this.#left();
    socket.off('data', this.#onData);
    socket.off('end', this.#onEnd);
    socket.off('close', this.#onClose);
  }

  #giveAway(bytes: Buffer): void {
    const socket = this.#socket;
    this.#leave();
    // Whatever listens next gets these bytes first and nothing before it listens.
    socket.pause();
    socket.unshift(bytes);
    this.#terms.toNode(socket);
    socket.off('error', this.#onError);
    socket.resume();
  }

  /** `bytes` begin where a request begins. */
  #consider(bytes: Buffer): void {
    this.#kept = nothing;
    const head = this.#readHead(bytes);
    if (head === null || !this.#terms.takes(head)) {
      this.#giveAway(bytes);
      return;
    }
    const bodyAt = this.#headBytes.length;
    const end = bodyAt + head.bodyBytes;
    if (bytes.length < end) {
      this.#beginBody(head, bytes);
      return;
    }
    if (bytes.length > end) this.#kept = bytes.subarray(end);
    const body = bytes.subarray(bodyAt, end);
    void this.#serve(head, { bytes: body, done: () => undefined });
  }

  #beginBody(head: FastHead, bytes: Buffer): void {
    const body = this.#terms.gather(head);
    if (body === null) {
      this.#giveAway(bytes);
      return;
    }
    const coming: Coming = { head, body, ahead: undefined };
    this.#coming = coming;
    const patience = this.#terms.clock.timer(bodyWithinMs);
    this.#patience = patience;
    void patience.done.then(() => {
      if (this.#coming === coming) this.#giveAwayBody(coming, nothing);
    });
    this.#add(coming, bytes.subarray(this.#headBytes.length));
  }

  #add(coming: Coming, chunk: Buffer): void {
    const { head, body } = coming;
    const missing = head.bodyBytes - body.length;
    if (!body.add(chunk.length > missing ? chunk.subarray(0, missing) : chunk)) {
      this.#giveAwayBody(coming, chunk);
      return;
    }
    if (body.length < head.bodyBytes) {
      this.#takeAhead(coming);
      return;
    }
    this.#patience?.cancel();
    this.#coming = null;
    if (chunk.length > missing) this.#kept = chunk.subarray(missing);
    void this.#serve(head, { bytes: body.bytes(), done: () => body.release() }, coming.ahead?.input);
  }

  #takeAhead(coming: Coming): void {
    const { head, body } = coming;
    if (coming.ahead === undefined) {
      const whole = body.whole();
      if (whole !== null) coming.ahead = this.#terms.ahead(head, whole);
    }
    coming.ahead?.ready(body.length);
  }

  #giveAwayBody({ body }: Coming, chunk: Buffer): void {
    this.#giveAway(Buffer.concat([this.#headBytes, body.bytes(), chunk]));
  }

  #stopComing(): void {
    this.#patience?.cancel();
    this.#coming?.ahead?.input.cancel();
    this.#coming?.body.release();
    this.#coming = null;
  }

  #readHead(bytes: Buffer): FastHead | null {
    const known = this.#headBytes.length;
    if (
      this.#head !== null &&
      bytes.length >= known &&
      bytes.compare(this.#headBytes, 0, known, 0, known) === 0
    )
      return this.#head;
    const end = bytes.subarray(0, headBytesMax).indexOf(headEnd);
    const head = end < 0 ? null : readFastHead(bytes.toString('latin1', 0, end));
    if (head === null) return null;
    this.#head = head;
    // A copy: a view would hold on to the body as well.
    this.#headBytes = Buffer.from(bytes.subarray(0, end + headEnd.length));
    return head;
  }

  async #serve(head: FastHead, body: Body, ahead?: InputAhead): Promise<void> {
    this.#state = 'answering';
    this.#asked = true;
    try {
      const request = { head, body, ahead, departure: this.#departure, memory: this.#memory };
      const answer = await this.#terms.answer(request);
      const parcel = parcelOf(answer, head.headers['accept-encoding']);
      this.#reply(parcel instanceof Promise ? await parcel : parcel, head.close);
    } catch (thrown) {
      // Half an answer is worse than none.
      this.#terms.failed(thrown, head.path);
      this.#socket.destroy();
    }
  }

  #reply(parcel: Parcel, close: boolean): void {
    const socket = this.#socket;
    if (!socket.writable) return;
    const last = close || this.#terms.closing();
    const head = this.#terms.headText(parcel, last);
    let taken = true;
    if (parcel.bytes <= textBytesMax) {
      let text = head;
      for (const piece of parcel.pieces) text += asText(piece);
      taken = socket.write(text, 'latin1');
    } else {
      // One write to the socket: head and pieces together.
      socket.cork();
      socket.write(head, 'latin1');
      for (const piece of parcel.pieces) taken = socket.write(piece);
      socket.uncork();
    }
    if (last) socket.end();
    else if (taken) this.#next();
    // The next one is not answered before this one was read.
    else socket.once('drain', () => this.#next());
  }

  #next(): void {
    const socket = this.#socket;
    if (!socket.writable) return;
    this.#state = 'waiting';
    this.#quietSinceMs = this.#terms.clock.mono();
    if (this.#kept.length === 0) return;
    socket.resume();
    this.#consider(this.#kept);
  }
}
