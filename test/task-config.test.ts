/** [task] and [reward] of a configuration: what they load, and what they refuse. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ConfigError, InvalidFileError } from '../lib/errors.js';
import { type RewardInput, type Task, verifierReward } from '../lib/tasks/index.js';
import { computeRewards, rewardList } from '../lib/tasks/rewards.js';
import { loadTrainConfig } from '../lib/train/config.js';
import { loadTask } from '../lib/train/task.js';
import { ROOT } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';

const fixture = (name: string): string => fileURLToPath(new URL(`../../test/fixtures/tasks/${name}`, import.meta.url));
/** One token a word. */
const words = {
  encodePrompt: (prompt: string | readonly { content: string }[]) =>
    (typeof prompt === 'string' ? prompt : prompt.map(({ content }) => content).join(' '))
      .split(/\s+/)
      .map((_, i) => i),
};

function configure(t: TestContext, text: string, files: Record<string, string> = {}) {
  const folder = writeFiles(temporaryFolder(t), { 'run.toml': `[model]\npath = "m"\n${text}`, ...files });
  return { folder, config: loadTrainConfig(join(folder, 'run.toml')) };
}

const load = (t: TestContext, text: string, files?: Record<string, string>): Promise<Task> =>
  loadTask(configure(t, text, files).config, words);

const refused = (t: TestContext, text: string, message: RegExp): void =>
  assert.throws(
    () => configure(t, text),
    (error) => error instanceof ConfigError && message.test(error.message),
  );

const answers = (task: Task, ...responses: string[]): RewardInput[] =>
  responses.map((response) => ({ problem: task.splits.train![0]!, response, tokens: [], finishReason: 'stop' }));

const gsm8k = `[task]\nname = "gsm8k"\npath = ${JSON.stringify(fixture('gsm8k.jsonl'))}\n`;

describe('[task]', () => {
  it('takes one path or several; those of the hub stay as they are', (t) => {
    const { folder, config } = configure(
      t,
      '[task]\nname = "jsonl"\npath = ["a.jsonl", "/b/*.jsonl", "hf://datasets/o/n/c.jsonl"]\nevalPath = "d.jsonl"\n',
    );
    assert.deepEqual(config.task.path, [join(folder, 'a.jsonl'), '/b/*.jsonl', 'hf://datasets/o/n/c.jsonl']);
    assert.equal(config.task.evalPath, join(folder, 'd.jsonl'));
    refused(t, '[task]\npath = [3]\n', /task\.path = \[3\]: expected a path or a list of paths/);
  });

  it('hands every option on', async (t) => {
    const rows = Array.from({ length: 9 }, (_, i) => ({
      q: { text: `number ${i}` },
      a: `${i}`,
      level: 1 + (i % 5),
      more: i,
    }));
    const task = await load(
      t,
      '[task]\nname = "math"\npath = "*.jsonl"\nevalPath = "train.jsonl"\npromptColumn = "q.text"\nanswerColumn = "a"\n' +
        'metaColumns = ["more"]\npromptStyle = "chat"\nsystem = "S"\ntemplate = "Q {prompt}"\nlevels = [1, 5]\n' +
        'maxProblems = 3\nshuffleSeed = 0\n',
      { 'train.jsonl': rows.map((row) => `${JSON.stringify(row)}\n`).join('') },
    );
    assert.equal(task.splits.test?.length, 9);
    const train = task.splits.train ?? [];
    assert.equal(train.length, 3);
    for (const { prompt, answer, meta } of train) {
      assert.ok(['0', '4', '5'].includes(String(answer)));
      assert.deepEqual(meta, { more: Number(answer) });
      assert.deepEqual(prompt, [
        { role: 'system', content: 'S' },
        { role: 'user', content: `Q number ${answer}` },
      ]);
    }
  });

  it('leaves out and counts what is too long', async (t) => {
    const task = await load(t, `${gsm8k}promptStyle = "plain"\nmaxPromptTokens = 15\n`);
    assert.equal(task.splits.train?.length, 3);
    assert.match(String(task.notes), /gsm8k\.jsonl: 1 of 4 prompts are longer than 15 tokens/);
  });

  it('needs a file where there is no data set of its own', (t) => {
    for (const name of ['jsonl', 'parquet', 'verl']) {
      refused(t, `[task]\nname = "${name}"\n`, new RegExp(`task.path is missing; task.name = "${name}" needs a file`));
    }
    refused(t, `${gsm8k}template = "Q:"\n`, /task\.template = "Q:": expected a text that contains \{prompt\}/);
    refused(t, `${gsm8k}reward = "math"\n`, /task\.reward is not a key of \[task\]/);
  });

  it('says which row is wrong', async (t) => {
    await assert.rejects(
      load(t, '[task]\nname = "gsm8k"\npath = "x.jsonl"\n', {
        'x.jsonl': '{"question": "a", "answer": "#### 1"}\n{}\n',
      }),
      (error: Error) => error instanceof InvalidFileError && /x\.jsonl:2: no column "question"/.test(error.message),
    );
  });
});

