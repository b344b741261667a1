// Why: `npm run chaos`: the promise of the outbox at full size. Exits 1 on a miss. Trusts: chaos.ts.
// Must never: call a run good in which nothing was broken.

import { parseArgs } from 'node:util';
import { chaos } from './chaos.ts';

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    records: { type: 'string', default: '200000' },
    agents: { type: 'string', default: '3' },
    seed: { type: 'string', default: '1' },
    /** `mosquitto`: Debian's, which is killed as well. */
    broker: { type: 'string', default: 'embedded' },
  },
});
const outcome = await chaos({
  agents: Number(values.agents),
  records: Number(values.records),
  recordsPerRequest: 100,
  kills: Number(values.kills),
  killEveryMs: 1_200,
  seed: Number(values.seed),
  broker: values.broker === 'mosquitto' ? 'mosquitto' : 'embedded',
  say: (line) => void process.stdout.write(`${line}\n`),
});
process.stdout.write(`${JSON.stringify(outcome, null, 2)}\n`);
const { lost, duplicated, dropped, agentKills, registryKills, cuts } = outcome;
process.exitCode =
  lost > dropped || duplicated > 0 || agentKills === 0 || registryKills === 0 || cuts === 0 ? 1 : 0;
