/** What tests of policies share: options of an unlearning step, and tensors as arrays. */
import type { ForgetOptions, Generation, Tensor } from '../../lib/index.js';

/** An unlearning step with the gate open everywhere, but for its entropies and eta. */
export const openGate = {
  alpha: Number.POSITIVE_INFINITY,
  window: 3,
  epsLow: 1e-6,
  epsHigh: 1e-5,
  clampGrad: 'zero',
  normalize: 'none',
} as const;

/** A step with the gate open everywhere, on the entropies that were recorded. */
export const forgetting = (generations: Generation[], change: Partial<ForgetOptions> = {}): ForgetOptions => ({
  entropy: Float32Array.from(generations.flatMap(({ entropy }) => [...entropy])),
  eta: 3e-3,
  ...openGate,
  ...change,
});

/** Float32 tensors by name, as arrays; the tensors are disposed of. */
export async function values(tensors: Map<string, Tensor>): Promise<Map<string, Float32Array>> {
  const all = new Map<string, Float32Array>();
  for (const [name, tensor] of tensors) {
    all.set(name, (await tensor.data()) as Float32Array);
    tensor.dispose();
  }
  return all;
}
