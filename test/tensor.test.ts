import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DisposedError, InvalidArgumentError, OutOfMemoryError, UnsupportedError } from '../lib/errors.js';
import { roundToBfloat16, roundToFloat16 } from '../lib/reference.js';
import { keep, scope } from '../lib/scope.js';
import { type DType, Tensor, tensorMemory } from '../lib/tensor.js';

const hostile = [0, -0, 1, -1.5, 1e-8, 6e-8, 65504, 65520, 1e38, -1e-40, Infinity, -Infinity, Number.NaN, 1 / 3];

function same(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    assert.ok(Object.is(actual[i], expected[i]), `element ${i}: ${actual[i]} is not ${expected[i]}`);
  }
}

describe('Tensor.from and data()', () => {
  test('float32 from every real source', async () => {
    for (const source of [Float32Array.from(hostile), Float64Array.from(hostile), hostile]) {
      const tensor = Tensor.from(source);
      assert.equal(tensor.dtype, 'float32');
      assert.deepEqual(tensor.shape, [hostile.length]);
      assert.equal(tensor.device, 'cpu');
      assert.equal(tensor.byteLength, 4 * hostile.length);
      same(await tensor.data(), Float32Array.from(hostile));
      tensor.dispose();
    }
  });

  test('bfloat16 and float16 round to nearest, ties to even', async () => {
    const values = [...hostile, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 ** -25, 3 * 2 ** -25];
    const bf16 = Tensor.from(values, { dtype: 'bfloat16' });
    same(
      await bf16.data(),
      values.map((x) => roundToBfloat16(Math.fround(x))),
    );
    const f16 = Tensor.from(values, { dtype: 'float16' });
    same(
      await f16.data(),
      values.map((x) => roundToFloat16(Math.fround(x))),
    );
    assert.equal(f16.byteLength, 2 * values.length);
  });

  test('16-bit patterns go in and out unchanged', async () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of ['bfloat16', 'float16'] as const) {
      using tensor = Tensor.from(bits, { shape: [256, 256], dtype });
      assert.deepEqual(await tensor.bits(), bits);
    }
    const one = Tensor.from(Uint16Array.of(0x3f80, 0xbf80), { dtype: 'bfloat16' });
    assert.deepEqual(await one.data(), Float32Array.of(1, -1));
    const half = Tensor.from(Uint16Array.of(0x3c00, 0x0001, 0x7bff), { dtype: 'float16' });
    assert.deepEqual(await half.data(), Float32Array.of(1, 2 ** -24, 65504));
  });

  test('Float16Array, where the runtime has it', { skip: !('Float16Array' in globalThis) }, async () => {
    const Float16 = (globalThis as unknown as { Float16Array: { from(x: number[]): ArrayBufferView } }).Float16Array;
    const source = Float16.from([1, -2, 0.5]) as never;
    const tensor = Tensor.from(source, { dtype: 'float16' });
    assert.equal(tensor.dtype, 'float16');
    assert.deepEqual(await tensor.data(), Float32Array.of(1, -2, 0.5));
  });

  test('int64', async () => {
    const big = Tensor.from(BigInt64Array.of(2n ** 62n, -1n));
    assert.deepEqual(await big.data(), BigInt64Array.of(2n ** 62n, -1n));
    assert.deepEqual(await Tensor.from(Int32Array.of(-5, 7)).data(), BigInt64Array.of(-5n, 7n));
    assert.deepEqual(await Tensor.from([[1], [2]], { dtype: 'int64' }).data(), BigInt64Array.of(1n, 2n));
    assert.equal(await Tensor.from(Int32Array.of(9)).item(), 9n);
    assert.throws(() => Tensor.from([1, 2.5], { dtype: 'int64' }), /data\[1\] is 2.5, which is not an integer/);
    assert.throws(() => Tensor.from([Number.NaN], { dtype: 'int64' }), InvalidArgumentError);
  });

  test('nesting gives the shape; a number is a scalar; empty is allowed', async () => {
    assert.deepEqual(
      Tensor.from([
        [1, 2, 3],
        [4, 5, 6],
      ]).shape,
      [2, 3],
    );
    const scalar = Tensor.from(3.5);
    assert.deepEqual([scalar.shape, scalar.size, await scalar.item()], [[], 1, 3.5]);
    for (const empty of [Tensor.from([]), Tensor.zeros([0, 7]), Tensor.from(new Float32Array(), { shape: [3, 0] })]) {
      assert.equal(empty.size, 0);
      assert.equal((await empty.data()).length, 0);
    }
  });

  test('the source is copied, and so is what data() gives', async () => {
    const source = Float32Array.of(1, 2);
    const tensor = Tensor.from(source);
    source[0] = 9;
    const copy = await tensor.data();
    copy[1] = 9;
    assert.deepEqual(await tensor.data(), Float32Array.of(1, 2));
  });

  test('a large tensor comes back whole', async () => {
    const values = Float32Array.from({ length: 1 << 20 }, (_, i) => i);
    using tensor = Tensor.from(values);
    assert.deepEqual(await tensor.data(), values);
  });
});

