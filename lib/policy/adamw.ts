/** The numbers of one AdamW step. */
import { InvalidArgumentError } from '../errors.js';
import { describe } from '../options.js';
import type { StepOptions } from '../policy-types.js';

/** Above it a step of AdamW could overflow float32. Sensible ones are far below 1. */
const MAX_LEARNING_RATE = 1e6;

/** Every number of a step, checked; maxGradNorm 0 is none. */
export function adamwArguments(options: StepOptions): Record<string, number> {
  const betas: unknown = options.betas ?? [0.9, 0.999];
  if (!Array.isArray(betas)) {
    throw new InvalidArgumentError(`betas must be an array of two numbers, got ${describe(betas)}`);
  }
  const [beta1, beta2] = betas;
  const values = {
    lr: options.lr,
    beta1,
    beta2,
    eps: options.eps ?? 1e-8,
    weightDecay: options.weightDecay ?? 0.01,
    maxGradNorm: options.maxGradNorm === undefined ? 1 : (options.maxGradNorm ?? 0),
  };
  for (const [name, value] of Object.entries(values)) {
    if (!(Number.isFinite(value) && value >= 0)) {
      throw new InvalidArgumentError(`${name} must be a finite number >= 0, got ${describe(value)}`);
    }
  }
  // Larger steps lead from finite weights to infinite ones, however small the gradient is.
  if (values.lr > MAX_LEARNING_RATE) {
    throw new InvalidArgumentError(`lr must be at most ${MAX_LEARNING_RATE}, got ${values.lr}`);
  }
  if (values.lr * values.weightDecay > 1) {
    throw new InvalidArgumentError(
      `lr x weightDecay is ${values.lr * values.weightDecay}; above 1 every step would turn the weights around`,
    );
  }
  // What float32 makes of them counts: with beta 1 or eps 0 a gradient of 0 turns a weight into 0 / 0.
  for (const [name, beta] of [['betas[0]', beta1] as const, ['betas[1]', beta2] as const]) {
    if (Math.fround(beta) >= 1) throw new InvalidArgumentError(`${name} must be below 1, got ${beta}`);
  }
  if (Math.fround(values.eps) === 0) throw new InvalidArgumentError(`eps must be above 0, got ${values.eps}`);
  return values;
}
