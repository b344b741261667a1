// Why: holds the broker's two judges of raw input: who a certificate names, and how long a packet is.
// Trusts: the certificate library to build what an attacker with the CA's help might hold.
// Must never: need a network.

import assert from 'node:assert/strict';
import { webcrypto, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { identityOf } from '../../registry/broker/connection.ts';
import { identityCheck } from '../../registry/broker/identity.ts';
import { PacketLengths } from '../../registry/broker/packet-guard.ts';
import { retainedStore } from '../../registry/broker/retained.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { type CertificateAuthority, issueServerCertificate } from '../../shared/host/certificates.ts';
import { filterMatches } from '../../shared/wire/topics.ts';
import { newAuthority, newClaim, newDevice } from './fleet.ts';

/** A client certificate signed by the CA with whatever subject. */
async function certificateFor(
  ca: CertificateAuthority,
  subject: Record<string, string[]>[],
): Promise<X509Certificate> {
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'Ed25519' };
  const pkcs8 = x509.PemConverter.decodeFirst(pkcs8PemFromSeed(ca.seed));
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.create(
    {
      subject,
      issuer: new x509.X509Certificate(ca.certificatePem).subjectName,
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
      extensions: [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth])],
    },
    webcrypto,
  );
  return new X509Certificate(certificate.toString('pem'));
}

test('identity: the name must be the id of the certificate’s own key, and the whole subject', async () => {
  const ca = await newAuthority();
  const { identify } = identityCheck(ca.certificatePem);
  const device = await newDevice(ca);
  assert.deepEqual(identify(new X509Certificate(device.cert), Date.now()), {
    ok: true,
    value: { kind: 'device', deviceId: device.id },
  });
  const claim = await newClaim(ca);
  assert.deepEqual(identify(new X509Certificate(claim.cert), Date.now()), {
    ok: true,
    value: { kind: 'claim', claimId: claim.id },
  });
  // The same way of making one, with a subject that is allowed, is let in: what follows fails for its subject.
  assert.ok(identify(await certificateFor(ca, [{ CN: ['claim:aaaaaaaaaaaaaaaaaaaa'] }]), Date.now()).ok);
  const subjects: Record<string, string[]>[][] = [
    [{ CN: [device.id] }],
    [{ CN: ['admin'] }],
    [{ CN: ['claim:UPPER'] }],
    [{ CN: ['claim:aaaaaaaaaaaaaaaaaaaa'] }, { O: ['x'] }],
    [{ O: [device.id] }],
    [{ CN: [`claim:aaaaaaaaaaaaaaaaaaaa\nCN=${device.id}`] }],
  ];
  for (const subject of subjects) {
    const result = identify(await certificateFor(ca, subject), Date.now());
    assert.equal(
      result.ok ? JSON.stringify(result.value) : result.refusal.code,
      'broker-certificate-untrusted',
      JSON.stringify(subject),
    );
  }
  const server = await issueServerCertificate({
    ca,
    seed: device.seed,
    hosts: [device.id],
    notBeforeMs: 0,
    notAfterMs: Date.now() + 1e6,
  });
  assert.equal(identify(new X509Certificate(server), Date.now()).ok, false);
  assert.equal(identify(new X509Certificate(ca.certificatePem), Date.now()).ok, false);
  const foreign = await newDevice(await newAuthority());
  assert.equal(identify(new X509Certificate(foreign.cert), Date.now()).ok, false);
  // Named after the fleet's CA and its key, but signed by another.
  const forged = await certificateFor({ ...ca, seed: (await newAuthority()).seed }, [
    { CN: ['claim:aaaaaaaaaaaaaaaaaaaa'] },
  ]);
  assert.ok(forged.checkIssued(new X509Certificate(ca.certificatePem)));
  assert.equal(identify(forged, Date.now()).ok, false);
  // After the CA's own end nobody comes in, claims included.
  assert.equal(identify(new X509Certificate(claim.cert), Date.now() + 1e12).ok, false);
});

test('identity: client ids', () => {
  const device = { kind: 'device' as const, deviceId: 'd'.repeat(32) };
  const claim = { kind: 'claim' as const, claimId: 'c'.repeat(20) };
  assert.deepEqual(identityOf(device, device.deviceId), device);
  assert.equal(identityOf(device, `${device.deviceId} `), null);
  assert.deepEqual(identityOf(claim, `${claim.claimId}.abcdefgh`), { ...claim, attempt: 'abcdefgh' });
  for (const id of [
    claim.claimId,
    `${claim.claimId}.`,
    `${claim.claimId}.short`,
    `${claim.claimId}.UPPERCASE`,
    `x${claim.claimId}.abcdefgh`,
    `${claim.claimId}.abcdefgh/+`,
  ]) {
    assert.equal(identityOf(claim, id), null, id);
  }
});

/** An MQTT packet with `length` bytes after its fixed header. */
function packet(length: number): Buffer {
  const head = [0x30];
  let left = length;
  do {
    head.push((left % 128) | (left > 127 ? 0x80 : 0));
    left = Math.floor(left / 128);
  } while (left > 0);
  return Buffer.concat([Buffer.from(head), Buffer.alloc(length, 0xff)]);
}

test('packet lengths: however a stream is cut, only the packet that is too long is refused', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 3000 }), { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1 }),
      fc.boolean(),
      (sizes, cuts, tooLong) => {
        const bytesMax = 3000;
        const stream = Buffer.concat([
          ...sizes.map(packet),
          tooLong ? packet(bytesMax + 1) : Buffer.alloc(0),
        ]);
        const lengths = new PacketLengths(bytesMax);
        let accepted = true;
        for (let at = 0, n = 0; at < stream.length && accepted; n += 1) {
          const step = cuts[n % cuts.length] ?? 1;
          accepted = lengths.accept(stream.subarray(at, at + step));
          at += step;
        }
        assert.equal(accepted, !tooLong);
      },
    ),
  );
});

test('packet lengths: a length of more than four bytes is malformed', () => {
  const lengths = new PacketLengths(2 ** 40);
  assert.equal(lengths.accept(Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff])), false);
});

test('filters match as MQTT 3.1.1 §4.7 says', () => {
  const cases: [string, string, boolean][] = [
    ['a/b', 'a/b', true],
    ['a/+', 'a/b', true],
    ['a/+', 'a/b/c', false],
    ['a/#', 'a/b/c', true],
    ['a/#', 'a', true],
    ['#', 'a/b', true],
    ['#', '$SYS/x', false],
    ['+/x', '$SYS/x', false],
    ['+/b/+', 'a/b/c', true],
    ['a/b', 'a/b/', false],
    ['a/+', 'a/', true],
  ];
  for (const [filter, topic, expected] of cases)
    assert.equal(filterMatches(filter, topic), expected, `${filter} ${topic}`);
});

test('retained: by exact topic, by wildcard, removed by an empty payload', () => {
  const store = retainedStore();
  store.set({ topic: 'a/1', payload: Buffer.from('x'), qos: 1 });
  store.set({ topic: 'a/2', payload: Buffer.from('y'), qos: 1 });
  assert.equal(store.get('a/1')?.payload.toString(), 'x');
  assert.equal(store.get('a/+'), undefined);
  assert.equal(store.matching('a/+').length, 2);
  assert.equal(store.matching('a/2').length, 1);
  store.set({ topic: 'a/1', payload: Buffer.alloc(0), qos: 1 });
  assert.deepEqual(
    store.matching('#').map(({ topic }) => topic),
    ['a/2'],
  );
});