describe('misuse', () => {
  const cases: [string, () => unknown, RegExp][] = [
    [
      'length',
      () => Tensor.from(new Float32Array(5), { shape: [2, 3] }),
      /data has 5 elements, but shape \[2, 3\] needs 6/,
    ],
    ['negative size', () => Tensor.zeros([-1]), /shape\[0\] must be a non-negative integer, got -1/],
    ['fractional size', () => Tensor.zeros([1.5]), /shape\[0\] must be a non-negative integer, got 1.5/],
    ['NaN size', () => Tensor.zeros([Number.NaN]), /shape\[0\]/],
    ['overflow', () => Tensor.zeros([2 ** 40, 2 ** 40]), /more elements than memory can hold/],
    ['overflow beside 0', () => Tensor.zeros([0, 2 ** 40, 2 ** 40]), /more elements than memory can hold/],
    ['shape', () => Tensor.zeros(7 as never), /shape must be an array/],
    ['dtype', () => Tensor.zeros([1], { dtype: 'float64' as DType }), /dtype must be .* got 'float64'/],
    ['ragged', () => Tensor.from([[1, 2], [3]]), /data\[1\] should have 2 elements, got 1 elements/],
    ['too deep', () => Tensor.from([1, [2]] as never), /data\[1\] must be a number/],
    ['hole', () => Tensor.from(new Array(2) as number[]), /data\[0\] must be a number/],
    ['string', () => Tensor.from('abc' as never), /data must be a Float32Array.* got "abc"/],
    ['Uint8Array', () => Tensor.from(new Uint8Array(3) as never), /data must be a Float32Array/],
    ['bits without dtype', () => Tensor.from(new Uint16Array(3) as never), /'bfloat16' or 'float16'/],
    ['bits as float32', () => Tensor.from(new Uint16Array(3), { dtype: 'float32' }), /Uint16Array.*dtype is float32/],
    [
      'Int32Array as float32',
      () => Tensor.from(new Int32Array(3), { dtype: 'float32' as never }),
      /needs dtype 'int64'/,
    ],
    ['no constructor', () => Reflect.construct(Tensor, [{}]), /no public constructor/],
  ];
  for (const [name, call, message] of cases) {
    test(name, () => assert.throws(call, (error: Error) => message.test(error.message)));
  }

  test('cuda is unsupported, more memory than the machine has is out of memory', () => {
    assert.throws(() => Tensor.zeros([1], { device: 'cuda' }), UnsupportedError);
    assert.throws(() => Tensor.from([1], { device: 'tpu' as never }), InvalidArgumentError);
    assert.throws(() => Tensor.zeros([2 ** 45]), OutOfMemoryError);
  });

  test('bits() and item() say when they do not apply', async () => {
    await assert.rejects(Tensor.from([1]).bits(), /bits\(\) is for bfloat16 and float16/);
    await assert.rejects(Tensor.from([1, 2]).item(), /one element, this one has 2/);
  });
});

