import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AbortedError, DisposedError, InvalidArgumentError, NonFiniteError } from '../lib/errors.js';
import {
  ascend,
  type ComplementaryLossInput,
  complementaryLoss,
  sample,
  tokenGrad,
  tokenStats,
} from '../lib/kernels.js';
import * as reference from '../lib/reference.js';
import { scope } from '../lib/scope.js';
import { type FloatDType, Tensor, tensorMemory } from '../lib/tensor.js';

/** Deterministic numbers in [0, 1). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let word = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    return ((word ^ (word >>> 15)) >>> 0) * 2 ** -32;
  };
}

function normal(next: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

const flavours: Record<string, (next: () => number, vocab: number) => number[]> = {
  plain: (next, vocab) => Array.from({ length: vocab }, () => 2 * normal(next)),
  'shifted by +300': (next, vocab) => Array.from({ length: vocab }, () => 300 + normal(next)),
  'shifted by -300': (next, vocab) => Array.from({ length: vocab }, () => -300 + normal(next)),
  'all negative': (next, vocab) => Array.from({ length: vocab }, () => -Math.abs(5 * normal(next)) - 1),
  'with -Infinity': (next, vocab) =>
    Array.from({ length: vocab }, (_, j) => (j % 3 === 1 ? -Infinity : 2 * normal(next))),
  'p near 1': (next, vocab) => Array.from({ length: vocab }, (_, j) => (j === 0 ? 20 : normal(next))),
  'p near 1e-6': (next, vocab) => Array.from({ length: vocab }, (_, j) => (j === 0 ? -14 : normal(next) / 4)),
};

interface Matrix {
  tensor: Tensor;
  /** What the tensor really holds, in its dtype. */
  rows: Float32Array[];
  targets: number[];
}

/** One row of every flavour; the target is entry 0 where it matters. */
async function matrix(vocab: number, dtype: FloatDType, seed = 1): Promise<Matrix> {
  const next = generator(seed);
  const values = Object.values(flavours).map((row) => row(next, vocab));
  const tensor = Tensor.from(values, { dtype });
  return {
    tensor,
    rows: rowsOf(await tensor.data(), vocab),
    targets: values.map((_, r) => (r < 4 ? (r * 7) % vocab : 0)),
  };
}

function rowsOf(data: Float32Array, vocab: number): Float32Array[] {
  return Array.from({ length: data.length / vocab }, (_, r) => data.slice(r * vocab, (r + 1) * vocab));
}

function close(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative: number,
  absolute: number,
  what = '',
): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  for (let i = 0; i < expected.length; i++) {
    const [x, y] = [actual[i] as number, expected[i] as number];
    const good = Object.is(x, y) || x === y || Math.abs(x - y) <= absolute + relative * Math.abs(y);
    assert.ok(good, `${what}[${i}]: ${x}, reference ${y}`);
  }
}

async function checkStats(
  got: Awaited<ReturnType<typeof tokenStats>>,
  want: reference.TokenStatsReference,
): Promise<void> {
  close(await got.logprob.data(), want.logprob, 2e-6, 1e-6, 'logprob');
  close(await got.entropy.data(), want.entropy, 1e-5, 1e-6, 'entropy');
  close(await got.oneMinusP.data(), want.oneMinusP, 1e-5, 1e-30, 'oneMinusP');
}

