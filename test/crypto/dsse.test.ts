// Why: an envelope says who signed which kind of object. Trusts: the DSSE specification's example of PAE.
// Must never: let one signature count twice or one kind of object pass for another.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { openEnvelope, preAuthEncoding, signEnvelope } from '../../shared/crypto/dsse.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { type Envelope, envelopeSchema } from '../../shared/wire/messages.ts';

const signer = (fill: number): ReturnType<typeof signerFromSeed> =>
  signerFromSeed(new Uint8Array(32).fill(fill), 'node');
const [alice, bob, eve] = [signer(1), signer(2), signer(3)];
const payload = new TextEncoder().encode('hello world');
const codeOf = (result: ReturnType<typeof openEnvelope>): string => (result.ok ? 'ok' : result.refusal.code);
const open = (envelope: Envelope, keys = [alice.publicKey, bob.publicKey], threshold = 1): string =>
  codeOf(openEnvelope(envelope, 'type/a', keys, threshold, 'report-signature-invalid'));

describe('DSSE', () => {
  it('encodes the specification’s example', () => {
    const encoded = preAuthEncoding('http://example.com/HelloWorld', payload);
    assert.equal(Buffer.from(encoded).toString(), 'DSSEv1 29 http://example.com/HelloWorld 11 hello world');
    assert.ok(
      Buffer.from(preAuthEncoding('é', payload)).toString().startsWith('DSSEv1 2 é 11 '),
      'bytes, not characters',
    );
  });

  it('opens what was signed and validates against the wire schema', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const envelope = envelopeSchema.parse(signEnvelope('type/a', bytes, [alice, bob]));
        const opened = openEnvelope(envelope, 'type/a', [bob.publicKey, alice.publicKey], 2);
        assert.deepEqual(opened, { ok: true, value: new Uint8Array(bytes) });
      }),
      { numRuns: 30 },
    );
  });

  it('binds the payload type', () => {
    const envelope = signEnvelope('type/b', payload, [alice]);
    assert.equal(open(envelope), 'envelope-malformed');
    assert.equal(open({ ...envelope, payloadType: 'type/a' }), 'report-signature-invalid');
  });

  it('refuses strangers, changed payloads and missing signatures', () => {
    const envelope = signEnvelope('type/a', payload, [alice]);
    assert.equal(open(envelope), 'ok');
    assert.equal(open(signEnvelope('type/a', payload, [eve])), 'report-signature-invalid');
    assert.equal(
      open({ ...envelope, payload: Buffer.from('hello worle').toString('base64') }),
      'report-signature-invalid',
    );
    assert.equal(open({ ...envelope, signatures: [] }), 'report-signature-invalid');
    assert.equal(open(envelope, []), 'report-signature-invalid');
    assert.equal(
      codeOf(openEnvelope({ ...envelope, signatures: [] }, 'type/a', [alice.publicKey], 1)),
      'envelope-malformed',
    );
  });

  it('counts keys, not signatures', () => {
    const once = signEnvelope('type/a', payload, [alice]);
    const twice = { ...once, signatures: [...once.signatures, ...once.signatures] };
    assert.equal(open(twice, [alice.publicKey, bob.publicKey], 2), 'report-signature-invalid');
    assert.equal(open(twice, [alice.publicKey, alice.publicKey], 2), 'report-signature-invalid');
    const renamed = signEnvelope('type/a', payload, [{ ...alice, keyId: bob.keyId }, alice]);
    assert.equal(open(renamed, [alice.publicKey, bob.publicKey], 2), 'report-signature-invalid');
    assert.equal(
      open(signEnvelope('type/a', payload, [bob, alice]), [alice.publicKey, bob.publicKey], 2),
      'ok',
    );
    assert.equal(open(once, [alice.publicKey], 0), 'report-signature-invalid');
  });

  it('is not stopped by a wrong signature beside the right one', () => {
    const good = signEnvelope('type/a', payload, [alice]);
    const [signature] = good.signatures;
    assert.ok(signature);
    const wrong = { keyid: alice.keyId, sig: Buffer.alloc(64, 9).toString('base64') };
    assert.equal(open({ ...good, signatures: [wrong, signature] }), 'ok');
  });

  it('reads only one spelling of base64', () => {
    const envelope = signEnvelope('type/a', payload, [alice]);
    assert.equal(open({ ...envelope, payload: envelope.payload.replace(/=+$/, '') }), 'envelope-malformed');
    assert.equal(open({ ...envelope, payload: `${envelope.payload}\n` }), 'envelope-malformed');
  });
});