describe('copies and views', () => {
  test('to() converts, clone() copies, reshape() shares', async () => {
    const tensor = Tensor.from([1.5, -2.75, 3, 4]);
    const ints = await tensor.to({ dtype: 'int64' });
    assert.deepEqual(await ints.data(), BigInt64Array.of(1n, -2n, 3n, 4n));
    assert.equal((await tensor.to({ dtype: 'bfloat16' })).dtype, 'bfloat16');
    const copy = await tensor.clone();
    const view = tensor.reshape([2, -1]);
    assert.deepEqual(view.shape, [2, 2]);
    tensor.dispose();
    assert.deepEqual(await view.data(), Float32Array.of(1.5, -2.75, 3, 4));
    assert.deepEqual(await copy.data(), await view.data());
    await assert.rejects(view.to({ device: 'cuda' }), UnsupportedError);
  });

  test('reshape refuses what does not fit', () => {
    const tensor = Tensor.zeros([2, 3]);
    assert.throws(() => tensor.reshape([4]), /shape \[4\] does not fit the 6 elements of \[2, 3\]/);
    assert.throws(() => tensor.reshape([-1, -1]), /shape\[1\]/);
    assert.throws(() => tensor.reshape([-1, 4]), InvalidArgumentError);
    assert.throws(() => Tensor.zeros([0]).reshape([-1, 0]), InvalidArgumentError);
    assert.deepEqual(Tensor.zeros([0]).reshape([0, 5]).shape, [0, 5]);
  });
});

describe('dispose', () => {
  test('is idempotent, and every later use throws', async () => {
    const tensor = Tensor.from([1]);
    tensor.dispose();
    tensor.dispose();
    assert.equal(tensor.disposed, true);
    assert.equal(String(tensor), 'Tensor(disposed)');
    assert.throws(() => tensor.shape, DisposedError);
    assert.throws(() => tensor.dtype, DisposedError);
    assert.throws(() => tensor.size, DisposedError);
    assert.throws(() => tensor.reshape([1]), DisposedError);
    await assert.rejects(tensor.data(), DisposedError);
    await assert.rejects(tensor.clone(), { code: 'EEPO_DISPOSED', name: 'DisposedError' });
    await assert.rejects(tensor.to({ dtype: 'float16' }), DisposedError);
  });

  test('`using` disposes', () => {
    let outer: Tensor;
    {
      using tensor = Tensor.zeros([2]);
      outer = tensor;
    }
    assert.equal(outer.disposed, true);
  });

  test('a queued job keeps the memory it reads', async () => {
    const tensor = Tensor.from(Float32Array.from({ length: 1000 }, (_, i) => i));
    const pending = tensor.data();
    tensor.dispose();
    assert.equal((await pending)[999], 999);
  });

  test('memory is accounted once per storage and stays flat over 10000 tensors', async () => {
    const before = tensorMemory();
    const tensor = Tensor.zeros([1000]);
    const view = tensor.reshape([10, 100]);
    assert.equal(tensorMemory().bytes - before.bytes, 4000);
    assert.ok(tensorMemory().external - before.external >= 4000);
    tensor.dispose();
    assert.equal(tensorMemory().bytes - before.bytes, 4000);
    view.dispose();
    assert.deepEqual(tensorMemory().bytes, before.bytes);

    const external = process.memoryUsage().external;
    for (let i = 0; i < 10_000; i++) Tensor.zeros([25_000]).dispose(); // 1 GB in all
    assert.deepEqual([tensorMemory().storages, tensorMemory().bytes], [before.storages, before.bytes]);
    assert.ok(process.memoryUsage().external - external < 10e6);
    assert.ok(Math.abs(tensorMemory().external - before.external) < 10e6);
  });

  test('garbage collection is the backstop', async () => {
    const before = tensorMemory().bytes;
    let peak = 0;
    for (let i = 0; i < 400; i++) {
      Tensor.zeros([1 << 20]); // 4 MB each, never disposed
      peak = Math.max(peak, tensorMemory().bytes - before);
      await sleep(0);
    }
    assert.ok(peak < 400 * 4e6 * 0.75, `${peak} bytes of forgotten tensors were alive at once`);
  });
});