describe('tokenStats', () => {
  for (const vocab of [1, 37, 1000, 50257]) {
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      test(`logits ${dtype}, vocabulary ${vocab}`, async () => {
        for (const temperature of [1, 0.7, 2]) {
          const { tensor, rows, targets } = await matrix(vocab, dtype);
          const got = await tokenStats(tensor, targets, { temperature });
          await checkStats(got, reference.tokenStatsReference(rows, targets, Math.fround(temperature)));
          tensor.dispose();
        }
      });
    }
  }

  test('a target of probability 0 has log-prob -Infinity and 1 - p = 1', async () => {
    const got = await tokenStats(Tensor.from([[-Infinity, 1, 2]]), [0]);
    assert.deepEqual(await got.logprob.data(), Float32Array.of(-Infinity));
    assert.deepEqual(await got.oneMinusP.data(), Float32Array.of(1));
    assert.ok(Number.isFinite(await got.entropy.item()));
  });

  test('NaN and +Infinity give NaN in their row and nowhere else', async () => {
    const got = await tokenStats(
      Tensor.from([
        [Number.NaN, 1],
        [Infinity, 1],
        [0, 0],
      ]),
      [1, 1, 1],
    );
    const logprob = await got.logprob.data();
    assert.deepEqual([Number.isNaN(logprob[0]), Number.isNaN(logprob[1])], [true, true]);
    assert.ok(Math.abs((logprob[2] as number) + Math.LN2) < 1e-7);
  });

  test('the fused head equals its logits; every kind of targets is the same', async () => {
    const [rows, dim, vocab] = [67, 24, 211];
    const next = generator(5);
    const random = (count: number) => Float32Array.from({ length: count }, () => normal(next));
    const [hidden, head] = [random(rows * dim), random(vocab * dim)];
    const targets = Array.from({ length: rows }, (_, r) => (r * 31) % vocab);
    const want = reference.tokenStatsReference(product(hidden, head, dim), targets, 1);
    const input = {
      hidden: Tensor.from(hidden, { shape: [rows, dim] }),
      head: Tensor.from(head, { shape: [vocab, dim] }),
    };
    const kinds = [
      targets,
      Int32Array.from(targets),
      BigInt64Array.from(targets.map(BigInt)),
      Tensor.from(Int32Array.from(targets)),
    ];
    for (const kind of kinds) {
      const got = await tokenStats(input, kind);
      close(await got.logprob.data(), want.logprob, 1e-5, 1e-5, 'logprob');
      close(await got.entropy.data(), want.entropy, 1e-5, 1e-5, 'entropy');
      close(await got.oneMinusP.data(), want.oneMinusP, 1e-4, 1e-7, 'oneMinusP');
    }
  });

  test('no rows', async () => {
    for (const input of [Tensor.zeros([0, 5]), { hidden: Tensor.zeros([0, 4]), head: Tensor.zeros([5, 4]) }]) {
      const got = await tokenStats(input, []);
      assert.deepEqual([got.logprob.shape, (await got.entropy.data()).length], [[0], 0]);
    }
  });
});

/** hidden head^T in double. */
function product(hidden: Float32Array, head: Float32Array, dim: number): Float64Array[] {
  return rowsOf(hidden, dim).map((x) =>
    Float64Array.from(rowsOf(head, dim), (w) => w.reduce((sum, value, i) => sum + value * (x[i] as number), 0)),
  );
}

