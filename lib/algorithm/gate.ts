/** The entropy gate (Eq. 4-5) in all its readings. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { checkOffsets } from './batch.js';
import type { GateMode } from './types.js';

/**
 * Eq. 5: the mean entropy of the last `window` token positions, Hbar_t = mean(H_t, ..., H_{max(0, t-m+1)}). The window
 * never reaches before the first token of its own sequence, where it is shorter.
 */
export function movingMeanEntropy(
  entropy: ArrayLike<number>,
  offsets: ArrayLike<number>,
  window: number,
): Float64Array {
  checkWindow(window);
  checkOffsets(offsets, entropy.length);
  const mean = new Float64Array(entropy.length);
  for (let k = 0; k + 1 < offsets.length; k += 1) {
    const begin = offsets[k] as number;
    for (let t = begin; t < (offsets[k + 1] as number); t += 1) {
      // Summed afresh for every token: a running sum would carry rounding errors along the sequence.
      const first = Math.max(begin, t - window + 1);
      let sum = 0;
      for (let s = first; s <= t; s += 1) sum += entropy[s] as number;
      mean[t] = sum / (t - first + 1);
    }
  }
  return mean;
}

/** Eq. 4: I_t = [Hbar_t < alpha], strictly. 1 where the gate is open. alpha = Infinity opens every token. */
export function tokenGate(
  entropy: ArrayLike<number>,
  offsets: ArrayLike<number>,
  options: Omit<GateOptions, 'gate'> = {},
): Uint8Array {
  checkOptions(options, TOKEN_KEYS, 'tokenGate');
  const { alpha = 0.3, window = 3 } = options;
  checkAlpha(alpha);
  return Uint8Array.from(movingMeanEntropy(entropy, offsets, window), (mean) => (mean < alpha ? 1 : 0));
}

export interface GateOptions {
  /** Default 'token'. See {@link EntropyGate}. */
  gate?: GateMode;
  /** Threshold in nats. Default 0.3. */
  alpha?: number;
  /** m: token positions for the token reading, iterations for the step reading. Default 3. */
  window?: number;
}

const TOKEN_KEYS: OptionKeys<Omit<GateOptions, 'gate'>> = { alpha: true, window: true };
const KEYS: OptionKeys<GateOptions> = { ...TOKEN_KEYS, gate: true };

export interface GateDecision {
  /** true: no unlearning in this iteration, theta' stays theta. */
  skip: boolean;
  /** The threshold for the token gate of the unlearning step; Infinity opens every token. */
  alpha: number;
  /** The policy's mean entropy over the last m iterations, this one included. Logged whatever the reading. */
  movingEntropy: number;
  /** Whether the step reading (`movingEntropy` < alpha) is open. Logged whatever the reading. */
  stepOpen: boolean;
}

/**
 * When and where unlearning acts.
 *
 * - 'token' (default): Eq. 4-5 and 10 as written; every token has its own indicator over m positions.
 * - 'step': Algorithm 1; one indicator per iteration, from the policy's mean entropy over the last m iterations (fewer
 *   at the start); when it is open, every token is.
 * - 'token+step': both must be open.
 * - 'always': no gate. 'never': no unlearning, which leaves GRPO.
 *
 * The history belongs in a checkpoint: `history` and `restore`.
 */
export class EntropyGate {
  readonly mode: GateMode;
  readonly alpha: number;
  readonly window: number;
  #history: number[] = [];

  constructor(options: GateOptions = {}) {
    checkOptions(options, KEYS, 'new EntropyGate');
    const { gate = 'token', alpha = 0.3, window = 3 } = options;
    if (!['token', 'step', 'token+step', 'always', 'never'].includes(gate)) {
      throw new InvalidArgumentError(
        `gate must be 'token', 'step', 'token+step', 'always' or 'never', got ${JSON.stringify(gate)}`,
      );
    }
    checkAlpha(alpha);
    checkWindow(window);
    this.mode = gate;
    this.alpha = alpha;
    this.window = window;
  }

  /** Mean stage-1 entropies of the last m iterations, oldest first. */
  get history(): readonly number[] {
    return this.#history;
  }

  /** Continues from the `history` of a checkpoint. */
  restore(history: readonly number[]): void {
    for (const entropy of history) checkEntropy(entropy);
    this.#history = history.slice(-this.window);
  }

  /**
   * Call once per iteration, after stage 1.
   *
   * @param meanEntropy mean over this iteration's stage-1 tokens, under theta, in nats
   */
  decide(meanEntropy: number): GateDecision {
    checkEntropy(meanEntropy);
    this.#history = [...this.#history, meanEntropy].slice(-this.window);
    const movingEntropy = this.#history.reduce((sum, h) => sum + h, 0) / this.#history.length;
    const stepOpen = movingEntropy < this.alpha;
    const logged = { movingEntropy, stepOpen };
    switch (this.mode) {
      case 'token':
        return { skip: false, alpha: this.alpha, ...logged };
      case 'step':
        return { skip: !stepOpen, alpha: Number.POSITIVE_INFINITY, ...logged };
      case 'token+step':
        return { skip: !stepOpen, alpha: this.alpha, ...logged };
      case 'always':
        return { skip: false, alpha: Number.POSITIVE_INFINITY, ...logged };
      case 'never':
        return { skip: true, alpha: this.alpha, ...logged };
    }
  }
}

function checkWindow(window: number): void {
  if (!Number.isInteger(window) || window < 1) {
    throw new InvalidArgumentError(`window must be an integer of at least 1, got ${window}`);
  }
}

function checkAlpha(alpha: number): void {
  if (!(alpha > 0)) throw new InvalidArgumentError(`alpha must be a positive number of nats, got ${alpha}`);
}

function checkEntropy(entropy: number): void {
  if (!Number.isFinite(entropy)) throw new InvalidArgumentError(`mean entropy must be a finite number, got ${entropy}`);
}
