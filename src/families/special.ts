/** Special functions in float64 that `Math` lacks. */

/** log(eˣ + eʸ) without overflow. */
export function logAddExp(x: number, y: number): number {
  const high = Math.max(x, y);
  return high === Number.NEGATIVE_INFINITY ? high : high + Math.log1p(Math.exp(Math.min(x, y) - high));
}

/** log(1 + eˣ). */
export function softplus(x: number): number {
  return logAddExp(0, x);
}

/** 1 / (1 + e⁻ˣ). */
export function logistic(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** x log x, 0 at 0. */
export function xLogX(x: number): number {
  return x > 0 ? x * Math.log(x) : 0;
}

/**
 * The error function: Kummer's series of positive terms below 2.5, Legendre's continued fraction beyond
 * (Abramowitz and Stegun 7.1.6, 7.1.14).
 */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z > 2.5) return Math.sign(x) * (1 - erfcTail(z));
  let term = z;
  let sum = z;
  for (let n = 1; term > sum * 1e-17; n++) {
    term *= (2 * z * z) / (2 * n + 1);
    sum += term;
  }
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
}

/** 1 − erf(x) for x ≥ 2.5. */
function erfcTail(x: number): number {
  let fraction = x;
  for (let k = 80; k >= 1; k--) fraction = x + k / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}

const CENTRAL_P = [
  3.3871328727963665, 133.14166789178438, 1971.5909503065513, 13731.69376550946, 45921.95393154987, 67265.7709270087,
  33430.57558358813, 2509.0809287301227,
];
const CENTRAL_Q = [
  1, 42.31333070160091, 687.1870074920579, 5394.196021424751, 21213.794301586597, 39307.89580009271, 28729.085735721943,
  5226.495278852854,
];
const MIDDLE_P = [
  1.4234371107496835, 4.630337846156546, 5.769497221460691, 3.6478483247632045, 1.2704582524523684, 0.2417807251774506,
  0.022723844989269184, 0.0007745450142783414,
];
const MIDDLE_Q = [
  1, 2.053191626637759, 1.6763848301838038, 0.6897673349851, 0.14810397642748008, 0.015198666563616457,
  0.0005475938084995345, 1.0507500716444169e-9,
];
const TAIL_P = [
  6.657904643501103, 5.463784911164114, 1.7848265399172913, 0.29656057182850487, 0.026532189526576124,
  0.0012426609473880784, 2.7115555687434876e-5, 2.0103343992922881e-7,
];
const TAIL_Q = [
  1, 0.599832206555888, 0.1369298809227358, 0.014875361290850615, 0.0007868691311456133, 1.8463183175100548e-5,
  1.421511758316446e-7, 2.0442631033899397e-15,
];

function polynomial(coefficients: readonly number[], x: number): number {
  let value = 0;
  for (let i = coefficients.length - 1; i >= 0; i--) value = value * x + (coefficients[i] as number);
  return value;
}

/** The standard normal quantile at p in (0, 1) (M. Wichura, algorithm AS 241 (PPND16), 1988); `1 − p` apart so that both tails are exact. */
export function normalQuantile(p: number, oneMinusP = 1 - p): number {
  const q = (p - oneMinusP) / 2;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return (q * polynomial(CENTRAL_P, r)) / polynomial(CENTRAL_Q, r);
  }
  const tail = Math.min(p, oneMinusP);
  if (tail <= 0) return q < 0 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const r = Math.sqrt(-Math.log(tail));
  const value =
    r <= 5
      ? polynomial(MIDDLE_P, r - 1.6) / polynomial(MIDDLE_Q, r - 1.6)
      : polynomial(TAIL_P, r - 5) / polynomial(TAIL_Q, r - 5);
  return q < 0 ? -value : value;
}

/** The inverse of the error function on [−1, 1]. */
export function erfInverse(y: number): number {
  return normalQuantile((1 + y) / 2, (1 - y) / 2) / Math.SQRT2;
}

/** B₂ₖ / (2k + 1)! for k = 1, 2, …: the dilogarithm's series in −log(1 − x). */
const BERNOULLI_RATIOS = [
  1 / 36,
  -1 / 3600,
  1 / 211680,
  -1 / 10886400,
  1 / 526901760,
  -691 / 16999766784000,
  1 / 1120863744000,
  -3617 / 181400588328960000,
  43867 / 97072790126247936000,
];

/** The dilogarithm Li₂(x) for x in [−1, 1] (Lewin, Polylogarithms and associated functions, 1.4 to 1.12). */
export function dilogarithm(x: number): number {
  if (x === 1) return Math.PI ** 2 / 6;
  if (x > 0.5) return Math.PI ** 2 / 6 - Math.log(x) * Math.log1p(-x) - dilogarithm(1 - x);
  const z = -Math.log1p(-x);
  const square = z * z;
  let sum = 0;
  for (let k = BERNOULLI_RATIOS.length - 1; k >= 0; k--) sum = (sum + (BERNOULLI_RATIOS[k] as number)) * square;
  return z * (1 + sum) - square / 4;
}
