// Why: zstd-napi behind the Zstd port.
// Trusts: the native decoder to stay inside the memory it is given. Must never: allocate what a frame declares (the
// caller brings the memory), or keep a dictionary from one call to the next.

import binding from 'zstd-napi/binding.js';
import type { Zstd, ZstdLevel } from '../kernel/ports.ts';

const { CParameter, ResetDirective } = binding;
const magic = [0x28, 0xb5, 0x2f, 0xfd];
const windowLogMin = 10;
/** What decoders take without being asked to. */
const windowLogMax = 27;
/** Below it zstd takes no dictionary that is larger than the window at its word. */
const largeDictionaryBytes = 1024 * 1024;
const largeDictionaryLevel = 9;
/** Up to here a dictionary is searched as if it stood before the bytes, which finds more; beyond, windows end too soon. */
const usedBytesMax = 1024 * 1024;

/**
 * Numbers without order repeat themselves by chance, and level 1 spends more on such repetitions than it saves: a sixth
 * of the plane. The smallest table and the longest match find hardly any.
 */
const symbolParameters = [
  [CParameter.compressionLevel, 1],
  [CParameter.windowLog, 17],
  [CParameter.hashLog, 6],
  [CParameter.minMatch, 7],
] as const;

/** Optimal parsing (strategy btopt) that looks at four places and is content with matches of 32 bytes. */
const textParameters = [
  [CParameter.compressionLevel, 16],
  [CParameter.windowLog, 19],
  [CParameter.hashLog, 17],
  [CParameter.chainLog, 17],
  [CParameter.searchLog, 2],
  [CParameter.minMatch, 5],
  [CParameter.targetLength, 32],
  [CParameter.strategy, 7],
] as const;
const parametersOf = { symbols: symbolParameters, text: textParameters };

// One of each: the garbage collector does not see what they hold. Neither keeps anything from call to call.
const compression = new binding.CCtx();
const decompression = new binding.DCtx();

/** zstd takes bytes that lie in the dictionary's memory for the dictionary's end, and forgets it. */
function apartFrom(bytes: Uint8Array, dictionary: Uint8Array): Uint8Array {
  return bytes.buffer === dictionary.buffer ? new Uint8Array(bytes) : bytes;
}

function compress(
  into: Uint8Array,
  bytes: Uint8Array,
  level: ZstdLevel,
  dictionary: Uint8Array | undefined,
): number {
  compression.reset(ResetDirective.sessionAndParameters);
  if (typeof level === 'string') {
    for (const [parameter, value] of parametersOf[level]) compression.setParameter(parameter, value);
  } else {
    const large = (dictionary?.length ?? 0) > largeDictionaryBytes;
    compression.setParameter(
      CParameter.compressionLevel,
      large ? Math.max(level, largeDictionaryLevel) : level,
    );
  }
  if (dictionary !== undefined) {
    // Else the start of the dictionary is out of reach at the end of the bytes.
    const log = Math.ceil(Math.log2(bytes.length + dictionary.length + 1));
    compression.setParameter(CParameter.windowLog, Math.min(Math.max(log, windowLogMin), windowLogMax));
    compression.loadDictionary(dictionary);
  }
  return compression.compress2(into, bytes);
}

export const systemZstd: Zstd = {
  compress(bytes, level, dictionary) {
    const into = Buffer.allocUnsafe(binding.compressBound(bytes.length));
    const length =
      typeof level === 'number' &&
      dictionary !== undefined &&
      bytes.length + dictionary.length <= usedBytesMax
        ? compression.compressUsingDict(into, apartFrom(bytes, dictionary), dictionary, level)
        : compress(into, bytes, level, dictionary);
    return new Uint8Array(into.subarray(0, length));
  },

  decompress(frame, into, dictionary) {
    const whole = Buffer.allocUnsafe(frame.length + magic.length);
    whole.set(magic);
    whole.set(frame, magic.length);
    try {
      const length =
        dictionary === undefined
          ? decompression.decompress(into, whole)
          : decompression.decompressUsingDict(into, whole, dictionary);
      return length === into.length;
    } catch (error) {
      if (error instanceof Error) return false;
      throw error;
    }
  },
};
