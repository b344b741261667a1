// Why: how a registry and its fleet come to a broker of another maker: certificate, group, and what follows from its loss.
// Trusts: registry/broker/external.ts for the connection. Must never: wait for the broker: the registry serves without it.

import type { ExternalBroker } from './broker/external.ts';
import { connectExternalBroker } from './broker/external.ts';
import { makeRegistryIdentity } from './broker/registry-identity.ts';
import type { RegistryCore } from './core.ts';
import type { Fleet } from './fleet/fleet.ts';
import { repeat } from './open-core.ts';
import type { Settings } from './store/settings.ts';

export async function joinBroker(parts: {
  core: RegistryCore;
  fleet: Pick<Fleet, 'mayConnect' | 'onRefused' | 'forgetPresence'>;
  settings: Settings;
  url: string;
  closers: (() => Promise<void>)[];
}): Promise<ExternalBroker> {
  const { core, fleet, settings, url, closers } = parts;
  const { authorities, clock, entropy, log, limits, region } = core;
  let identity = await makeRegistryIdentity(core);
  // One for all processes of this store. It is no key: who learns it could take messages away, not read them.
  const drawn = Buffer.from(entropy.bytes(12)).toString('hex');
  const group = await settings.keep('broker.group', `lepton-${region}-${drawn}`);
  const broker = connectExternalBroker({
    url,
    group,
    credentials: identity.credentials,
    clock,
    entropy,
    log,
    mayConnect: fleet.mayConnect,
    onRefused: fleet.onRefused,
    onLost: fleet.forgetPresence,
  });
  closers.push(() => broker.close());
  const renew = async (): Promise<void> => {
    identity = await makeRegistryIdentity(core);
    broker.use(identity.credentials);
  };
  const unhook = authorities.onChange(() => {
    renew().catch((thrown: unknown) =>
      log.emit('error', 'registry.failed', { detail: `its certificate for the broker: ${String(thrown)}` }),
    );
  });
  closers.push(async () => void unhook());
  const work = async (): Promise<void> => {
    if (clock.wall() >= identity.renewAtMs) await renew();
  };
  closers.push(repeat({ clock, everyMs: limits.serverCertificateEveryMs, work, log }));
  return broker;
}
