/** What `generate` is asked for, and what comes back. */
import type { PolicyConfig } from '../config-json.js';
import { InvalidArgumentError } from '../errors.js';
import { choice, describe } from '../options.js';
import type { GenerateOptions, Generation } from '../policy-types.js';
import { integers, packSequences, temperatureOf, wholeNumber } from './arguments.js';

/** What the native side draws, all samples one after the other. */
interface DrawnSamples {
  tokens: Int32Array;
  lengths: Int32Array;
  logprob: Float32Array;
  entropy: Float32Array;
  stopped: Uint8Array;
}

export function generateArguments(
  config: PolicyConfig,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
) {
  if (prompts.length === 0) throw new InvalidArgumentError('prompts is empty: pass at least one prompt');
  const samplesPerPrompt = wholeNumber(options.samplesPerPrompt ?? 1, 'samplesPerPrompt', 1);
  const maxNewTokens = wholeNumber(options.maxNewTokens, 'maxNewTokens', 1);
  const { ids, lengths } = packSequences(config, prompts, 'prompts', maxNewTokens);
  const promptIds = integers(options.promptIds ?? prompts.map((_, i) => i), 'promptIds', Number.MAX_SAFE_INTEGER);
  if (promptIds.length !== prompts.length) {
    throw new InvalidArgumentError(
      `promptIds has ${promptIds.length} entries for ${prompts.length} prompts; it needs one per prompt`,
    );
  }
  const topP = options.topP ?? 1;
  if (!(Number.isFinite(topP) && topP > 0 && topP <= 1)) {
    throw new InvalidArgumentError(`topP must be in (0, 1], got ${describe(topP)}`);
  }
  const { onProgress } = options;
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw new InvalidArgumentError(`onProgress must be a function, got ${describe(onProgress)}`);
  }
  const settings = {
    maxNewTokens,
    samplesPerPrompt,
    temperature: temperatureOf(options.temperature, true),
    topK: wholeNumber(options.topK ?? 0, 'topK', 0),
    topP,
    seed: wholeNumber(options.seed ?? 0, 'seed', 0),
    iteration: wholeNumber(options.iteration ?? 0, 'iteration', 0),
    promptIds,
    sampleOffset: wholeNumber(options.sampleOffset ?? 0, 'sampleOffset', 0),
    stopTokens: integers(options.stopTokens ?? config.eosTokenIds, 'stopTokens', 2 ** 31 - 1),
    maxRows: wholeNumber(options.maxRows ?? 0, 'maxRows', 0),
    cacheTokens: wholeNumber(options.cacheTokens ?? 0, 'cacheTokens', 0),
    rollout: choice(options.weights, 'weights', ['policy', 'rollout']) === 'rollout',
  };
  return { ids, lengths, settings };
}

export function toGenerations(drawn: DrawnSamples, samplesPerPrompt: number): Generation[] {
  let at = 0;
  return Array.from(drawn.lengths, (length, i) => {
    const end = at + length;
    const generation: Generation = {
      prompt: Math.floor(i / samplesPerPrompt),
      sample: i % samplesPerPrompt,
      tokens: Array.from(drawn.tokens.subarray(at, end)),
      logprob: drawn.logprob.slice(at, end),
      entropy: drawn.entropy.slice(at, end),
      finishReason: drawn.stopped[i] ? 'stop' : 'length',
    };
    at = end;
    return generation;
  });
}
