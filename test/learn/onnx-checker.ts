// Why: the ONNX project's own checker, with strict shape inference, judges files that we write.
// Trusts: python3 with the package onnx, where the machine has them. Must never: take its absence for a pass.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

const python = '/usr/bin/python3';
/** Ends with 3 where there is no checker, with 1 and a traceback where the model is at fault. */
const program = `
import sys
try:
    import onnx
except ImportError:
    sys.exit(3)
while length := sys.stdin.buffer.read(4):
    model = sys.stdin.buffer.read(int.from_bytes(length, "little"))
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    print("checked")
`;

function framed(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** All of these files; null: this machine has no checker. */
export async function checkOnnx(
  ...files: Uint8Array[]
): Promise<{ ok: true } | { ok: false; why: string } | null> {
  const child = spawn(python, ['-c', program], { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  let complaint = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  // A child that ends before it has read all makes the pipe fail; its exit code tells the story.
  child.stdin.on('error', () => undefined);
  child.stdin.end(Buffer.concat(files.map(framed)));
  try {
    const [code] = (await once(child, 'close')) as [number | null];
    if (code === 3) return null;
    const checked = said.split('\n').filter((line) => line === 'checked').length;
    if (code === 0 && checked === files.length) return { ok: true };
    return { ok: false, why: `file ${checked + 1} of ${files.length}: ${complaint}` };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}
