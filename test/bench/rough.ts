// Why: `npm run soak:link` and `npm run soak:kills`: the promises of delivery on the worst link and under kill -9, at full
// size. Exits 1 on a miss. Trusts: test/delivery/rough.ts. Must never: call a number good that nothing was broken for.

import { overLink, withKills } from '../delivery/rough.ts';
import { open } from '../delivery/rough-scene.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const seed = Number(process.env['LEPTON_SEED'] ?? 1);
/** There and back 300 ms. */
const delayMs = Number(process.env['LEPTON_DELAY_MS'] ?? 150);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function link(): Promise<boolean> {
  const models: [string, string] = [
    dataFolder('models/silero-vad/silero-v5.onnx'),
    dataFolder('models/silero-vad/silero-v6.onnx'),
  ];
  const { deltaBytes, down, up, cuts, seconds } = await overLink(
    { bytesPerSecond: 32_000, delayMs, cutEveryMs: 10_000 },
    models,
    seed,
  );
  const ratio = (down + up) / deltaBytes;
  say(`256 kbit/s, ${delayMs} ms each way, ${cuts} cuts in ${seconds.toFixed(0)} s, seed ${seed}`);
  say(
    `delta ${deltaBytes} bytes; carried ${down} down and ${up} up: ${ratio.toFixed(3)} of it (at most 1.15)`,
  );
  return ratio <= 1.15 && cuts > 0;
}

const steady = { ...open, bytesPerSecond: 2_000_000 };

async function kills(): Promise<boolean> {
  const folder = dataFolder('models/densenet121-synth');
  const done = await withKills({
    models: [`${folder}/densenet121_synth_v1.onnx`, `${folder}/densenet121_synth_v2_headtuned.onnx`],
    kills: [12, 8],
    links: [steady, steady],
    seed,
  });
  const ratio = done.down / done.onceBytes;
  say(`${done.kills} kills, ${done.killsInRebuild} of them in a rebuild, seed ${seed}`);
  say(`fetched ${done.down} bytes for ${done.onceBytes}: ${ratio.toFixed(3)} (at most 1.1)`);
  if (ratio > 1.1) say(done.told.join('\n'));
  return ratio <= 1.1 && done.killsInRebuild > 0;
}

if (dataMissing !== false) throw new Error(dataMissing);
const good = process.argv[2] === 'kills' ? await kills() : await link();
process.exitCode = good ? 0 : 1;
