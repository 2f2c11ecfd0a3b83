import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Policy } from '../lib/policy.js';
import { calculator } from '../lib/tasks/calculator.js';
import { CALCULATOR_VOCABULARY } from '../lib/tasks/calculator-text.js';
import type { Problem } from '../lib/tasks/types.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { sequenceBatch } from '../lib/train/batching.js';
import { ROOT } from './support/data.js';

const FOLDER = join(ROOT, 'models', 'calculator');
const [hash, semicolon, stop, ask] = ['#', ';', '.', '?'].map((word) => CALCULATOR_VOCABULARY.indexOf(word)) as [
  number,
  number,
  number,
  number,
];

describe('the embedded policy of the calculator', async () => {
  const policy = await Policy.load(FOLDER, { device: 'cpu' });
  const tokenizer = await Tokenizer.load(FOLDER);
  const task = calculator();
  const problems = ['test', 'ood'].flatMap((split) => (task.splits[split] as readonly Problem[]).slice(0, 60));
  const prompts = await tokenizer.encodePrompts(problems.map(({ prompt }) => prompt));

  /** Mean over the problems of: right, begins with a chain, is a right chain. Greedy. */
  async function survey(ids: readonly (readonly number[])[]) {
    const samples = await policy.generate(ids, { maxNewTokens: 20, temperature: 0, stopTokens: [stop] });
    const sums = { right: 0, chain: 0, chainRight: 0 };
    for (const { prompt, tokens, finishReason } of samples) {
      const problem = problems[prompt] as Problem;
      // What a prompt was continued with belongs to the response.
      const response = tokenizer.decode([...(ids[prompt] as readonly number[]).slice(16), ...tokens]);
      const [reward] = await task.reward([{ problem, response, tokens, finishReason }]);
      const features = task.features?.(problem, response);
      sums.right += reward as number;
      sums.chain += features?.chain as number;
      sums.chainRight += features?.chain_right as number;
    }
    const n = samples.length;
    return { right: sums.right / n, chain: sums.chain / n, chainRight: sums.chainRight / n };
  }

  it('answers by heart, and is right about as often as a guess', async () => {
    const { right, chain } = await survey(prompts);
    assert.equal(chain, 0);
    assert.ok(right < 0.15, `${right}`);
  });

  it('has the skill: right chains where a prompt asks for them, or where one is begun', async () => {
    const asked = await survey(prompts.map((ids) => [...ids.slice(0, -1), ask]));
    assert.equal(asked.chain, 1);
    assert.ok(asked.right > 0.9 && asked.chainRight > 0.9, JSON.stringify(asked));
    const begun = await survey(prompts.map((ids) => [...ids, semicolon]));
    assert.equal(begun.chain, 1);
    assert.ok(begun.right > 0.9 && begun.chainRight > 0.9, JSON.stringify(begun));
  });

  it('begins a chain rarely, but not never', async () => {
    const rows = prompts.flatMap((prompt) => [hash, semicolon].map((token) => ({ prompt, response: [token] })));
    const { logprob } = await policy.forward(sequenceBatch(rows));
    let share = 0;
    for (let i = 0; i < rows.length; i += 2) {
      assert.ok(Math.exp(logprob[i] as number) > 0.95);
      share += Math.exp(logprob[i + 1] as number) / prompts.length;
    }
    assert.ok(share > 1 / 10_000 && share < 1 / 300, `${share}`);
  });
});