describe('tokenGrad', () => {
  for (const vocab of [1, 37, 1000, 50257]) {
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      test(`logits ${dtype}, vocabulary ${vocab}, in place`, async () => {
        for (const temperature of [1, 0.7]) {
          const { tensor, rows, targets } = await matrix(vocab, dtype, 2);
          const a = rows.map((_, r) => [-1, 0.5, 2, 0, -0.25, 3, -1][r] as number);
          const b = rows.map((_, r) => [0, 1, -0.5, 0, 0.125, 0, 2][r] as number);
          const want = reference.tokenGradReference(rows, targets, a, b, Math.fround(temperature));
          const same = await tokenGrad(tensor, targets, { a, b, temperature });
          assert.equal(same, tensor);
          // Absolute errors count against what the entries are made of: a + b (log p + H).
          const relative = { float32: 1e-4, bfloat16: 2 ** -8, float16: 2 ** -10 }[dtype];
          const absolute = { float32: 1e-7, bfloat16: 1e-7, float16: 2 ** -24 }[dtype];
          const got = rowsOf(await tensor.data(), vocab);
          want.forEach((row, r) => {
            close(got[r] as Float32Array, row, relative, absolute + 2e-6 * Math.max(...row.map(Math.abs)), `row ${r}`);
          });
          tensor.dispose();
        }
      });
    }
  }

  test('the gradients of hidden states and head, with rows dropped, agree with the reference and with finite differences', async () => {
    const [rows, dim, vocab] = [9, 8, 53];
    const next = generator(6);
    const hidden = Float32Array.from({ length: rows * dim }, () => normal(next));
    const head = Float32Array.from({ length: vocab * dim }, () => normal(next));
    const targets = Array.from({ length: rows }, (_, r) => (r * 5) % vocab);
    const a = Float32Array.from({ length: rows }, (_, r) => (r % 3 === 1 ? 0 : normal(next)));
    const b = Float32Array.from({ length: rows }, (_, r) => (r % 3 === 1 ? 0 : normal(next)));
    const input = {
      hidden: Tensor.from(hidden, { shape: [rows, dim] }),
      head: Tensor.from(head, { shape: [vocab, dim] }),
    };
    const got = await tokenGrad(input, targets, { a: Tensor.from(a), b });
    assert.deepEqual(
      [got.hidden.shape, got.head.shape],
      [
        [rows, dim],
        [vocab, dim],
      ],
    );
    const dz = reference.tokenGradReference(product(hidden, head, dim), targets, a, b);
    const wantHidden = dz.flatMap((row) =>
      Array.from({ length: dim }, (_, d) => row.reduce((sum, g, j) => sum + g * (head[j * dim + d] as number), 0)),
    );
    const wantHead = Array.from({ length: vocab * dim }, (_, i) =>
      dz.reduce(
        (sum, row, r) => sum + (row[Math.floor(i / dim)] as number) * (hidden[r * dim + (i % dim)] as number),
        0,
      ),
    );
    close(await got.hidden.data(), wantHidden, 1e-4, 1e-6, 'hidden');
    close(await got.head.data(), wantHead, 1e-4, 1e-6, 'head');

    const loss = (x: Float32Array | Float64Array): number => {
      const stats = reference.tokenStatsReference(product(x as Float32Array, head, dim), targets);
      return stats.logprob.reduce(
        (sum, l, r) => sum + (a[r] as number) * l + (b[r] as number) * (stats.entropy[r] as number),
        0,
      );
    };
    const gradient = await got.hidden.data();
    for (const at of [0, 13, 40, 71]) {
      const [up, down] = [Float64Array.from(hidden), Float64Array.from(hidden)];
      up[at] = (hidden[at] as number) + 1e-5;
      down[at] = (hidden[at] as number) - 1e-5;
      assert.ok(Math.abs((loss(up) - loss(down)) / 2e-5 - (gradient[at] as number)) < 1e-4, `hidden[${at}]`);
    }
    assert.deepEqual(gradient.slice(dim, 2 * dim), new Float32Array(dim), 'a dropped row is 0');
  });

  test('no rows, and b left out', async () => {
    const empty = Tensor.zeros([0, 5]);
    assert.equal(await tokenGrad(empty, [], { a: [] }), empty);
    const fused = await tokenGrad({ hidden: Tensor.zeros([0, 4]), head: Tensor.zeros([5, 4]) }, [], { a: [] });
    assert.deepEqual(await fused.head.data(), new Float32Array(20));
    const logits = Tensor.from([[1, 2, 3]]);
    await tokenGrad(logits, [2], { a: [1], b: null });
    close(await logits.data(), reference.tokenGradReference([[1, 2, 3]], [2], [1])[0] as Float64Array, 1e-6, 0);
  });
});