it('every configuration of docs/tasks.md is one', (t) => {
  const page = readFileSync(join(ROOT, 'docs', 'tasks.md'), 'utf8');
  const blocks = [...page.matchAll(/```toml\n([^`]+)```/g)].map(([, block]) => block as string);
  assert.ok(blocks.length >= 6);
  for (const block of blocks) configure(t, block);
});

describe('[reward]', () => {
  const module = 'export default (batch) => batch.map(({ response }) => (response.includes("so") ? 1 : null));';

  it('is the verifier alone by default', async (t) => {
    const task = await load(t, gsm8k);
    assert.equal(task.reward, verifierReward('math'));
    assert.equal(task.rewards, undefined);
    assert.deepEqual(rewardList(undefined, task.reward), [{ name: 'math', fn: task.reward }]);
    assert.deepEqual(await task.reward(answers(task, '\\boxed{7}', '#### 7', 'x')), [1, 1, 0]);
    const strict = await load(t, `${gsm8k}[reward]\nverifier = "gsm8k"\n`);
    assert.equal(rewardList(undefined, strict.reward)[0]?.name, 'gsm8k');
    assert.equal(rewardList(undefined, (batch) => batch.map(() => 1))[0]?.name, null);
    assert.deepEqual(await strict.reward(answers(strict, '\\boxed{7}', '#### 7', 'x')), [0, 1, 0]);
  });

  it('adds a module in training; evaluation asks the verifier alone', async (t) => {
    const task = await load(t, `${gsm8k}[reward]\nmodule = "./style.mjs"\nmoduleWeight = 0.25\nweight = 2\n`, {
      'style.mjs': module,
    });
    const batch = answers(task, 'so \\boxed{7}', '\\boxed{7}', 'so \\boxed{8}');
    const { rewards, metrics } = await computeRewards(task.rewards ?? [], batch, { task: 'x' });
    assert.deepEqual(rewards, [2.25, 2, 0.25]);
    assert.ok(Math.abs((metrics['reward/style/null_frac'] as number) - 1 / 3) < 1e-12);
    assert.equal(metrics['reward/math/mean'], 2 / 3);
    assert.deepEqual(await task.reward(batch), [1, 1, 0]);
  });

  it('may be the module alone, and may be added to countdown', async (t) => {
    const alone = await load(t, `${gsm8k}[reward]\nverifier = "none"\nmodule = "r.mjs"\n`, { 'r.mjs': module });
    assert.deepEqual(await alone.reward(answers(alone, 'so', 'x')), [1, null]);
    const countdown = await load(t, '[reward]\nmodule = "r.mjs"\n', { 'r.mjs': module });
    assert.deepEqual(
      countdown.rewards?.map(({ name }) => name),
      ['countdown', 'r'],
    );
    assert.equal((await load(t, '')).rewards, undefined);
  });

  it('refuses what rewards nothing, and a verifier that does not fit', (t) => {
    refused(t, `${gsm8k}[reward]\nverifier = "none"\n`, /reward\.verifier = "none" leaves nothing that rewards/);
    refused(t, '[reward]\nverifier = "math"\n', /task\.name = "countdown" has a verifier of its own/);
    refused(t, '[reward]\noverlong = "mask"\n', /reward\.overlong = "mask": expected one of "verify", "zero", "null"/);
  });
});
