/** One row of logits in double precision: the ground truth of the gradient tests. */

/** l = log softmax(z)[target] and the entropy H in nats. */
export function softmaxStatistics(z: readonly number[], target: number): { logprob: number; entropy: number } {
  const logp = logSoftmax(z);
  return { logprob: logp[target] as number, entropy: -logp.reduce((sum, l) => sum + Math.exp(l) * l, 0) };
}

/** dL/dz from a = dL/dl and b = dL/dH: a 1[j=y] - p_j (a + b (log p_j + H)). */
export function logitGradient(z: readonly number[], target: number, a: number, b: number): number[] {
  const { entropy } = softmaxStatistics(z, target);
  return logSoftmax(z).map((l, j) => (j === target ? a : 0) - Math.exp(l) * (a + b * (l + entropy)));
}

/** Logits of `size` outcomes whose outcome 0 has probability p and the others share the rest unevenly. */
export function tokenLogits(p: number, size: number): number[] {
  const shares = Array.from({ length: size - 1 }, (_, i) => i + 1);
  const total = shares.reduce((sum, share) => sum + share, 0);
  return [Math.log(p), ...shares.map((share) => Math.log((1 - p) * (share / total)))];
}

/** max |x - y| / max |y|. */
export function relativeError(x: readonly number[], y: readonly number[]): number {
  const scale = Math.max(...y.map(Math.abs), Number.MIN_VALUE);
  return Math.max(...x.map((value, i) => Math.abs(value - (y[i] as number)))) / scale;
}

function logSoftmax(z: readonly number[]): number[] {
  const max = Math.max(...z);
  const total = Math.log(z.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return z.map((value) => value - max - total);
}
