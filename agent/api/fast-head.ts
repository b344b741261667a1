// Why: the head of a plain request for inference, as nearly every client sends it, read in a few microseconds.
// Trusts: nothing. Must never: take a head that node:http would refuse, or read one as something else than it does:
// whatever is not plainly this is left to it.

export interface FastHead {
  path: string;
  /** Names in lower case, each once, as node:http gives them. */
  headers: Readonly<Record<string, string>>;
  bodyBytes: number;
  /** The client wants the connection closed after the answer. */
  close: boolean;
}

const requestLine = /^POST (\/v2\/models\/[\w.-]{1,128}(?:\/versions\/[\w.-]{1,64})?\/infer) HTTP\/1\.1$/;
/** White space around a value does not belong to it. Only what is printable, so that no parser can differ. */
const headerLine = /^([A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*$/;
const lengthText = /^(?:0|[1-9]\d{0,8})$/;

/** Headers that are understood here, or are of no weight for how a request is read; another one may be of some. */
const known: ReadonlySet<string> = new Set([
  'accept',
  'accept-encoding',
  'accept-language',
  'authorization',
  'cache-control',
  'connection',
  'content-length',
  'content-type',
  'host',
  'inference-header-content-length',
  'pragma',
  'traceparent',
  'tracestate',
  'user-agent',
  'x-lepton-timeout-ms',
  'x-request-id',
]);

/** `text` is all before the empty line, a character for each byte. Null: node:http is to read it. */
export function readFastHead(text: string): FastHead | null {
  const [first = '', ...lines] = text.split('\r\n');
  const path = requestLine.exec(first)?.[1];
  if (path === undefined) return null;
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const match = headerLine.exec(line);
    const name = match?.[1]?.toLowerCase();
    const value = match?.[2];
    if (name === undefined || value === undefined || !known.has(name) || name in headers) return null;
    headers[name] = value;
  }
  const length = headers['content-length'];
  if (headers['host'] === undefined || length === undefined || !lengthText.test(length)) return null;
  const connection = headers['connection']?.toLowerCase();
  if (connection !== undefined && connection !== 'keep-alive' && connection !== 'close') return null;
  return { path, headers, bodyBytes: Number(length), close: connection === 'close' };
}
