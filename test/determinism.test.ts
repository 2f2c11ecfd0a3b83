/** Same seed, same machine: same bytes. What may change without changing one, and what may not: docs/determinism.md. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Generation, type LoadOptions, Policy, type Tensor } from '../lib/index.js';
import { embeddedModel } from './support/data.js';
import { type Outcome, runVariant, type Variant } from './support/determinism-program.js';
import { forgetting } from './support/policy.js';

const program = fileURLToPath(new URL('./support/determinism-program.js', import.meta.url));

const KINDS: Readonly<Record<string, Pick<Variant, 'dtype' | 'lora'>>> = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  'an adapter on float32': { lora: true },
  'an adapter on bfloat16': { dtype: 'bfloat16', lora: true },
};

const loadOptions = ({ dtype = 'float32', lora }: Variant): LoadOptions => ({
  dtype,
  ...(lora ? { lora: { rank: 4, alpha: 8 } } : {}),
});

/** In a process of its own, with so many threads. */
async function runApart(variants: Variant[], threads: number, more: NodeJS.ProcessEnv = {}): Promise<Outcome[]> {
  const env = { ...process.env, ...more, OMP_NUM_THREADS: String(threads) };
  const { stdout } = await promisify(execFile)(process.execPath, [program, JSON.stringify(variants)], { env });
  const outcomes = JSON.parse(stdout) as Outcome[];
  for (const outcome of outcomes) assert.equal(outcome.threads, threads, 'the process has the threads it was to have');
  return outcomes;
}

const withoutThreads = ({ threads: _, ...outcome }: Outcome): Omit<Outcome, 'threads'> => outcome;

/** What a response is, to the last bit. */
const bytesOf = ({ tokens, logprob, entropy, finishReason }: Generation): string =>
  [tokens.join(), ...[logprob, entropy].map((x) => Buffer.from(x.slice().buffer).toString('hex')), finishReason].join(
    ' ',
  );

describe('a run', () => {
  for (const [name, kind] of Object.entries(KINDS)) {
    it(`of ${name} is the same bytes twice, with other rows at once, another cache, or less memory`, async () => {
      const base = await runVariant(kind);
      assert.ok(base.openFrac > 0, 'it does unlearn');
      const changes: Variant[] = [
        {},
        { maxRows: 3 },
        { cacheTokens: 128 },
        { gradientCheckpointing: true },
        { maxRows: 5, cacheTokens: 200, gradientCheckpointing: true },
      ];
      for (const change of changes) {
        assert.deepEqual(await runVariant({ ...kind, ...change }), base, JSON.stringify(change));
      }
      const other = await runVariant({ ...kind, seed: 8 });
      for (const key of ['weights', 'completions', 'metrics', 'first'] as const)
        assert.notEqual(other[key], base[key], `another seed is another run: ${key}`);
    });
  }

  it('is the same bytes with 1, 2, 3 or 4 threads, in processes of their own', async () => {
    const kinds = Object.values(KINDS);
    const base: unknown[] = [];
    for (const kind of kinds) base.push(withoutThreads(await runVariant(kind)));
    for (const threads of [1, 2, 3, 4]) {
      assert.deepEqual((await runApart(kinds, threads)).map(withoutThreads), base, `${threads} threads`);
    }
  });
});

/** What another order of additions may do: the largest that was seen is printed, for docs/determinism.md. */
describe('another instruction set', () => {
  it('changes log-probs by less than 1e-4', async (t) => {
    const own = await runVariant({ iterations: 1 });
    for (const EEPO_ISA of ['base', 'avx2', 'avx512']) {
      let other: Outcome | undefined;
      try {
        [other] = await runApart([{ iterations: 1 }], 2, { EEPO_ISA });
      } catch (error) {
        t.diagnostic(`${EEPO_ISA}: not on this machine (${String(error).slice(0, 200)})`);
        continue;
      }
      const far = Math.max(...own.probe.map((x, i) => Math.abs(x - (other?.probe[i] as number))));
      t.diagnostic(`${EEPO_ISA}: log-probs differ by at most ${far.toExponential(1)}`);
      assert.ok(far < 1e-4, `${EEPO_ISA}: ${far}`);
    }
  });
});

