/** What `forget` is asked for. */
import { InvalidArgumentError } from '../errors.js';
import { choice, describe } from '../options.js';
import type { ForgetOptions, WeightDType } from '../policy-types.js';
import { temperatureOf, wholeNumber } from './arguments.js';

/** The settings of one unlearning step for the native side; `dtype`: of the policy. */
export function forgetArguments(options: ForgetOptions, dtype: WeightDType): Record<string, unknown> {
  if (!Number.isFinite(options.eta)) {
    throw new InvalidArgumentError(`eta must be finite, got ${describe(options.eta)}`);
  }
  const { rolloutDtype = 'same' } = options;
  if (rolloutDtype !== 'same' && rolloutDtype !== 'float32') {
    throw new InvalidArgumentError(`rolloutDtype must be "same" or "float32", got ${describe(rolloutDtype)}`);
  }
  const { memory = 0 } = options;
  if (!(memory >= 0 && memory <= 1))
    throw new InvalidArgumentError(`memory must be from 0 to 1, got ${describe(memory)}`);
  return {
    eta: options.eta,
    alpha: options.alpha,
    window: wholeNumber(options.window, 'window', 1),
    epsLow: options.epsLow,
    epsHigh: options.epsHigh,
    saturate: choice(options.clampGrad, 'clampGrad', ['zero', 'saturate']) === 'saturate',
    normalize: choice(options.normalize, 'normalize', ['none', 'gradNorm', 'relative']),
    loss: choice(options.loss, 'loss', ['complementary', 'nll']),
    steps: wholeNumber(options.steps ?? 1, 'steps', 1),
    direction: choice(options.direction, 'direction', ['gradient', 'random']),
    memory,
    temperature: temperatureOf(options.temperature, false),
    probeTokens: wholeNumber(options.probeTokens ?? 256, 'probeTokens', 0),
    microBatchTokens: wholeNumber(options.microBatchTokens ?? 2048, 'microBatchTokens', 1),
    rolloutDtype: rolloutDtype === 'same' ? dtype : rolloutDtype,
    seed: wholeNumber(options.seed ?? 0, 'seed', 0),
    iteration: wholeNumber(options.iteration ?? 0, 'iteration', 0),
  };
}
