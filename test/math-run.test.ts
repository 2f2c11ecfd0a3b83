/**
 * Mathematics from end to end: a random small Qwen2 with Qwen2.5's own tokenizer trains on word problems, rewarded by the
 * verifier, evaluated before and after. Such a model is never right, so a second policy speaks from a script.
 */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type GenerateOptions, type Generation, Policy, type PolicyLike } from '../lib/policy.js';
import { createTask } from '../lib/tasks/index.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { defineConfig, loadTrainConfig } from '../lib/train/config.js';
import { makeEvaluator } from '../lib/train/evaluation.js';
import { loadRun } from '../lib/train/load.js';
import { trainRun } from '../lib/train/run.js';
import { type Iteration, Trainer } from '../lib/train/trainer.js';
import { dataRoot, needs, ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';

const TOKENIZER = join(ROOT, 'node_modules', '@lenml', 'tokenizer-qwen2_5', 'models');
const fixture = (name: string): string => fileURLToPath(new URL(`../../test/fixtures/tasks/${name}`, import.meta.url));
const EOS = 151_645;

const MODEL = {
  model_type: 'qwen2',
  architectures: ['Qwen2ForCausalLM'],
  vocab_size: 151_936,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-6,
  rope_theta: 1_000_000,
  tie_word_embeddings: true,
  eos_token_id: EOS,
};

/** A model folder of random weights, with Qwen2.5's tokenizer. */
async function modelFolder(t: TestContext): Promise<string> {
  const folder = join(temporaryFolder(t), 'model');
  mkdirSync(folder);
  const policy = await Policy.create(MODEL, { seed: 7 });
  await policy.save(folder);
  policy.dispose();
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    copyFileSync(join(TOKENIZER, name), join(folder, name));
  return folder;
}

interface Data {
  name: 'gsm8k' | 'math';
  path: string;
  evalPath: string;
  style: string;
}

const toml = (model: string, { name, path, evalPath, style }: Data, eepo: boolean): string => `
[run]
iterations = 2
seed = 3
[model]
path = ${JSON.stringify(model)}
device = "cpu"
[task]
name = "${name}"
path = ${JSON.stringify(path)}
evalPath = ${JSON.stringify(evalPath)}
promptStyle = "${style}"
maxPromptTokens = 256
maxProblems = 64
[rollout]
promptsPerIteration = 3
groupSize = 4
maxNewTokens = 12
[unlearn]
enabled = ${eepo}
gate = "always"
eta = 0.05
[optimizer]
lr = 1e-4
miniBatchPrompts = 3
[eval]
atStart = true
atEnd = true
maxProblems = 4
sampleProblems = 2
samplesPerPrompt = 4
passK = [1, 4]
maxNewTokens = 12
`;

async function wholeRun(t: TestContext, data: Data, eepo: boolean) {
  const model = await modelFolder(t);
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'run.toml'), toml(model, data, eepo));
  const config = loadTrainConfig(join(folder, 'run.toml'));
  const loaded = await loadRun(config);
  t.after(() => loaded.policy.dispose());
  const before = await loaded.policy.hash();
  const out = join(folder, 'out');
  const summary = await trainRun({ ...loaded, config, out });
  const read = (name: string) =>
    readFileSync(join(out, name), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
  assert.notEqual(summary.weights, before, 'the weights were trained');
  return { task: loaded.task, metrics: read('metrics.jsonl'), completions: read('completions.jsonl') };
}

/** What must hold of a run whose model only babbles. */
function checkRun({ metrics, completions }: Awaited<ReturnType<typeof wholeRun>>, eepo: boolean): void {
  assert.deepEqual(
    metrics.map(({ iteration }) => iteration),
    [0, 1, 2],
  );
  for (const line of [metrics[0], metrics[2]]) {
    assert.equal(line['eval/test/greedy'], 0);
    assert.equal(line['eval/test/pass@4'], 0);
  }
  for (const line of metrics.slice(1)) {
    assert.equal(line['reward/mean'], 0);
    assert.equal(line['reward/math/mean'], 0);
    assert.equal(line['reward/math/undecided'], 0);
    assert.ok(line['reward/math/no_answer'] >= 0 && line['reward/math/no_answer'] <= 12);
    assert.equal(line['rollout/stage2/entropy'] > 0, eepo);
    assert.equal(line['unlearn/stage1_logp_delta'] < 0, eepo);
    assert.ok(line['actor/grad_norm'] >= 0);
  }
  assert.equal(completions.length, 2 * 3 * 4);
  for (const { response, reward, problem } of completions) {
    assert.ok(typeof response === 'string' && reward === 0 && /^train:/.test(problem));
  }
}