describe('a response', () => {
  const prompts = [[3, 5, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [4, 4], [9, 1, 3, 3, 7]];
  const generation = { maxNewTokens: 20, samplesPerPrompt: 3, seed: 11, iteration: 4, stopTokens: [] };

  for (const [name, kind] of Object.entries(KINDS)) {
    it(`of ${name} does not depend on what it is batched with, from theta or theta'`, async () => {
      using policy = await Policy.load(embeddedModel, loadOptions(kind));
      const stage1 = await policy.generate(prompts, generation);
      const seen = await policy.forget(
        {
          prompts: stage1.map(({ prompt }) => prompts[prompt] as number[]),
          responses: stage1.map(({ tokens }) => tokens),
        },
        forgetting(stage1, { eta: 0.05 }),
      );
      assert.ok(seen.paramChangedFrac > 0);
      for (const weights of ['policy', 'rollout'] as const) {
        const all = await policy.generate(prompts, { ...generation, weights });
        const of = (prompt: number): string[] => all.filter((response) => response.prompt === prompt).map(bytesOf);
        const orders = [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0], [2, 0], [1, 4, 3]];
        for (const ids of orders) {
          const some = await policy.generate(
            ids.map((id) => prompts[id] as number[]),
            { ...generation, weights, promptIds: ids },
          );
          for (const [at, id] of ids.entries()) {
            const own = some.filter(({ prompt }) => prompt === at).map(bytesOf);
            assert.deepEqual(own, of(id), `${weights}: prompt ${id} of ${ids}`);
          }
        }
        // One sample alone, by its number.
        const third = await policy.generate([prompts[2] as number[]], {
          ...generation,
          weights,
          samplesPerPrompt: 1,
          sampleOffset: 2,
          promptIds: [2],
        });
        assert.deepEqual(third.map(bytesOf), [of(2)[2]]);
      }
      assert.notEqual(bytesOf(stage1[0] as Generation), '');
    });

    it(`of ${name} has the same log-probs in any batch`, async () => {
      using policy = await Policy.load(embeddedModel, loadOptions(kind));
      const drawn = await policy.generate(prompts, generation);
      const rows = drawn.map(({ prompt, tokens }) => ({ prompt: prompts[prompt] as number[], response: tokens }));
      const logprobs = async (picked: typeof rows): Promise<string[]> => {
        const { logprob, entropy } = await policy.forward(
          { prompts: picked.map(({ prompt }) => prompt), responses: picked.map(({ response }) => response) },
          { keepActivations: false },
        );
        let at = 0;
        return picked.map(({ response }) => {
          const part = [logprob, entropy].map((x) =>
            Buffer.from(x.slice(at, at + response.length).buffer).toString('hex'),
          );
          at += response.length;
          return part.join(' ');
        });
      };
      const all = await logprobs(rows);
      assert.deepEqual((await logprobs([...rows].reverse())).reverse(), all);
      for (const [i, row] of rows.entries()) assert.deepEqual(await logprobs([row]), [all[i]], `row ${i} alone`);
      assert.deepEqual(await logprobs(rows.slice(3, 10)), all.slice(3, 10));
    });
  }
});

/** All values of named float32 tensors, which are disposed of. */
async function flat(tensors: Map<string, Tensor>): Promise<Float32Array> {
  const parts: number[] = [];
  for (const [, tensor] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    for (const value of (await tensor.data()) as Float32Array) parts.push(value);
    tensor.dispose();
  }
  return Float32Array.from(parts);
}

function relativeDistance(a: Float32Array, b: Float32Array): number {
  let [difference, size] = [0, 0];
  a.forEach((x, i) => {
    difference += (x - (b[i] as number)) ** 2;
    size += x ** 2;
  });
  return Math.sqrt(difference / size);
}

describe('the size of micro-batches', () => {
  it('changes no response that is drawn before the first update', async () => {
    const base = await runVariant({ iterations: 1 });
    const small = await runVariant({ iterations: 1, microBatchTokens: 64 });
    assert.equal(small.first, base.first);
    // What follows goes through sums over tokens: the next test has the bound.
    assert.notEqual(small.weights, base.weights, 'exact now: say so in docs/determinism.md');
  });

  for (const [name, kind] of Object.entries(KINDS)) {
    it(`changes the gradient of ${name} by less than 1e-6 of its length`, async (t) => {
      const train = async (rowsAtOnce: number): Promise<{ gradient: Float32Array; weights: Float32Array }> => {
        using policy = await Policy.load(embeddedModel, loadOptions(kind));
        const prompts = Array.from({ length: 8 }, (_, i) => [1 + i, 2, 3]);
        const options = { maxNewTokens: 16, samplesPerPrompt: 2, seed: 3, stopTokens: [] };
        const drawn = await policy.generate(prompts, options);
        let gradient: Float32Array | undefined;
        for (let step = 0; step < 3; step += 1) {
          for (let i = 0; i < drawn.length; i += rowsAtOnce) {
            const part = drawn.slice(i, i + rowsAtOnce);
            await policy.forward({
              prompts: part.map(({ prompt }) => prompts[prompt] as number[]),
              responses: part.map(({ tokens }) => tokens),
            });
            const a = part.flatMap(({ tokens }, row) =>
              tokens.map((_, t) => (((i + row) * 31 + t * 17) % 13) / 100 - 0.06),
            );
            await policy.backward(Float32Array.from(a), null);
          }
          gradient ??= await flat(await policy.gradients());
          await policy.step({ lr: 1e-3 });
        }
        return { gradient: gradient as Float32Array, weights: await flat(await policy.parameters()) };
      };
      const whole = await train(16);
      assert.ok(whole.gradient.some((x) => x !== 0));
      for (const rows of [8, 3, 1]) {
        const part = await train(rows);
        const distance = relativeDistance(whole.gradient, part.gradient);
        const drift = relativeDistance(whole.weights, part.weights);
        t.diagnostic(
          `${name}, ${rows} of 16 rows at once: gradient ${distance.toExponential(1)}, ` +
            `weights after 3 steps of 1e-3 ${drift.toExponential(1)} (relative, L2)`,
        );
        assert.ok(distance < 1e-6, `${rows} rows at once: ${distance}`);
        assert.ok(drift < 1e-4, `${rows} rows at once: ${drift}`);
      }
      assert.deepEqual(await train(16), whole);
    });
  }
});
