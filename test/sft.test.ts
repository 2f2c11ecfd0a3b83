import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { AbortedError, ConfigError, InvalidFileError, NonFiniteError } from '../lib/errors.js';
import type { StepReport } from '../lib/policy.js';
import type { Demonstration } from '../lib/tasks/types.js';
import {
  cycle,
  type DemonstrationTokenizer,
  readDemonstrations,
  tokenizeDemonstration,
} from '../lib/train/demonstrations.js';
import { cosineSchedule, type SftStep, SftTrainer, type SftTrainerOptions } from '../lib/train/sft.js';
import { defineSftConfig, loadSftConfig } from '../lib/train/sft-config.js';
import { FakePolicy } from './support/fake-policy.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-sft-'));

const tokenizer: DemonstrationTokenizer = {
  encodePrompt: (text) => text.split(' ').filter(Boolean).map(Number),
  encode: (text) => text.split(' ').filter(Boolean).map(Number),
  eosTokenIds: [0],
};

/** Successor of each number: 1 2 -> 3 4. */
const counting: Demonstration[] = [1, 2, 3, 4, 5].map((n) => ({ prompt: `${n}`, response: `${n + 1} ${n + 2} 0` }));

type SftSections = NonNullable<Parameters<typeof defineSftConfig>[0]>;

function sft(sections: SftSections = {}, options: Partial<SftTrainerOptions> = {}) {
  const policy = (options.policy as FakePolicy | undefined) ?? new FakePolicy();
  const config = defineSftConfig({
    run: { steps: 60, ...sections.run },
    optimizer: { lr: 0.1, batchSize: 5, ...sections.optimizer },
    data: { name: 'countdown', ...sections.data },
  });
  const trainer = new SftTrainer({ tokenizer, demonstrations: cycle(counting, 1), config, ...options, policy });
  return { trainer, policy };
}

async function collect(trainer: SftTrainer): Promise<SftStep[]> {
  const steps: SftStep[] = [];
  for await (const step of trainer) steps.push(step);
  return steps;
}

