// Why: exponential and logarithm that give the same bits on every platform: ECMAScript leaves the last bits of
// `Math.exp` and `Math.log` to the engine and its compiler, and a training repeats each difference a million times. Pure.
// Trusts: sums, products and quotients, which IEEE 754 rounds exactly. Must never: call such a function of `Math`.
// Source: fdlibm (Sun Microsystems), e_exp.c and e_log.c; errors below one unit in the last place.

const ln2High = 0.6931471803691238;
const ln2Low = 1.9082149292705877e-10;

/** 2^k at k + 1 074, for every k from the smallest subnormal number up to 2^1023. */
const powers = new Float64Array(2_098);
powers[1_074] = 1;
for (let at = 1_075; at < powers.length; at += 1) powers[at] = 2 * (powers[at - 1] as number);
for (let at = 1_073; at >= 0; at -= 1) powers[at] = (powers[at + 1] as number) / 2;

export function exp(x: number): number {
  if (!(x > -745.2)) return x <= -745.2 ? 0 : Number.NaN;
  if (x > 709.782712893384) return Number.POSITIVE_INFINITY;
  const k = Math.floor(x * Math.LOG2E + 0.5);
  const high = x - k * ln2High;
  const low = k * ln2Low;
  const rest = high - low;
  const square = rest * rest;
  const even =
    rest -
    square *
      (0.16666666666666602 +
        square *
          (-0.0027777777777015593 +
            square *
              (0.00006613756321437934 +
                square * (-0.0000016533902205465252 + square * 4.1381367970572385e-8))));
  const mantissa = 1 - (low - (rest * even) / (2 - even) - high);
  // 2^1024 is no number, and 2^-1075 would round twice.
  if (k === 1_024) return mantissa * 2 * (powers[2_097] as number);
  if (k < -1_021) return mantissa * (powers[k + 1_074 + 54] as number) * 2 ** -54;
  return mantissa * (powers[k + 1_074] as number);
}

const view = new DataView(new ArrayBuffer(8));

/** Natural; of 0 −Infinity, below 0 NaN. */
export function log(x: number): number {
  if (!(x > 0)) return x === 0 ? Number.NEGATIVE_INFINITY : Number.NaN;
  if (x === Number.POSITIVE_INFINITY) return x;
  const subnormal = x < 2.2250738585072014e-308;
  view.setFloat64(0, subnormal ? x * 2 ** 54 : x);
  const word = view.getInt32(0);
  const fraction = word & 0xf_ffff;
  // Mantissas from √2 on are halved, so that they lie around 1.
  const halved = (fraction + 0x9_5f64) & 0x10_0000;
  view.setInt32(0, fraction | (halved ^ 0x3ff0_0000));
  const k = (word >> 20) - 1_023 + (halved >> 20) - (subnormal ? 54 : 0);
  const f = view.getFloat64(0) - 1;
  const s = f / (2 + f);
  const z = s * s;
  const w = z * z;
  const odd = w * (0.3999999999940942 + w * (0.22222198432149784 + w * 0.15313837699209373));
  const even =
    z * (0.6666666666666735 + w * (0.2857142874366239 + w * (0.1818357216161805 + w * 0.14798198605116586)));
  const half = 0.5 * f * f;
  return k * ln2High - (half - (s * (half + odd + even) + k * ln2Low) - f);
}

/** By `exp`; its absolute error is below 1e-15. */
export function tanh(x: number): number {
  return 1 - 2 / (exp(2 * x) + 1);
}

export function logistic(x: number): number {
  return 1 / (1 + exp(-x));
}
