/**
 * A loss of your own. A policy gives log-probabilities and entropies of response tokens; whatever you compute from them,
 * hand back dL/dlogprob and dL/dentropy per token, and the policy learns. Here: self-distillation towards the best of
 * several samples, with a bonus for entropy.
 *
 *     node dist/examples/03-custom-objective.js [steps]
 */
import { fileURLToPath } from 'node:url';
import { countdown, Policy, type Problem, Tokenizer } from 'eepo';

const folder = fileURLToPath(new URL('../../models/countdown', import.meta.url));
const steps = Number(process.argv[2] ?? 10);
const entropyBonus = 0.01;

const task = countdown();
const problems = (task.splits.train ?? []).slice(0, 32);
const policy = await Policy.load(folder, { device: 'auto' });
const tokenizer = await Tokenizer.load(folder);
const prompts = await tokenizer.encodePrompts(problems.map(({ prompt }) => prompt));

for (let step = 1; step <= steps; step++) {
  // Sample, and keep what is right.
  const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4, seed: step });
  const rewards = await task.reward(
    samples.map(({ prompt, tokens, finishReason }) => ({
      problem: problems[prompt] as Problem,
      response: tokenizer.decode(tokens),
      tokens,
      finishReason,
    })),
  );
  const right = samples.filter((_, i) => rewards[i] === 1);
  if (right.length === 0) continue;

  // Forward: one log-prob and one entropy per response token.
  const batch = {
    prompts: right.map(({ prompt }) => prompts[prompt] as number[]),
    responses: right.map(({ tokens }) => tokens),
  };
  const { logprob, entropy } = await policy.forward(batch);

  // The loss, -mean(logprob) - bonus * mean(entropy), and its two derivatives.
  const tokens = logprob.length;
  const mean = (values: Float32Array): number => values.reduce((sum, v) => sum + v, 0) / tokens;
  const loss = -mean(logprob) - entropyBonus * mean(entropy);
  const a = new Float32Array(tokens).fill(-1 / tokens);
  const b = new Float32Array(tokens).fill(-entropyBonus / tokens);

  await policy.backward(a, b);
  const { gradNorm } = await policy.step({ lr: 5e-5, maxGradNorm: 1 });
  console.log(
    `${step}: loss ${loss.toFixed(4)}, ${right.length} of ${samples.length} right, gradient norm ${gradNorm.toFixed(3)}`,
  );
}
policy.dispose();