describe('supervised fine-tuning', () => {
  it('lowers the loss to near zero on what can be learned by heart', async () => {
    const { trainer, policy } = sft();
    const steps = await collect(trainer);
    assert.equal(steps.length, 60);
    const loss = (i: number): number => steps.at(i)?.metrics['sft/loss'] as number;
    assert.ok(loss(0) > 1 && loss(-1) < loss(0) / 4, `loss went from ${loss(0)} to ${loss(-1)}`);
    const [one] = await policy.generate([[1]], { maxNewTokens: 2, temperature: 0 });
    assert.deepEqual(one?.tokens, [2, 3]);
  });

  it('starts with the mean negative log-likelihood of the response tokens', async () => {
    const { trainer, policy } = sft({ run: { steps: 1 }, optimizer: { lr: 0 } });
    const { logprob } = await policy.forward({
      prompts: await Promise.all(counting.map(({ prompt }) => tokenizer.encodePrompt(prompt))),
      responses: await Promise.all(counting.map(({ response }) => tokenizer.encode(response))),
    });
    const [step] = await collect(trainer);
    const expected = -logprob.reduce((sum, l) => sum + l, 0) / logprob.length;
    assert.ok(Math.abs((step?.metrics['sft/loss'] as number) - expected) < 1e-6);
  });

  it('does not depend on the micro-batch size', async () => {
    const weights = async (microBatchTokens: number): Promise<Float64Array> => {
      const { trainer, policy } = sft({ run: { steps: 5 }, optimizer: { microBatchTokens } });
      await collect(trainer);
      return policy.theta;
    };
    const [small, large] = [await weights(4), await weights(1000)];
    small.forEach((w, i) => {
      assert.ok(Math.abs(w - (large[i] as number)) < 1e-6);
    });
  });

  it('warms up and follows the cosine to its end', () => {
    const options = { steps: 101, warmupSteps: 10, finalLrFraction: 0.1 };
    assert.equal(cosineSchedule(0, options), 0.1);
    assert.equal(cosineSchedule(9, options), 1);
    assert.equal(cosineSchedule(10, options), 1);
    assert.ok(Math.abs(cosineSchedule(55, options) - 0.55) < 1e-12);
    assert.ok(Math.abs(cosineSchedule(100, options) - 0.1) < 1e-12);
    const rates = Array.from({ length: 91 }, (_, i) => cosineSchedule(10 + i, options));
    assert.ok(rates.every((rate, i) => i === 0 || rate < (rates[i - 1] as number)));
    assert.equal(cosineSchedule(0, { steps: 1, warmupSteps: 0, finalLrFraction: 0 }), 1);
  });

  it('ends responses with one end-of-sequence token', async () => {
    const withEos = async (response: string, append: boolean) =>
      (await tokenizeDemonstration({ prompt: '1', response }, tokenizer, append)).response;
    assert.deepEqual(await withEos('4 5', true), [4, 5, 0]);
    assert.deepEqual(await withEos('4 0', true), [4, 0]);
    assert.deepEqual(await withEos('4 5', false), [4, 5]);
  });

  it('stops when aborted and when the gradients are not finite', async () => {
    await assert.rejects(collect(sft({}, { signal: AbortSignal.abort() }).trainer), AbortedError);
    class Broken extends FakePolicy {
      override async step(): Promise<StepReport> {
        return { gradNorm: Number.NaN, applied: false };
      }
    }
    await assert.rejects(collect(sft({}, { policy: new Broken() }).trainer), NonFiniteError);
  });

  it('refuses demonstrations that do not fit or are empty', async () => {
    const long = { prompt: '1', response: Array(70).fill('2').join(' ') };
    const one = (demonstration: Demonstration) => sft({}, { demonstrations: cycle([demonstration], 0) }).trainer;
    await assert.rejects(collect(one(long)), /has 72 tokens, the model's context 64/);
    await assert.rejects(collect(one({ prompt: '', response: '1' })), /empty prompt or response/);
    const finite = sft({}, { demonstrations: counting[Symbol.iterator]() }).trainer;
    await assert.rejects(
      collect(finite),
      (error: Error) => error instanceof ConfigError && /ended before/.test(error.message),
    );
  });
});

describe('demonstrations in JSONL', () => {
  const write = (name: string, text: string | Buffer): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };

  it('are read, plain and gzipped', async () => {
    const text = '{"q": "a", "r": "b"}\n\n{"q": "c", "r": "d"}\n';
    const expected = [
      { prompt: 'a', response: 'b' },
      { prompt: 'c', response: 'd' },
    ];
    assert.deepEqual(await readDemonstrations(write('a.jsonl', text), 'q', 'r'), expected);
    assert.deepEqual(await readDemonstrations(write('a.jsonl.gz', gzipSync(text)), 'q', 'r'), expected);
  });

  it('are refused with file and line', async () => {
    const cases: [string, RegExp][] = [
      ['{"q": "a"}', /x\.jsonl:1: column "r" is missing.*columns here: q/],
      ['{"q": "a", "r": "b"}\n{"q": "a", "r": 3}', /x\.jsonl:2: column "r" is 3/],
      ['{"q": "a", "r": "b"}\nnonsense', /x\.jsonl:2: not valid JSON/],
      ['\n', /no demonstrations/],
    ];
    for (const [text, message] of cases) {
      await assert.rejects(
        readDemonstrations(write('x.jsonl', text), 'q', 'r'),
        (error: Error) => error instanceof InvalidFileError && message.test(error.message),
      );
    }
    await assert.rejects(readDemonstrations(join(folder, 'none.jsonl'), 'q', 'r'), /none\.jsonl: .*no such file/);
  });
});

describe('configuration of sft', () => {
  const file = (text: string): string => {
    const path = join(folder, 'sft.toml');
    writeFileSync(path, text);
    return path;
  };

  it('needs exactly one of path and create, and data', () => {
    assert.throws(() => loadSftConfig(file('[data]\nname = "countdown"\n')), /exactly one of path .* and create/);
    const both = '[model]\npath = "a"\ncreate = "b"\n[data]\nname = "countdown"\n';
    assert.throws(() => loadSftConfig(file(both)), /exactly one/);
    assert.throws(() => loadSftConfig(file('[model]\npath = "a"\n')), /data\.path is missing/);
    assert.throws(() => loadSftConfig(file(both), ['run.step=3']), /run\.step is not a key.*run\.steps\?/);
  });

  it('accepts the recipe of the embedded policy', () => {
    const config = loadSftConfig(join(import.meta.dirname, '../../configs/countdown-sft.toml'));
    assert.match(config.model.create, /models\/countdown$/);
    assert.equal(config.data.name, 'countdown');
  });
});