describe('complementaryLoss', () => {
  const offsets = [0, 4, 4, 11, 12];
  const logprob = Float32Array.from([-0.01, -1e-7, -20, -0.5, -0.3, -1e-4, -2, -0.05, -0.7, -3e-6, -16, 0]);
  const entropy = Float32Array.from([0.1, 0.2, 0.5, 0.05, 0.9, 0.01, 0.02, 0, 0.29, 0.31, 0.1, 0]);

  for (const clampGrad of ['zero', 'saturate'] as const) {
    for (const options of [
      {},
      { alpha: Infinity },
      { alpha: 0.2, window: 1 },
      { window: 50 },
      { epsLow: 0, epsHigh: 0.1 },
    ]) {
      test(`${clampGrad}, ${JSON.stringify(options)}`, async () => {
        const weight = Float32Array.of(0.25, 1, 0.5, 2);
        for (const extra of [{}, { weight }]) {
          const want = reference.complementaryLossReference(logprob, entropy, offsets, {
            clampGrad,
            ...options,
            ...extra,
          });
          const got = await complementaryLoss({ logprob, entropy, offsets, clampGrad, ...options, ...extra });
          close([got.loss], [want.loss], 1e-5, 1e-7, 'loss');
          close(await got.a.data(), want.a, 1e-5, 1e-9, 'a');
          assert.deepEqual(got.gate, want.gate);
          const counts = ['tokens', 'openTokens', 'clampedLow', 'clampedHigh', 'activeTokens'] as const;
          for (const name of counts) assert.equal(got[name], want[name], name);
        }
      });
    }
  }

  test('1 - p given is used; Tensors are taken', async () => {
    const oneMinusP = logprob.map((l) => -Math.expm1(l));
    const want = reference.complementaryLossReference(logprob, entropy, offsets, { oneMinusP });
    const got = await complementaryLoss({
      logprob: Tensor.from(logprob),
      entropy: Tensor.from(entropy),
      oneMinusP: Tensor.from(oneMinusP),
      offsets: Tensor.from(Int32Array.from(offsets)),
    });
    close(await got.a.data(), want.a, 1e-5, 1e-9, 'a');
  });

  test('in chunks with `carry` it is the whole', async () => {
    const whole = await complementaryLoss({ logprob, entropy, offsets: [0, 12], weight: [1] });
    for (const make of [(x: Float32Array) => x, (x: Float32Array) => Tensor.from(x, { shape: [1, 2] })]) {
      const carry = make(new Float32Array(2).fill(Number.NaN));
      const gate: number[] = [];
      let loss = 0;
      for (const [from, to] of [
        [0, 1],
        [1, 6],
        [6, 12],
      ] as const) {
        const chunk = { logprob: logprob.slice(from, to), entropy: entropy.slice(from, to), offsets: [0, to - from] };
        const got = await complementaryLoss({ ...chunk, weight: [1], carry });
        gate.push(...got.gate);
        loss += got.loss;
      }
      assert.deepEqual(gate, [...whole.gate]);
      close([loss], [whole.loss], 1e-6, 0);
    }
  });

  test('nothing', async () => {
    const got = await complementaryLoss({ logprob: [], entropy: [], offsets: [0] });
    assert.deepEqual([got.loss, got.tokens, got.a.shape], [0, 0, [0]]);
  });

  const misuse: [string, Partial<Record<keyof ComplementaryLossInput, unknown>>, RegExp][] = [
    ['entropy', { entropy: [1] }, /entropy must have shape \[12\], one per token, got \[1\]/],
    ['no entropy', { entropy: undefined }, /entropy must be a float32 Tensor.* got undefined/],
    ['first offset', { offsets: [1, 12] }, /offsets\[0\] must be 0, got 1/],
    ['last offset', { offsets: [0, 11] }, /must end with the number of tokens, 12, got 11/],
    ['decreasing offsets', { offsets: [0, 5, 3, 12] }, /offsets\[2\] is 3 after 5/],
    ['no offsets', { offsets: [] }, /offsets must have shape/],
    ['weight', { weight: [1] }, /weight must have shape \[4\], one per sequence/],
    ['window', { window: 0 }, /window must be an integer from 1/],
    ['alpha', { alpha: Number.NaN }, /alpha must be a number, got NaN/],
    ['epsLow', { epsLow: -1 }, /epsLow must be in \[0, 1\)/],
    ['both eps', { epsLow: 0.6, epsHigh: 0.5 }, /epsLow \+ epsHigh must be less than 1/],
    ['clampGrad', { clampGrad: 'no' }, /clampGrad must be 'zero' or 'saturate', got 'no'/],
    ['carry', { carry: new Float32Array(3) }, /carry: data has 3 elements, but shape \[4, 2\] needs 8/],
  ];
  for (const [name, change, message] of misuse) {
    test(`misuse: ${name}`, async () => {
      const input = { logprob, entropy, offsets, ...change } as ComplementaryLossInput;
      await assert.rejects(complementaryLoss(input), (error: Error) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.match(error.message, message);
        return true;
      });
    });
  }
});

