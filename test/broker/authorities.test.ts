// Why: holds that a broker in the middle of a change of authorities shows each device a certificate that this
// device can check, takes certificates of both, and ends what an ended authority issued.
// Trusts: Node's TLS as the device's side. Must never: compare the broker with itself only.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import type { CertificateAuthority } from '../../shared/host/certificates.ts';
import { issueServerCertificate } from '../../shared/host/certificates.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import {
  type Credentials,
  newAuthority,
  newClient,
  newDevice,
  randomSeed,
  startTestBroker,
} from './fleet.ts';

const hourMs = 3_600_000;

/** Oldest first, as the default is the oldest one's. */
async function tlsOf(seed: Uint8Array, authorities: CertificateAuthority[]): Promise<BrokerTls> {
  const certs = await Promise.all(
    authorities.map((ca) =>
      issueServerCertificate({
        ca,
        seed,
        hosts: ['localhost', '127.0.0.1'],
        notBeforeMs: Date.now() - hourMs,
        notAfterMs: Date.now() + hourMs,
      }),
    ),
  );
  return {
    key: pkcs8PemFromSeed(seed),
    cert: certs[0] ?? '',
    ca: authorities.map((ca) => ca.certificatePem).join(''),
    named: new Map(
      authorities.map((ca, index) => [authorityServerName(ca.certificatePem), certs[index] ?? '']),
    ),
  };
}

/** Common name of whoever issued the certificate that is shown for a server name. */
function issuerShown(port: number, servername: string | null): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls(
      {
        host: '127.0.0.1',
        port,
        minVersion: 'TLSv1.3',
        rejectUnauthorized: false,
        ...(servername === null ? {} : { servername }),
      },
      () => {
        const shown = socket.getPeerX509Certificate();
        resolve(shown?.issuer ?? 'nobody');
        socket.destroy();
      },
    );
    socket.once('error', reject);
  });
}

test('the server name picks the authority; no or another one gets the oldest', async () => {
  const [old, fresh] = [await newAuthority('old'), await newAuthority('fresh')];
  const seed = randomSeed();
  const broker = await startTestBroker({ ca: old, tls: await tlsOf(seed, [old, fresh]) });
  assert.equal(await issuerShown(broker.port, authorityServerName(old.certificatePem)), 'CN=old');
  assert.equal(await issuerShown(broker.port, authorityServerName(fresh.certificatePem)), 'CN=fresh');
  assert.equal(await issuerShown(broker.port, 'localhost'), 'CN=old');
  assert.equal(await issuerShown(broker.port, null), 'CN=old');
  // The old one leaves: also who names nobody is shown what is left.
  broker.useTls(await tlsOf(seed, [fresh]));
  assert.equal(await issuerShown(broker.port, authorityServerName(old.certificatePem)), 'CN=fresh');
  assert.equal(await issuerShown(broker.port, null), 'CN=fresh');
  await broker.close();
});

test('devices of both are taken while both are in force, and only those of the one that is left', async (t) => {
  const [old, fresh] = [await newAuthority('old'), await newAuthority('fresh')];
  const seed = randomSeed();
  const broker = await startTestBroker({ ca: old, tls: await tlsOf(seed, [old]) });
  t.after(() => broker.close());
  const before = await newDevice(old);
  const after = await newDevice(fresh);
  const dial = (device: Credentials) => newClient(broker.port, old.certificatePem, device, device.id);
  // Each checks the server by the authority it holds.
  const dialFresh = (device: Credentials) => {
    const socketCa = fresh.certificatePem;
    return newClient(broker.port, socketCa, device, device.id, {
      servername: authorityServerName(socketCa),
    });
  };
  assert.equal(await dial(after).answer, 'closed');
  const staying = dial(before);
  assert.equal(await staying.answer, 0);
  broker.useTls(await tlsOf(seed, [old, fresh]));
  const joined = dialFresh(after);
  assert.equal(await joined.answer, 0);
  await broker.connected.until((one) => one.kind === 'device' && one.deviceId === after.id);
  assert.deepEqual(new Set(broker.connectedDevices()), new Set([before.id, after.id]));

  broker.useTls(await tlsOf(seed, [fresh]));
  await staying.closed;
  assert.deepEqual(broker.connectedDevices(), [after.id]);
  await broker.disconnected.until((one) => one.kind === 'device' && one.deviceId === before.id);
  assert.equal(new X509Certificate(before.cert).issuer, 'CN=old');
  await joined.end();
});