describe('prompts', () => {
  it("in style qwen-boxed are SimpleRL-Zoo's for Qwen2.5 to the letter, and its ids those of the text", async () => {
    const tokenizer = await Tokenizer.load(TOKENIZER);
    const task = await createTask('gsm8k', { files: { train: fixture('gsm8k.jsonl') } });
    const { prompt, meta } = task.splits.train?.[1] ?? assert.fail();
    assert.match(String(meta?.answer), /#### 1,500$/);
    const text =
      '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' +
      '<|im_start|>user\nA ticket costs $250. How much do 6 tickets cost?\n' +
      'Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n';
    const ids = await tokenizer.encodePrompt(prompt);
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), text);
    assert.deepEqual(await tokenizer.encodePrompt(text), ids);
  });
});

describe('a run on word problems', { timeout: 300_000 }, () => {
  for (const eepo of [false, true]) {
    const algorithm = eepo ? 'EEPO' : 'GRPO';
    it(`goes from end to end by ${algorithm}, on problems of our own`, async (t) => {
      const path = fixture('gsm8k.jsonl');
      const run = await wholeRun(t, { name: 'gsm8k', path, evalPath: path, style: eepo ? 'auto' : 'simplerl' }, eepo);
      checkRun(run, eepo);
      const { prompt } = run.completions[0];
      if (eepo) assert.match(prompt[1].content, /Please reason step by step/);
      else assert.match(prompt, /^Question:\n.+\nAnswer:\nLet's think step by step\.\n$/);
    });
  }

  it('goes from end to end by GRPO, on GSM8K', needs('gsm8k', 'train.jsonl.gz'), async (t) => {
    const [path, evalPath] = [join(dataRoot, 'gsm8k', 'train.jsonl.gz'), join(dataRoot, 'gsm8k', 'test.jsonl')];
    const run = await wholeRun(t, { name: 'gsm8k', path, evalPath, style: 'simplerl' }, false);
    assert.equal(run.task.splits.train?.length, 64);
    checkRun(run, false);
  });

  it('goes from end to end by EEPO, on MATH', needs('math', 'train_lvl3to5.jsonl.gz'), async (t) => {
    const folder = join(dataRoot, 'math');
    const [path, evalPath] = [join(folder, 'train_lvl3to5.jsonl.gz'), join(folder, 'math500_test.jsonl')];
    checkRun(await wholeRun(t, { name: 'math', path, evalPath, style: 'auto' }, true), true);
  });
});

describe('a policy that is right half of the time', { timeout: 300_000 }, () => {
  let tokenizer: Tokenizer;
  before(async () => {
    tokenizer = await Tokenizer.load(TOKENIZER);
  });

  /** What a problem's samples say: even ones the answer, in words of their own, odd ones another number. */
  const script = (gold: string, sample: number): string =>
    sample % 2 === 0 ? ` So it makes $\\boxed{${gold.replace(',', '')}}$.` : ' So it makes $\\boxed{-3}$.';

  /** The policy, but for its words: drawn from the script, with the log-probs and entropies that they really have. */
  function scripted(policy: Policy, goldOf: (prompt: readonly number[]) => string): PolicyLike {
    const generate = async (
      prompts: readonly (readonly number[])[],
      options: GenerateOptions,
    ): Promise<Generation[]> => {
      const { samplesPerPrompt = 1, sampleOffset = 0 } = options;
      const drawn = await Promise.all(
        prompts.flatMap((prompt, index) =>
          Array.from({ length: samplesPerPrompt }, async (_, s) => ({
            prompt: index,
            sample: s,
            tokens: [...(await tokenizer.encode(script(goldOf(prompt), s + sampleOffset))), EOS],
          })),
        ),
      );
      const batch = {
        prompts: drawn.map(({ prompt }) => prompts[prompt]!),
        responses: drawn.map(({ tokens }) => tokens),
      };
      const { logprob, entropy } = await policy.forward(batch, { keepActivations: false });
      let at = 0;
      return drawn.map((row): Generation => {
        const from = at;
        at += row.tokens.length;
        return { ...row, logprob: logprob.slice(from, at), entropy: entropy.slice(from, at), finishReason: 'stop' };
      });
    };
    return new Proxy(policy, {
      get: (target, key) => {
        if (key === 'generate') return generate;
        const value = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  for (const eepo of [false, true]) {
    it(`earns 1/2 and learns the right half by ${eepo ? 'EEPO' : 'GRPO'}`, async (t) => {
      const policy = await Policy.create(MODEL, { seed: 7 });
      t.after(() => policy.dispose());
      const path = fixture('gsm8k.jsonl');
      const task = await createTask('gsm8k', { files: { train: path, test: path }, promptStyle: 'simplerl' });
      const problems = task.splits.train ?? [];
      const prompts = await tokenizer.encodePrompts(problems.map(({ prompt }) => prompt));
      const golds = new Map(problems.map(({ answer }, i) => [prompts[i]?.join(), String(answer)]));
      const actor = scripted(policy, (prompt) => golds.get(prompt.join()) as string);
      const config = defineConfig({
        run: { iterations: 4 },
        rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 32 },
        unlearn: { enabled: eepo, gate: 'always', eta: 0.05 },
        objective: { klCoef: 0, entropyCoef: 0 },
        optimizer: { lr: 5e-3, miniBatchPrompts: 4 },
        eval: { atStart: true, maxProblems: 4, samplesPerPrompt: 2, passK: [1, 2], sampleProblems: 4 },
      });
      /** Mean log-prob of the whole scripted response over the problems: of the right one, of the wrong one. */
      const preference = async (): Promise<[number, number]> => {
        const sums: [number, number] = [0, 0];
        for (const [sample] of sums.entries()) {
          const scripts = await tokenizer.encodeBatch(problems.map(({ answer }) => script(String(answer), sample)));
          const responses = scripts.map((ids) => [...ids, EOS]);
          const { logprob } = await policy.forward({ prompts, responses }, { keepActivations: false });
          sums[sample] = logprob.reduce((sum, l) => sum + l, 0) / problems.length;
        }
        return sums;
      };
      const { evaluate } = makeEvaluator(actor, tokenizer, task, config);
      const start = await preference();
      const iterations: Iteration[] = [];
      for await (const iteration of new Trainer({ policy: actor, tokenizer, task, config, evaluate }))
        iterations.push(iteration);
      const end = await preference();
      const [first, ...trained] = iterations;
      // Greedy decoding speaks sample 0, which is right; of two samples one is.
      assert.equal(first?.metrics['eval/test/greedy'], 1);
      assert.equal(first.metrics['eval/test/pass@1'], 0.5);
      assert.equal(first.metrics['eval/test/pass@2'], 1);
      for (const { metrics, samples } of trained) {
        assert.equal(metrics['reward/mean'], 0.5);
        assert.equal(metrics['reward/math/mean'], 0.5);
        assert.equal(metrics['reward/frac_zero_std'], 0);
        assert.ok((metrics['actor/grad_norm'] as number) > 0);
        for (const { response, reward, advantage } of samples) {
          assert.equal(reward, response.includes('-3') ? 0 : 1);
          assert.equal(Math.sign(advantage), reward === 1 ? 1 : -1);
        }
      }
      const gained = [end[0] - start[0], end[1] - start[1]] as const;
      assert.ok(gained[0] > gained[1] + 1, `right ${gained[0]}, wrong ${gained[1]}`);
    });
  }
});