describe('ascend', () => {
  const param = Float32Array.from({ length: 1003 }, (_, i) => Math.sin(i) * 2);
  const grad = Float32Array.from({ length: 1003 }, (_, i) => Math.cos(3 * i));

  for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
    test(`into ${dtype} is the rounded reference; params are not written`, async () => {
      const params = [Tensor.from(param), Tensor.from(param.subarray(0, 7))];
      const into = [Tensor.zeros([1003], { dtype }), Tensor.zeros([7], { dtype })] as Tensor[];
      const report = await ascend(params, [Tensor.from(grad), null], { eta: 0.01, into });
      const want = reference.ascendReference(param, grad, 0.01, dtype);
      assert.deepEqual(Float64Array.from(await (into[0] as Tensor).data()), want);
      assert.deepEqual(
        Float64Array.from(await (into[1] as Tensor).data()),
        reference.ascendReference(param.subarray(0, 7), null, 0.01, dtype),
      );
      assert.deepEqual(await (params[0] as Tensor).data(), param);
      const cast = reference.ascendReference(param, null, 0, dtype);
      assert.deepEqual(report, { elements: 1010, changed: want.filter((x, i) => x !== cast[i]).length });
    });
  }

  test('eta = 0 undoes a step, to the byte', async () => {
    const [params, into] = [[Tensor.from(param)], [Tensor.zeros([1003])]];
    await ascend(params, [Tensor.from(grad)], { eta: 1, into });
    const report = await ascend(params, [Tensor.from(grad)], { eta: 0, into });
    assert.deepEqual(await (into[0] as Tensor).data(), param);
    assert.equal(report.changed, 0);
  });

  test('stochastic rounding: neighbours, unbiased, repeatable', async () => {
    const [size, start, step] = [20_000, 1, 2 ** -11]; // a sixteenth of bfloat16's unit 2^-7 above 1
    const params = [Tensor.from(new Float32Array(size).fill(start))];
    const grads = [Tensor.from(new Float32Array(size).fill(1))];
    const draw = async (seed: number, rounding: 'nearest' | 'stochastic') => {
      const into = [Tensor.zeros([size], { dtype: 'bfloat16' }) as unknown as Tensor];
      const { changed } = await ascend(params, grads, { eta: step, into, rounding, seed });
      return { changed, data: await (into[0] as Tensor).data() };
    };
    assert.equal((await draw(0, 'nearest')).changed, 0, 'nearest rounding loses the step');
    const first = await draw(1, 'stochastic');
    assert.ok(first.data.every((x) => x === 1 || x === 1 + 2 ** -7));
    // 1250 expected, standard deviation 34
    assert.ok(Math.abs(first.changed - size / 16) < 170, `${first.changed} moved`);
    assert.deepEqual((await draw(1, 'stochastic')).data, first.data);
    assert.notDeepEqual((await draw(2, 'stochastic')).data, first.data);
  });

  test('in place when asked; a tied storage is stepped once', async () => {
    const tied = Tensor.from([1, 2]);
    const view = tied.reshape([2]);
    const params = [tied, view];
    const report = await ascend(params, [Tensor.from([1, 1]), null], { eta: 1, into: params });
    assert.deepEqual(await tied.data(), Float32Array.of(2, 3));
    assert.deepEqual(report, { elements: 2, changed: 2 });
    // Two separate results both take the one gradient.
    const into = [Tensor.zeros([2]), Tensor.zeros([2])];
    await ascend(params, [Tensor.from([1, 1]), null], { eta: 1, into });
    for (const result of into) assert.deepEqual(await result.data(), Float32Array.of(3, 4));
  });

  test('misuse', async () => {
    const one = () => Tensor.zeros([4]);
    const tied = one();
    const wide = Tensor.zeros([2, 4]);
    const cases: [Promise<unknown>, RegExp][] = [
      [ascend([one()], [null], {} as never), /into must be given/],
      [ascend([one()], [null], undefined as never), /ascend needs options/],
      [ascend([one()], [], { eta: 1, into: [one()] }), /grads must have one entry per parameter, 1, got 0/],
      [ascend([one()], [null], { eta: 1, into: [] }), /into must have one entry per parameter/],
      [
        ascend([one()], [Tensor.zeros([3])], { eta: 1, into: [one()] }),
        /grads\[0\] must have the shape .*\[4\], got \[3\]/,
      ],
      [ascend([one()], [null], { eta: 1, into: [wide] }), /into\[0\] must have the shape/],
      [ascend([one()], [null], { eta: Number.NaN, into: [one()] }), /eta must be a number, got NaN/],
      [ascend([one()], [null], { eta: Infinity, into: [one()] }), /eta must be finite/],
      [ascend([one()], [null], { eta: 1, into: [one()], rounding: 'up' as never }), /rounding must be/],
      [ascend([one()], [null], { eta: 1, into: [one()], seed: -1 }), /seed must be an integer from 0/],
      [ascend([7 as never], [null], { eta: 1, into: [one()] }), /params\[0\] must be a Tensor, got 7/],
      [
        ascend([tied, tied], [one(), one()], { eta: 1, into: [one(), one()] }),
        /params\[1\] and params\[0\] are one storage/,
      ],
      [ascend([tied], [tied], { eta: 1, into: [tied] }), /into\[0\] shares memory with grads\[0\]/],
      [
        ascend([one(), tied], [null, null], { eta: 1, into: [tied, one()] }),
        /into\[0\] shares memory with params\[1\]/,
      ],
      [ascend([one(), one()], [null, null], { eta: 1, into: [tied, tied] }), /into\[0\] shares memory with into\[1\]/],
      [
        ascend([Tensor.zeros([1], { dtype: 'int64' }) as never], [null], { eta: 1, into: [Tensor.zeros([1])] }),
        /params\[0\] must be float32, bfloat16 or float16, got int64/,
      ],
    ];
    for (const [call, message] of cases) {
      await assert.rejects(
        call,
        (error: Error) => error instanceof InvalidArgumentError && message.test(error.message),
      );
    }
  });
});

