// Why: what runs the models, for reports and rollouts that need a newer runtime.
// Trusts: the installation. Must never: load the runtime itself into the agent's process.

import { createRequire } from 'node:module';
import { z } from 'zod';

const packageSchema = z.object({ version: z.string() });

/** Such as `onnxruntime 1.30.0, node 20.20.2`. */
export function runtimeVersion(): string {
  const read: unknown = createRequire(import.meta.url)('onnxruntime-node/package.json');
  return `onnxruntime ${packageSchema.parse(read).version}, node ${process.versions.node}`;
}
