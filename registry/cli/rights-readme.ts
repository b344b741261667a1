// Why: the README of a folder that `lepton rights export` writes, in the language of the person that it is for.
// Trusts: the index of what was written. Must never: break a sentence over lines: one line is one message.

import type { Speaker } from '../../shared/wire/languages.ts';
import { type RightsIndex, rightsSections } from '../../shared/wire/rights.ts';
import { when } from './output.ts';

export function rightsReadme({ region, exportedAtMs, devices }: RightsIndex, { say }: Speaker): string {
  const written = new Set(devices.flatMap(({ files }) => files.map(({ section }) => section)));
  const sections = Object.entries(rightsSections).filter(([name]) => written.has(name));
  return [
    `# ${say('What is held about your device')}`,
    '',
    say(
      `Region ${region} wrote this on ${when(exportedAtMs)}. It is everything that the registry of this region holds about ${devices.length === 1 ? 'the device' : 'the devices'} below. Other regions hold their own; ask each.`,
    ),
    '',
    ...devices.map(({ device, files }) => say(`- \`${device}/\`: ${files.length} files`)),
    '',
    say(
      'Each file is text: one entry a line, each entry a JSON object. Times that end in `_ms` or `Ms` are milliseconds since 1 January 1970, UTC. `{"base64": …}` stands for bytes. `index.json` has the number of entries and the SHA-256 of each file.',
    ),
    '',
    say('| file | what is in it |'),
    '|---|---|',
    ...sections.map(([name, about]) => `| \`${name}.ndjson\` | ${say(about)} |`),
    '',
    say(
      'What masking rules removed on the device was never sent and is not here. Records whose key was deleted (`erasures.ndjson`) cannot be read by anybody any more.',
    ),
    '',
  ].join('\n');
}
