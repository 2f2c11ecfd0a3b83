/**
 * A training script with a task of your own: prompts, and a function that says which responses are right. Here the policy
 * of the embedded countdown task learns to reach the target without multiplying.
 *
 *     node dist/examples/02-train-script.js [iterations]
 */
import { fileURLToPath } from 'node:url';
import { countdown, Policy, type Task, Trainer } from 'eepo';

const folder = fileURLToPath(new URL('../../models/countdown', import.meta.url));
const iterations = Number(process.argv[2] ?? 20);

const base = countdown();
const task: Task = {
  name: 'countdown without products',
  splits: { train: base.splits.train ?? [] },
  // Any function of the responses, also asynchronous: 1 is right, 0 is wrong, null leaves a response out.
  reward: async (inputs) => {
    const right = await base.reward(inputs);
    return inputs.map(({ response }, i) => (right[i] === 1 && !response.includes('*') ? 1 : 0));
  },
};

// What is not given here has the paper's value; see docs/config.md.
const config = {
  run: { iterations, seed: 1 },
  rollout: { promptsPerIteration: 8, groupSize: 8, maxNewTokens: 16 },
  optimizer: { lr: 5e-5, miniBatchPrompts: 4 },
};

const policy = await Policy.load(folder, { device: 'auto' });
for await (const { iteration, metrics, samples } of new Trainer({ policy, task, config })) {
  const best = samples.find(({ reward }) => reward === 1);
  console.log(
    `${iteration}: reward ${metrics['reward/mean']?.toFixed(3)}, entropy of stage 1 and 2 ` +
      `${metrics['rollout/stage1/entropy']?.toFixed(3)} ${metrics['rollout/stage2/entropy']?.toFixed(3)}`,
    best ? `e.g. ${best.problem.prompt} -> ${best.response}` : '',
  );
}
// await policy.save('my-model') writes a folder that transformers loads.
policy.dispose();
