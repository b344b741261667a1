// Why: holds that the fleet's certificates are what Node's TLS and the broker take them for, and that a
// certificate request is never believed. Trusts: node:crypto as the second opinion.
// Must never: compare the library with itself only.

import assert from 'node:assert/strict';
import { createPublicKey, verify, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, spkiFromPublicKey } from '../../shared/crypto/spki.ts';
import {
  issueDeviceCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
  makeDeviceRequest,
  readDeviceRequest,
} from '../../shared/host/certificates.ts';
import { isFleetError } from '../broker/fault.ts';
import { newAuthority, newClaim, newDevice, randomSeed } from '../broker/fleet.ts';

test('certificates: issuer, signature, names, dates and uses as Node reads them', async () => {
  const ca = await newAuthority('Lepton Fleet north');
  const authority = new X509Certificate(ca.certificatePem);
  assert.equal(authority.ca, true);
  assert.equal(authority.subject, 'CN=Lepton Fleet north');
  assert.ok(authority.verify(authority.publicKey));

  const device = await newDevice(ca);
  const certificate = new X509Certificate(device.cert);
  assert.equal(certificate.subject, `CN=${device.id}`);
  assert.ok(certificate.checkIssued(authority) && certificate.verify(authority.publicKey));
  assert.equal(certificate.ca, false);
  assert.deepEqual(certificate.keyUsage, ['1.3.6.1.5.5.7.3.2']);
  assert.equal(certificate.publicKey.asymmetricKeyType, 'ed25519');

  const claim = await newClaim(ca);
  assert.equal(new X509Certificate(claim.cert).subject, `CN=${claim.id}`);

  const server = new X509Certificate(
    await issueServerCertificate({
      ca,
      seed: randomSeed(),
      hosts: ['fleet.example', '10.0.0.7', '::1'],
      notBeforeMs: 0,
      notAfterMs: 1e12,
    }),
  );
  assert.equal(server.checkHost('fleet.example'), 'fleet.example');
  assert.equal(server.checkHost('other.example'), undefined);
  assert.equal(server.checkIP('10.0.0.7'), '10.0.0.7');
  assert.equal(server.checkIP('::1'), '::1');
  assert.equal(Date.parse(server.validTo), 1e12);
});

test('dates never become shorter than asked, and beyond 2049 they are still dates', async () => {
  const seed = randomSeed();
  const notAfterMs = Date.UTC(2060, 0, 1) + 1;
  const pem = await makeCertificateAuthority({
    seed,
    name: 'long',
    notBeforeMs: 1_700_000_000_999,
    notAfterMs,
  });
  const certificate = new X509Certificate(pem);
  assert.equal(Date.parse(certificate.validFrom), 1_700_000_000_000);
  assert.equal(Date.parse(certificate.validTo), Date.UTC(2060, 0, 1) + 1000);
});

test('a device certificate is issued for the id of its own key only', async () => {
  const ca = await newAuthority();
  const dates = { notBeforeMs: 0, notAfterMs: 1e12 };
  const publicKey = publicKeyOf(randomSeed());
  await assert.rejects(
    issueDeviceCertificate({ ca, publicKey, deviceId: '0'.repeat(32), ...dates }),
    isFleetError('internal'),
  );
  await assert.rejects(
    issueDeviceCertificate({
      ca: { ...ca, seed: randomSeed() },
      publicKey,
      deviceId: deviceIdOf(publicKey),
      ...dates,
    }),
    isFleetError('internal'),
  );
});

test('a certificate request gives the key that signed it', async () => {
  const seed = randomSeed();
  const request = await readDeviceRequest(await makeDeviceRequest(seed));
  assert.ok(request.ok);
  assert.deepEqual(request.value.publicKey, publicKeyOf(seed));
  assert.equal(request.value.deviceId, deviceIdOf(publicKeyOf(seed)));
});

function toPem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
}

function fromPem(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
}

test('no single flipped bit of a certificate request is believed', async () => {
  const der = fromPem(await makeDeviceRequest(randomSeed()));
  let refused = 0;
  for (let at = 0; at < der.length; at += 1) {
    const changed = Buffer.from(der);
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
    const read = await readDeviceRequest(toPem(changed));
    if (!read.ok && read.refusal.code === 'enrolment-request-invalid') refused += 1;
  }
  assert.equal(refused, der.length);
});

test('a request for somebody else’s key, a weak key or nothing at all is refused', async () => {
  const own = fromPem(await makeDeviceRequest(randomSeed()));
  const theirs = Buffer.from(spkiFromPublicKey(publicKeyOf(randomSeed())));
  const at = own.indexOf(theirs.subarray(0, 12));
  assert.ok(at > 0);
  const stolen = Buffer.from(own);
  theirs.copy(stolen, at);
  // The neutral element as key: the signature R = neutral element, S = 0 fits every message.
  const weak = Buffer.from(own);
  const neutral = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
  const weakSpki = Buffer.concat([theirs.subarray(0, 12), neutral]);
  weakSpki.copy(weak, at);
  const signature = Buffer.concat([neutral, Buffer.alloc(32)]);
  signature.copy(weak, weak.length - 64);
  const weakKey = createPublicKey({ key: weakSpki, format: 'der', type: 'spki' });
  assert.ok(verify(null, Buffer.from('any message'), weakKey, signature), 'OpenSSL believes it; we must not');
  for (const text of [
    toPem(stolen),
    toPem(weak),
    toPem(Buffer.alloc(0)),
    '',
    'hello',
    toPem(Buffer.from('3003020100', 'hex')),
  ]) {
    const read = await readDeviceRequest(text);
    assert.equal(read.ok ? 'accepted' : read.refusal.code, 'enrolment-request-invalid');
  }
});
