// Why: where the built programs are. Trusts: the build in dist/. Must never: name a source file.

import { join } from 'node:path';
import { projectFolder } from './data.ts';

export const programs = {
  lepton: join(projectFolder, 'dist/programs/lepton.js'),
  agent: join(projectFolder, 'dist/programs/lepton-agent.js'),
  sim: join(projectFolder, 'dist/firmware-sim/cli/main.js'),
} as const;
