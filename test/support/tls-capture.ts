// Why: a test that captured every byte of a TLS 1.3 connection reads what went through it, with the secrets that Node writes for
// that purpose (`--tls-keylog`). Trusts: the key log; each record proves itself by its tag.
// Must never: pass over a record that it cannot read. Source: RFC 8446, sections 5.1 to 5.3, 7.1 to 7.3; NSS key log format.

import { createDecipheriv, createHmac } from 'node:crypto';

/** What one side sent over one connection, in order. */
export interface Captured {
  client: Uint8Array;
  server: Uint8Array;
}

const suites = {
  4865: { name: 'aes-128-gcm', hash: 'sha256', keyBytes: 16 },
  4866: { name: 'aes-256-gcm', hash: 'sha384', keyBytes: 32 },
  4867: { name: 'chacha20-poly1305', hash: 'sha256', keyBytes: 32 },
} as const;
type Suite = (typeof suites)[keyof typeof suites];

const kinds = { handshake: 22, data: 23 } as const;
const messages = { clientHello: 1, serverHello: 2, finished: 20, keyUpdate: 24 } as const;
const ivBytes = 12;
const tagBytes = 16;

/** By label, then by the client's random in hex. */
export type KeyLog = ReadonlyMap<string, Buffer>;

export function readKeyLog(text: string): KeyLog {
  const secrets = new Map<string, Buffer>();
  for (const line of text.split('\n')) {
    const [label, random, secret] = line.trim().split(' ');
    if (label !== undefined && random !== undefined && secret !== undefined)
      secrets.set(`${label} ${random}`, Buffer.from(secret, 'hex'));
  }
  return secrets;
}

/** HKDF-Expand-Label with an empty context; one block is enough for every length here. */
function expandLabel(suite: Suite, secret: Buffer, label: string, bytes: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`);
  const info = Buffer.concat([Buffer.from([0, bytes, name.length]), name, Buffer.from([0, 1])]);
  return createHmac(suite.hash, secret).update(info).digest().subarray(0, bytes);
}

interface Keys {
  secret: Buffer;
  key: Buffer;
  iv: Buffer;
  sequence: number;
}

const keysOf = (suite: Suite, secret: Buffer): Keys => ({
  ...{ secret, sequence: 0, key: expandLabel(suite, secret, 'key', suite.keyBytes) },
  iv: expandLabel(suite, secret, 'iv', ivBytes),
});

function decrypt(suite: Suite, keys: Keys, record: Buffer): { kind: number; plain: Buffer } {
  const nonce = Buffer.from(keys.iv);
  const number = Buffer.alloc(ivBytes);
  number.writeUInt32BE(keys.sequence, ivBytes - 4);
  for (const [at, byte] of number.entries()) nonce[at] = (nonce[at] ?? 0) ^ byte;
  keys.sequence += 1;
  const options = { authTagLength: tagBytes } as const;
  const decipher =
    suite.name === 'chacha20-poly1305'
      ? createDecipheriv(suite.name, keys.key, nonce, options)
      : createDecipheriv(suite.name, keys.key, nonce, options);
  const header = record.subarray(0, 5);
  const end = record.length - tagBytes;
  decipher.setAAD(header, { plaintextLength: end - 5 });
  decipher.setAuthTag(record.subarray(end));
  const inner = Buffer.concat([decipher.update(record.subarray(5, end)), decipher.final()]);
  let last = inner.length - 1;
  while (last >= 0 && inner[last] === 0) last -= 1;
  return { kind: inner[last] ?? 0, plain: inner.subarray(0, last) };
}

/** Whole records; what is left at the end was under way when the line was cut. */
function* recordsOf(bytes: Uint8Array): Generator<Buffer> {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 5 <= all.length; ) {
    const end = at + 5 + all.readUInt16BE(at + 3);
    if (end > all.length) return;
    yield all.subarray(at, end);
    at = end;
  }
}

/** The hello that opens one side's bytes; null where it never came. */
function helloOf(bytes: Uint8Array, type: number): Buffer | null {
  for (const record of recordsOf(bytes))
    if (record[0] === kinds.handshake && record[5] === type) return record.subarray(5);
  return null;
}

const randomOf = (hello: Buffer): string => hello.subarray(6, 38).toString('hex');

function sideOf(bytes: Uint8Array, suite: Suite, secretOf: (of: string) => Buffer): Buffer {
  let keys = keysOf(suite, secretOf('HANDSHAKE_TRAFFIC_SECRET'));
  let isOpen = false;
  const plain: Buffer[] = [];
  for (const record of recordsOf(bytes)) {
    if (record[0] !== kinds.data) continue;
    const { kind, plain: inner } = decrypt(suite, keys, record);
    if (kind === kinds.data) plain.push(inner);
    if (kind !== kinds.handshake) continue;
    for (let at = 0; at + 4 <= inner.length; at += 4 + inner.readUIntBE(at + 1, 3)) {
      if (inner[at] === messages.finished && !isOpen) {
        isOpen = true;
        keys = keysOf(suite, secretOf('TRAFFIC_SECRET_0'));
      } else if (inner[at] === messages.keyUpdate)
        keys = keysOf(suite, expandLabel(suite, keys.secret, 'traffic upd', keys.secret.length));
    }
  }
  return Buffer.concat(plain);
}

/** What an application sent each way; null where the handshake did not come to its end. Throws where a record does not open. */
export function openCaptured(
  { client, server }: Captured,
  log: KeyLog,
): { client: Buffer; server: Buffer } | null {
  const clientHello = helloOf(client, messages.clientHello);
  const serverHello = helloOf(server, messages.serverHello);
  if (clientHello === null || serverHello === null) return null;
  const random = randomOf(clientHello);
  const sessionBytes = serverHello[38] ?? 0;
  const suite = suites[serverHello.readUInt16BE(39 + sessionBytes) as keyof typeof suites];
  if (suite === undefined) throw new Error('a cipher suite that is not of TLS 1.3');
  const secretOf =
    (side: string) =>
    (of: string): Buffer => {
      const secret = log.get(`${side}_${of} ${random}`);
      if (secret === undefined) throw new Error(`the key log has no ${side}_${of} of a connection`);
      return secret;
    };
  return {
    client: sideOf(client, suite, secretOf('CLIENT')),
    server: sideOf(server, suite, secretOf('SERVER')),
  };
}
