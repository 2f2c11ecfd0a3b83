/**
 * A short EEPO run on the embedded model, for tests of determinism: prints hashes of everything that came out. Argument:
 * a list of {@link Variant} as JSON.
 */
import { createHash } from 'node:crypto';
import { countdown, Policy, Trainer } from '../../lib/index.js';
import { loadNative } from '../../lib/native.js';
import { embeddedModel } from './data.js';

/** What may change without changing a bit (or is to show that it does). */
export interface Variant {
  dtype?: 'float32' | 'bfloat16';
  lora?: boolean;
  gradientCheckpointing?: boolean;
  maxRows?: number;
  cacheTokens?: number;
  microBatchTokens?: number;
  seed?: number;
  iterations?: number;
}

/** What came of a run. */
export interface Outcome {
  threads: number;
  /** SHA-256, hex. */
  weights: string;
  /** Tokens, log-probs and entropies of every response. */
  completions: string;
  /** Every metric but the times. */
  metrics: string;
  /** Responses of the first stage of the first iteration: drawn before anything was trained. */
  first: string;
  /** Log-probs of fixed texts under the weights as they were loaded. */
  probe: number[];
  /** Share of stage-1 tokens that were unlearned in the last iteration; a test of nothing where it is 0. */
  openFrac: number;
}

export async function runVariant(variant: Variant): Promise<Outcome> {
  const { dtype = 'float32', lora = false, gradientCheckpointing = false } = variant;
  const policy = await Policy.load(embeddedModel, {
    dtype,
    gradientCheckpointing,
    ...(lora ? { lora: { rank: 4, alpha: 8 } } : {}),
  });
  const fixed = Array.from({ length: 8 }, (_, i) => Array.from({ length: 12 }, (_, t) => (i * 5 + t * 3) % 16));
  const probe = (await policy.score(fixed)).flatMap(({ logprob }) => [...logprob]);
  const all = createHash('sha256');
  const first = createHash('sha256');
  const metricsHash = createHash('sha256');
  let openFrac = 0;
  const trainer = new Trainer({
    policy,
    task: countdown(),
    config: {
      run: { iterations: variant.iterations ?? 2, seed: variant.seed ?? 7 },
      rollout: {
        promptsPerIteration: 4,
        groupSize: 4,
        maxNewTokens: 16,
        maxRows: variant.maxRows ?? 0,
        cacheTokens: variant.cacheTokens ?? 0,
      },
      unlearn: { alpha: 10 },
      objective: { klCoef: 0.01 },
      optimizer: { lr: 1e-3, miniBatchPrompts: 2, microBatchTokens: variant.microBatchTokens ?? 4096 },
      eval: { every: 0, atStart: false, atEnd: false },
    },
  });
  for await (const { iteration, metrics, samples } of trainer) {
    for (const sample of samples) {
      const bytes = [Int32Array.from(sample.tokens), sample.logprob, sample.entropy];
      for (const part of bytes) {
        all.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
        if (iteration === 1 && sample.stage === 1)
          first.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
      }
    }
    const kept = Object.entries(metrics).filter(
      ([name]) => !/^(?:timing|perf)|_s$|per_second|memory|_seconds/.test(name),
    );
    metricsHash.update(JSON.stringify(kept));
    openFrac = metrics['unlearn/open_frac'] ?? 0;
  }
  const outcome: Outcome = {
    threads: loadNative().info().threads,
    weights: await policy.hash(),
    completions: all.digest('hex'),
    metrics: metricsHash.digest('hex'),
    first: first.digest('hex'),
    probe,
    openFrac,
  };
  policy.dispose();
  return outcome;
}

if (process.argv[2]?.startsWith('[')) {
  const outcomes: Outcome[] = [];
  for (const variant of JSON.parse(process.argv[2]) as Variant[]) outcomes.push(await runVariant(variant));
  process.stdout.write(JSON.stringify(outcomes));
}