describe('AbortSignal', () => {
  test('already aborted rejects at once, with the reason as cause', async () => {
    const error = await Tensor.from([1])
      .data({ signal: AbortSignal.abort('enough') })
      .catch((e: unknown) => e as Error & { code: string; cause: { cause: unknown } });
    assert.ok(error instanceof Error);
    assert.equal((error as { name: string }).name, 'AbortError');
    assert.equal((error as { code: string }).code, 'EEPO_ABORTED');
    assert.equal((error.cause as { cause: unknown }).cause, 'enough');
  });

  test('a queued job is dropped; the ones around it are not', async () => {
    const big = Tensor.zeros([1 << 24]);
    const controller = new AbortController();
    const first = big.clone();
    const second = big.clone({ signal: controller.signal });
    const third = big.clone();
    let settled = false;
    void first.then(() => {
      settled = true;
    });
    controller.abort();
    await assert.rejects(second, { code: 'EEPO_ABORTED' });
    assert.equal(settled, false, 'the abort did not wait for the job in front');
    for (const tensor of [big, await first, await third]) tensor.dispose();
  });

  test('listeners are removed', async () => {
    const { signal } = new AbortController();
    let listeners = 0;
    const counting = Object.create(signal, {
      aborted: { value: false },
      addEventListener: { value: () => listeners++ },
      removeEventListener: { value: () => listeners-- },
    }) as AbortSignal;
    const pending = Tensor.from([1]).data({ signal: counting });
    assert.equal(listeners, 1);
    await pending;
    assert.equal(listeners, 0);
  });

  test('aborting afterwards does nothing; something else is no signal', async () => {
    const controller = new AbortController();
    await Tensor.from([1]).data({ signal: controller.signal });
    controller.abort();
    await assert.rejects(Tensor.from([1]).data({ signal: {} as AbortSignal }), /signal must be an AbortSignal/);
  });
});

describe('scope', () => {
  test('disposes what was created in it, also after an await', async () => {
    let early: Tensor | undefined;
    let late: Tensor | undefined;
    let helper: Tensor | undefined;
    const outside = Tensor.from([0]);
    const returned = await scope(async () => {
      early = Tensor.from([1]);
      await sleep(1);
      late = await early.clone();
      helper = await (async () => {
        await sleep(1);
        return Tensor.from([2]);
      })();
      return Tensor.from([3]);
    });
    assert.deepEqual([early?.disposed, late?.disposed, helper?.disposed], [true, true, true]);
    assert.deepEqual([returned.disposed, outside.disposed], [false, false]);
  });

  test('what is returned survives: arrays, plain objects, Maps, cycles', async () => {
    interface Result {
      list: Tensor[];
      map: Map<string, { deep: Tensor }>;
      self?: Result;
    }
    let dropped: Tensor | undefined;
    const result = await scope(async () => {
      dropped = Tensor.from([0]);
      const out: Result = { list: [Tensor.from([1])], map: new Map([['a', { deep: Tensor.from([2]) }]]) };
      out.self = out;
      return out;
    });
    assert.equal(result.list[0]?.disposed, false);
    assert.equal(result.map.get('a')?.deep.disposed, false);
    assert.equal(dropped?.disposed, true);
  });

  test('keep() takes a tensor out of all scopes', async () => {
    let kept: Tensor | undefined;
    await scope(() =>
      scope(() => {
        kept = keep(Tensor.from([1]));
      }),
    );
    assert.equal(kept?.disposed, false);
  });

  test('an inner result belongs to the outer scope', async () => {
    let inner: Tensor | undefined;
    await scope(async () => {
      inner = await scope(() => Tensor.from([1]));
      assert.equal(inner.disposed, false);
    });
    assert.equal(inner?.disposed, true);
  });

  test('interleaved scopes do not mix', async () => {
    const made: Record<string, Tensor[]> = { slow: [], fast: [] };
    const work = (name: string, ms: number) =>
      scope(async () => {
        for (let i = 0; i < 4; i++) {
          made[name]?.push(Tensor.from([i]));
          await sleep(ms);
        }
      });
    const slow = work('slow', 12);
    await work('fast', 2);
    assert.ok(made.fast?.every((tensor) => tensor.disposed));
    assert.ok(made.slow?.length && made.slow.every((tensor) => !tensor.disposed));
    await slow;
    assert.ok(made.slow?.every((tensor) => tensor.disposed));
  });

  test('disposes when the body throws, and passes the error on', async () => {
    let tensor: Tensor | undefined;
    await assert.rejects(
      scope(async () => {
        tensor = Tensor.from([1]);
        await sleep(1);
        throw new Error('on purpose');
      }),
      /on purpose/,
    );
    assert.equal(tensor?.disposed, true);
  });

  test('work that outlives its scope belongs to the one around it', async () => {
    let late: Tensor | undefined;
    await scope(async () => {
      let finished: Promise<void> | undefined;
      await scope(() => {
        finished = sleep(5).then(() => {
          late = Tensor.from([1]);
        });
      });
      await finished;
      assert.equal(late?.disposed, false);
    });
    assert.equal(late?.disposed, true);
  });
});