describe('sample', () => {
  for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
    for (const options of [
      {},
      { temperature: 0 },
      { temperature: 0.6, topK: 5 },
      { topP: 0.8 },
      { topK: 20, topP: 0.5 },
    ]) {
      test(`${dtype}, ${JSON.stringify(options)}`, async () => {
        const next = generator(8);
        const [rows, vocab] = [64, 3001];
        const values = Array.from({ length: rows }, () => Array.from({ length: vocab }, () => 3 * normal(next)));
        const tensor = Tensor.from(values, { dtype });
        const logits = rowsOf(await tensor.data(), vocab);
        const rounded = { ...options };
        if (rounded.temperature !== undefined) rounded.temperature = Math.fround(rounded.temperature);
        if (rounded.topP !== undefined) rounded.topP = Math.fround(rounded.topP);
        const want = reference.sampleReference(logits, { ...rounded, seed: 12345678901n });
        const got = await sample(tensor, { ...options, seed: 12345678901n });
        const tokens = Array.from(await got.tokens.data(), Number);
        // A uniform may fall within rounding of a boundary: at most one row may differ.
        assert.ok(tokens.filter((token, r) => token !== want.tokens[r]).length <= 1);
        const temperature = rounded.temperature || 1;
        const stats = reference.tokenStatsReference(logits, tokens, temperature);
        close(await got.logprob.data(), stats.logprob, 2e-6, 2e-6, 'logprob');
        close(await got.entropy.data(), stats.entropy, 1e-5, 1e-6, 'entropy');
      });
    }
  }

  test('the frequencies are the probabilities (chi-squared)', async () => {
    const p = [0.5, 0.25, 0.125, 0.0625, 0.0625, 0];
    const rows = 20_000;
    const logits = Float32Array.from({ length: rows * p.length }, (_, i) => Math.log(p[i % p.length] as number));
    using tensor = Tensor.from(logits, { shape: [rows, p.length] });
    const { tokens } = await sample(tensor, { seed: 3 });
    const counts = p.map(() => 0);
    for (const token of await tokens.data()) counts[Number(token)] = (counts[Number(token)] as number) + 1;
    assert.equal(counts[5], 0, 'probability 0 is never drawn');
    const chi2 = p.slice(0, 5).reduce((sum, q, j) => sum + ((counts[j] as number) - rows * q) ** 2 / (rows * q), 0);
    assert.ok(chi2 < 18.5, `chi-squared ${chi2} with 4 degrees of freedom`); // p = 0.001
  });

  test('a draw depends on seed, counter and row alone, not on the batch', async () => {
    const row = Array.from({ length: 500 }, (_, j) => Math.sin(j));
    const counters = [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
      [9, 0, 0, 0],
    ] as const;
    const together = await (await sample(Tensor.from([row, row, row]), { seed: 9, counters })).tokens.data();
    for (const [r, counter] of counters.entries()) {
      const alone = await (await sample(Tensor.from([row]), { seed: 9, counters: [counter] })).tokens.data();
      assert.equal(alone[0], together[r]);
    }
  });

  test('rows that cannot be sampled are named', async () => {
    for (const bad of [
      [0, Number.NaN],
      [0, Infinity],
      [-Infinity, -Infinity],
    ]) {
      await assert.rejects(sample(Tensor.from([[0, 1], bad])), (error: Error) => {
        return error instanceof NonFiniteError && /row 1 /.test(error.message);
      });
    }
  });

  test('no rows, one token, misuse', async () => {
    assert.deepEqual((await sample(Tensor.zeros([0, 9]))).tokens.shape, [0]);
    const only = await sample(Tensor.from([[-5]]));
    assert.deepEqual([await only.tokens.item(), await only.logprob.item(), await only.entropy.item()], [0n, 0, 0]);
    const logits = Tensor.zeros([2, 3]);
    await assert.rejects(sample(logits, { temperature: -1 }), /temperature must be finite and at least 0, got -1/);
    await assert.rejects(sample(logits, { topK: 1.5 }), /topK must be an integer from 0/);
    await assert.rejects(sample(logits, { topP: 0 }), /topP must be in \(0, 1\], got 0/);
    await assert.rejects(sample(logits, { counters: [[0, 0, 0, 0]] }), /counters must have 2 entries, .* got 1/);
    await assert.rejects(sample(logits, { counters: [[0, 0, 0]] as never }), /counters\[0\] must be four integers/);
    await assert.rejects(sample(logits, { seed: 2n ** 64n }), /seed must be a bigint of at most 64 bits/);
    await assert.rejects(sample(Tensor.zeros([3])), /logits must have shape \[rows, vocab\], got \[3\]/);
    await assert.rejects(sample(undefined as never), /logits must be a Tensor, got undefined/);
  });
});

describe('misuse of tokenStats and tokenGrad', () => {
  const logits = () => Tensor.zeros([2, 3]);
  const cases: [string, () => Promise<unknown>, RegExp][] = [
    ['no tensor', () => tokenStats([[1]] as never, [0]), /input \(logits, or \{ hidden, head \}\) must be a Tensor/],
    ['null', () => tokenStats(null as never, [0]), /must be a Tensor, got null/],
    ['no head', () => tokenStats({ hidden: logits() } as never, [0, 0]), /head must be a Tensor, got undefined/],
    ['rank', () => tokenStats(Tensor.zeros([3]), [0]), /logits must have shape \[rows, vocab\], got \[3\]/],
    [
      'int64',
      () => tokenStats(Tensor.zeros([2, 3], { dtype: 'int64' }) as never, [0, 0]),
      /logits must be float32.*int64/,
    ],
    [
      'dims',
      () => tokenStats({ hidden: logits(), head: Tensor.zeros([5, 4]) }, [0, 0]),
      /must have the same second size/,
    ],
    ['no vocabulary', () => tokenStats(Tensor.zeros([2, 0]), [0, 0]), /at least one vocabulary entry/],
    ['targets short', () => tokenStats(logits(), [0]), /targets must have shape \[2\], one per row, got \[1\]/],
    ['target fraction', () => tokenStats(logits(), [0, 0.5]), /targets\[1\] must be an integer, got 0.5/],
    ['target high', () => tokenStats(logits(), [0, 3]), /targets\[1\] is 3, outside the vocabulary 0..2/],
    [
      'target negative',
      () => tokenGrad(logits(), [-1, 0], { a: [1, 1] }),
      /targets\[0\] is -1, outside the vocabulary/,
    ],
    ['target float', () => tokenStats(logits(), Tensor.zeros([2]) as never), /targets must be int64, got float32/],
    [
      'temperature',
      () => tokenStats(logits(), [0, 0], { temperature: 0 }),
      /temperature must be finite and greater than 0/,
    ],
    [
      'no options',
      () => tokenGrad(logits(), [0, 0], undefined as never),
      /tokenGrad needs options \{ a, b, temperature, signal \}, got undefined/,
    ],
    ['no a', () => tokenGrad(logits(), [0, 0], {} as never), /a must be a float32 Tensor.* got undefined/],
    ['a short', () => tokenGrad(logits(), [0, 0], { a: [1] }), /a must have shape \[2\], one per row, got \[1\]/],
    [
      'a bfloat16',
      () => tokenGrad(logits(), [0, 0], { a: Tensor.zeros([2], { dtype: 'bfloat16' }) as never }),
      /a must be float32/,
    ],
    [
      'b text',
      () => tokenGrad(logits(), [0, 0], { a: [1, 1], b: ['x', 1] as never }),
      /b\[0\] must be a number, got "x"/,
    ],
    ['signal', () => tokenStats(logits(), [0, 0], { signal: 1 as never }), /signal must be an AbortSignal/],
  ];
  for (const [name, call, message] of cases) {
    test(name, async () => {
      await assert.rejects(call(), (error: Error) => {
        assert.ok(error instanceof InvalidArgumentError, String(error));
        assert.match(error.message, message);
        assert.match(error.stack ?? '', /kernels-api\.test/, 'the stack leads to the caller');
        return true;
      });
    });
  }

  test('a failed call writes nothing', async () => {
    const untouched = Tensor.from([
      [1, 2],
      [3, 4],
    ]);
    await assert.rejects(tokenGrad(untouched, [0, 2], { a: [1, 1] }));
    assert.deepEqual(await untouched.data(), Float32Array.of(1, 2, 3, 4));
  });

  test('disposed tensors are refused', async () => {
    const gone = logits();
    gone.dispose();
    await assert.rejects(tokenStats(gone, [0, 0]), DisposedError);
    await assert.rejects(ascend([logits()], [null], { eta: 1, into: [gone] }), /into\[0\] was disposed/);
  });

  test('aborts, before and while running', async () => {
    await assert.rejects(tokenStats(logits(), [0, 0], { signal: AbortSignal.abort() }), AbortedError);
    const [rows, dim, vocab] = [4096, 64, 8192];
    using hidden = Tensor.zeros([rows, dim]);
    using head = Tensor.zeros([vocab, dim]);
    const controller = new AbortController();
    const running = tokenStats({ hidden, head }, new Int32Array(rows), { signal: controller.signal });
    setTimeout(() => controller.abort(), 5);
    await assert.rejects(running, { code: 'EEPO_ABORTED', name: 'AbortError' });
    // The thread is free again.
    assert.equal((await tokenStats(logits(), [0, 0])).logprob.size, 2);
  });

  test('temporary tensors are freed; results belong to the scope', async () => {
    await scope(async () => undefined);
    const before = tensorMemory();
    const stats = await scope(async () => tokenStats(logits(), [0, 0]));
    assert.equal(tensorMemory().storages - before.storages, 3);
    for (const tensor of Object.values(stats) as Tensor[]) tensor.dispose();
    await assert.rejects(scope(() => tokenGrad(logits(), [0, 9], { a: [1, 1] })));
    assert.deepEqual([tensorMemory().storages, tensorMemory().bytes], [before.storages, before.bytes]);
  });
});
