/**
 * Whatever a caller hands to a policy or a tensor, the answer is a result or an EepoError, and the policy computes
 * afterwards what it computed before: values of every wrong kind, objects whose getters throw or change their minds,
 * buffers that are shared, resizable or gone, callbacks that throw or call back, calls that overlap.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { MessageChannel, Worker } from 'node:worker_threads';
import { EepoError } from '../lib/errors.js';
import { tokenGrad, tokenStats } from '../lib/kernels.js';
import { loadNative } from '../lib/native.js';
import { Policy } from '../lib/policy.js';
import { Tensor } from '../lib/tensor.js';
import { embeddedModel } from './support/data.js';
import { forgetting } from './support/policy.js';

// biome-ignore lint/suspicious/noExplicitAny: wrong types are what is tested
type Any = any;

let policy: Policy;
let folder: string;
const probe = [
  [1, 2, 3],
  [5, 7],
];
let expected: unknown;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'eepo-misuse-'));
  policy = await Policy.load(embeddedModel);
  expected = await policy.score(probe);
});
after(async () => {
  policy.dispose();
  await rm(folder, { recursive: true });
});

/** It still computes what it did. */
async function unharmed(): Promise<void> {
  await policy.zeroGrad();
  await policy.syncRollout();
  assert.deepEqual(await policy.score(probe), expected);
}

/** Resolves where it is right to, else rejects with an EepoError. */
async function settles(call: () => unknown, what: string): Promise<'resolved' | EepoError> {
  try {
    const value = await call();
    if (value instanceof Policy || value instanceof Tensor) value.dispose();
    return 'resolved';
  } catch (error) {
    // What a revoked Proxy throws is its owner's.
    if (/on a proxy that has been revoked/.test((error as Error).message)) return 'resolved';
    assert.ok(error instanceof EepoError, `${what}: ${(error as Error)?.stack ?? error}`);
    assert.notEqual(error.code, 'EEPO_NATIVE', `${what}: ${error.message}`);
    return error;
  }
}

const batch = { prompts: [[1, 2]], responses: [[3, 4, 5]] };
const forget = { ...forgetting([]), entropy: new Float32Array(3).fill(1) };
const generation = { maxNewTokens: 3 };

const weird: [string, unknown][] = [
  ['undefined', undefined],
  ['null', null],
  ['NaN', Number.NaN],
  ['-0', -0],
  ['-1', -1],
  ['0.5', 0.5],
  ['2^31', 2 ** 31],
  ['2^32', 2 ** 32],
  ['2^53', 2 ** 53],
  ['1e300', 1e300],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['a bigint', 10n ** 30n],
  ['a string', 'seven'],
  ['a symbol', Symbol('seven')],
  ['a function', () => 7],
  ['a Date', new Date(0)],
  ['an empty object', {}],
  ['an empty array', []],
  ['an array of null', [null]],
  ['nested emptiness', [[]]],
  ['a sparse array', new Array(5)],
  ['an object without prototype', Object.create(null)],
  ['a frozen object', Object.freeze({ length: 1 })],
  ['a length of 2^40', { length: 2 ** 40 }],
  ['an array with a length of 2^40', [{ length: 2 ** 40 }]],
  ['a negative length', [{ length: -1 }]],
  ['ids of 2^53', [[2 ** 53]]],
  ['ids of NaN', [[Number.NaN]]],
  ['a Proxy', new Proxy({}, {})],
  ['a revoked Proxy', revoked({})],
  ['a revoked array', revoked([])],
  ['a promise', Promise.resolve([[1]])],
  ['a Uint8Array', new Uint8Array(3)],
  ['a Float32Array of NaN', new Float32Array(3).fill(Number.NaN)],
  ['a Float64Array', new Float64Array(3)],
  ['a DataView', new DataView(new ArrayBuffer(8))],
  ['an ArrayBuffer', new ArrayBuffer(8)],
  ['a detached array', detached(new Float32Array(3))],
];

function revoked(target: object): unknown {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

function detached<T extends Float32Array | Int32Array>(array: T): T {
  structuredClone(array, { transfer: [array.buffer as ArrayBuffer] });
  return array;
}

describe('a wrong value', () => {
  const places: [string, (value: Any) => unknown][] = [
    ['Policy.load(x)', (x) => Policy.load(x)],
    ['Policy.load options', (x) => Policy.load(embeddedModel, x)],
    ['Policy.load dtype', (x) => Policy.load(embeddedModel, { dtype: x })],
    ['Policy.load lora', (x) => Policy.load(embeddedModel, { lora: x })],
    ['Policy.load lora.rank', (x) => Policy.load(embeddedModel, { lora: { rank: x } })],
    ['Policy.load signal', (x) => Policy.load(embeddedModel, { signal: x })],
    ['Policy.create(x)', (x) => Policy.create(x)],
    ['score(x)', (x) => policy.score(x)],
    ['score([x])', (x) => policy.score([x])],
    ['score([[x]])', (x) => policy.score([[x]])],
    ['score options', (x) => policy.score([[1]], x)],
    ['score signal', (x) => policy.score([[1]], { signal: x })],
    ['logits(x)', (x) => policy.logits(x)],
    ['logits([x])', (x) => policy.logits([x])],
    ['generate(x)', (x) => policy.generate(x, generation)],
    ['generate([x])', (x) => policy.generate([x], generation)],
    ['generate([[x]])', (x) => policy.generate([[x]], generation)],
    ['generate options', (x) => policy.generate([[1]], x)],
    ...(
      [
        'temperature',
        'topK',
        'topP',
        'seed',
        'iteration',
        'promptIds',
        'sampleOffset',
        'stopTokens',
        'cacheTokens',
        'maxRows',
        'weights',
        'onProgress',
        'signal',
      ] as const
    ).map((key): [string, (value: Any) => unknown] => [
      `generate ${key}`,
      (x) => policy.generate([[1, 2]], { ...generation, [key]: x }),
    ]),
    ['forward(x)', (x) => policy.forward(x)],
    ['forward prompts', (x) => policy.forward({ ...batch, prompts: x })],
    ['forward prompts[0]', (x) => policy.forward({ ...batch, prompts: [x] })],
    ['forward responses', (x) => policy.forward({ ...batch, responses: x })],
    ['forward responses[0]', (x) => policy.forward({ ...batch, responses: [x] })],
    ['forward temperature', (x) => policy.forward(batch, { temperature: x })],
    ['forward signal', (x) => policy.forward(batch, { signal: x })],
    ['backward(x)', (x) => policy.backward(x)],
    [
      'backward b',
      async (x) => {
        await policy.forward(batch);
        await policy.backward(new Float32Array(3), x);
      },
    ],
    ['step(x)', (x) => policy.step(x)],
    ['step lr', (x) => policy.step({ lr: x })],
    ['step betas', (x) => policy.step({ lr: 0, betas: x })],
    ['forget options', (x) => policy.forget(batch, x)],
    ...(
      [
        'entropy',
        'eta',
        'alpha',
        'window',
        'epsLow',
        'epsHigh',
        'clampGrad',
        'normalize',
        'temperature',
        'probeTokens',
        'microBatchTokens',
        'rolloutDtype',
        'seed',
        'iteration',
        'signal',
      ] as const
    ).map((key): [string, (value: Any) => unknown] => [
      `forget ${key}`,
      (x) => policy.forget(batch, { ...forget, [key]: x }),
    ]),
    ['save(x)', (x) => (typeof x === 'string' ? undefined : policy.save(x))],
    ['save options', (x) => policy.save(join(folder, 'saved'), x)],
    ['save dtype', (x) => policy.save(join(folder, 'saved'), { dtype: x })],
    ['save maxShardBytes', (x) => policy.save(join(folder, 'saved'), { maxShardBytes: x })],
    ['save signal', (x) => policy.save(join(folder, 'saved'), { signal: x })],
    ['Tensor.from(x)', (x) => Tensor.from(x)],
    ['Tensor.from shape', (x) => Tensor.from([1], { shape: x })],
    ['Tensor.from shape [x]', (x) => Tensor.from([1], { shape: [x] })],
    ['Tensor.from dtype', (x) => Tensor.from([1], { dtype: x })],
    ['Tensor.from device', (x) => Tensor.from([1], { device: x })],
    ['Tensor.zeros(x)', (x) => Tensor.zeros(x)],
    ['Tensor.zeros([x, x])', (x) => Tensor.zeros([x, x])],
    ['reshape(x)', (x) => withTensor((tensor) => tensor.reshape(x))],
    ['to dtype', (x) => withTensor((tensor) => tensor.to({ dtype: x }))],
    ['tensor signal', (x) => withTensor((tensor) => tensor.data({ signal: x }))],
    ['tokenStats(x)', (x) => tokenStats(x, [0])],
    ['tokenStats targets', (x) => withTensor((tensor) => tokenStats(tensor, x))],
    ['tokenStats targets[0]', (x) => withTensor((tensor) => tokenStats(tensor, [x]))],
    ['tokenGrad a', (x) => withTensor((tensor) => tokenGrad(tensor, [0], { a: x }))],
    ['tokenGrad b', (x) => withTensor((tensor) => tokenGrad(tensor, [0], { a: [0], b: x }))],
  ];

  async function withTensor(use: (tensor: Tensor) => unknown): Promise<void> {
    using tensor = Tensor.from([[1, 2, 3]]);
    const made = await use(tensor);
    if (made instanceof Tensor) made.dispose();
  }

  for (const [place, call] of places) {
    it(`in ${place} is an EepoError or has a meaning`, async () => {
      for (const [name, value] of weird) await settles(() => call(value), `${place}, ${name}`);
    });
  }

  it('and none of them has changed the policy', unharmed);
});

describe('objects that change their minds', () => {
  /** An options object whose `key` throws when it is read, or is another value each time. */
  const moody = (base: object, key: string, read: () => unknown): Any =>
    Object.defineProperty({ ...base }, key, { enumerable: true, get: read });

  it('a getter that throws: the call rejects with what it threw', async () => {
    const boom = new RangeError('on purpose');
    const throwing = () => {
      throw boom;
    };
    for (const call of [
      () => policy.generate([[1]], moody(generation, 'seed', throwing)),
      () => policy.forget(batch, moody(forget, 'entropy', throwing)),
      () => policy.forward(moody(batch, 'responses', throwing)),
      () => policy.score([[1]], moody({}, 'signal', throwing)),
      () => policy.score([[1]], { signal: moody({}, 'aborted', throwing) }),
      () => policy.score(new Proxy([[1]], { get: throwing }) as Any),
    ]) {
      await assert.rejects(call as () => Promise<unknown>, (error: Error) => error === boom || error.cause === boom);
    }
    await unharmed();
  });

  it('lengths and ids that grow, shrink or turn wrong between two looks are results or errors', async () => {
    for (const values of [
      [1, 1000],
      [1000, 1],
      [2, 0],
      [0, 2],
      [3, -1],
      [3, Number.NaN],
      [3, 1e5],
    ]) {
      let looks = 0;
      const length = () => values[Math.min(looks++, values.length - 1)] as number;
      const ids = new Proxy([1, 2, 3], {
        get: (target, key) => (key === 'length' ? length() : Reflect.get(target, key)),
      });
      await settles(() => policy.score([ids]), `length ${values}`);
      looks = 0;
      await settles(() => policy.generate([ids], generation), `generate, length ${values}`);
      looks = 0;
      await settles(() => policy.forward({ prompts: [ids], responses: [ids] }), `forward, length ${values}`);
      looks = 0;
      await settles(() => policy.score(ids as Any), `sequences, length ${values}`);
      looks = 0;
      const turning = Object.defineProperty([1, 2], 0, { get: () => (looks++ < 1 ? 1 : 2 ** 31) });
      await settles(() => policy.score([turning]), 'ids that turn');
      await settles(() => Tensor.zeros(ids as Any), `shape, length ${values}`);
    }
    await unharmed();
  });

  it('disposing of the policy or of a tensor while its arguments are read', async () => {
    const doomed = await Policy.load(embeddedModel);
    const options = moody(generation, 'seed', () => {
      doomed.dispose();
      return 1;
    });
    await settles(() => doomed.generate([[1]], options), 'generate');
    const tensor = Tensor.zeros([2, 3]);
    const disposing = moody({ a: [0, 0] }, 'b', () => {
      tensor.dispose();
      return [0, 0];
    });
    await settles(() => tokenGrad(tensor, [0, 1], disposing), 'tokenGrad');
    const again = Tensor.zeros([1]);
    await settles(
      () =>
        again.reshape(
          new Proxy([1], {
            get(target, key) {
              again.dispose();
              return Reflect.get(target, key);
            },
          }),
        ),
      'reshape',
    );
    await unharmed();
  });

  it('signals that are not what they say', async () => {
    const never = { aborted: false, addEventListener() {}, removeEventListener() {} };
    const early = { ...never, addEventListener: (_: string, abort: () => void) => abort() };
    const thrower = {
      ...never,
      removeEventListener() {
        throw new Error('on purpose');
      },
    };
    for (const signal of [never, early, { ...never, aborted: 1 }, { ...never, addEventListener: null }]) {
      await settles(() => policy.score([[1]], { signal: signal as Any }), 'signal');
    }
    await assert.rejects(policy.score([[1]], { signal: thrower as Any }), /on purpose/);
    // The same signal for many calls, aborted from inside a listener of its own.
    const controller = new AbortController();
    controller.signal.addEventListener('abort', () => {
      void policy.score([[1]], { signal: controller.signal }).catch(() => undefined);
    });
    const calls = Array.from({ length: 20 }, () => policy.score(probe, { signal: controller.signal }));
    controller.abort();
    for (const { status, reason } of (await Promise.allSettled(calls)) as PromiseRejectedResult[]) {
      if (status === 'rejected') assert.equal(reason.code, 'EEPO_ABORTED');
    }
    await unharmed();
  });
});

describe('buffers', () => {
  it('are copied when the call is made: what happens to them later changes nothing', async () => {
    const ids = Int32Array.from([1, 2, 3]);
    const scored = policy.score([ids as unknown as number[]]);
    ids.fill(-1);
    structuredClone(ids, { transfer: [ids.buffer] });
    assert.deepEqual((await scored)[0], (expected as unknown[])[0]);

    await policy.forward(batch);
    const a = new Float32Array(3).fill(1);
    const going = policy.backward(a);
    structuredClone(a, { transfer: [a.buffer] });
    await going;
    await policy.zeroGrad();

    const source = new Float32Array([1, 2, 3, 4]);
    using tensor = Tensor.from(source);
    structuredClone(source, { transfer: [source.buffer] });
    assert.deepEqual(await tensor.data(), new Float32Array([1, 2, 3, 4]));
  });

  it('that are shared, resizable or detached', async () => {
    const shared = new Float32Array(new SharedArrayBuffer(16)).fill(2);
    using ofShared = Tensor.from(shared as Any);
    shared.fill(3);
    assert.deepEqual(await ofShared.data(), new Float32Array(4).fill(2));
    const Resizable = ArrayBuffer as Any;
    const buffer = new Resizable(16, { maxByteLength: 64 }) as ArrayBuffer & { resize(size: number): void };
    const tracking = new Float32Array(buffer).fill(5);
    const fixed = new Float32Array(buffer, 0, 4);
    using whole = Tensor.from(tracking);
    assert.equal(whole.size, 4);
    buffer.resize?.(8);
    if (buffer.byteLength === 8) {
      using less = Tensor.from(tracking);
      assert.deepEqual(await less.data(), new Float32Array(2).fill(5));
      // Out of bounds: as good as detached.
      assert.equal(await settles(() => Tensor.from(fixed).data(), 'a fixed view'), 'resolved');
    }
    assert.equal(await settles(() => Tensor.from(detached(new Float32Array(3))), 'detached'), 'resolved');
    await assert.rejects(async () => Tensor.from(detached(new Float32Array(3)), { shape: [3] }), {
      code: 'EEPO_INVALID_ARGUMENT',
    });
    await policy.forward(batch);
    await assert.rejects(policy.backward(detached(new Float32Array(3))), { code: 'EEPO_INVALID_ARGUMENT' });
    await unharmed();
  });

  it('that came out of a tensor are its own no more', async () => {
    using tensor = Tensor.zeros([1 << 19]);
    const data = await tensor.data();
    tensor.dispose();
    data.fill(7);
    const moved = structuredClone(data, { transfer: [data.buffer] });
    assert.equal(moved[moved.length - 1], 7);
  });
});

describe('other threads', () => {
  it('get no policy and no tensor by a message', async () => {
    const { port1, port2 } = new MessageChannel();
    using tensor = Tensor.zeros([2]);
    for (const object of [policy, tensor]) {
      const received = new Promise<Any>((resolve) => port2.once('message', resolve));
      port1.postMessage(object);
      const copy = await received;
      // Private fields and methods do not travel: what arrives is an empty object.
      assert.ok(!(copy instanceof Policy) && !(copy instanceof Tensor));
      assert.equal(copy.score ?? copy.data, undefined);
      await settles(() => tokenStats(copy, [0]), 'a copy');
      for (const method of [Policy.prototype.score, Tensor.prototype.data] as Any[]) {
        await assert.rejects(async () => method.call(copy, [[1]]));
      }
    }
    port1.close();
    await assert.rejects(async () => new Worker('0', { eval: true, workerData: loadNative() as Any }), {
      name: 'DataCloneError',
    });
  });

  it('methods of the native handles refuse another object as `this`', async () => {
    const native = loadNative() as Any;
    const handle = native.tensorZeros([2], 'float32');
    const shape = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(handle), 'shape')?.get as () => unknown;
    for (const other of [{}, Object.create(handle), policy, new Proxy(handle, {}), null, 7]) {
      assert.throws(() => shape.call(other), Error);
      assert.throws(() => handle.dispose.call(other), Error);
    }
    const empty = new handle.constructor();
    assert.equal(empty.disposed, true);
    assert.throws(() => empty.shape, { code: 'EEPO_DISPOSED' });
    for (const call of [
      () => native.tokenStats(Object.create(handle), undefined, undefined, handle, 1),
      () => native.tokenStats(new Proxy(handle, {}), undefined, undefined, handle, 1),
      () => native.tokenStats({ __proto__: handle }, undefined, undefined, handle, 1),
    ]) {
      assert.throws(call, { code: 'EEPO_INVALID_ARGUMENT' });
    }
    handle.dispose();
  });
});

describe('callbacks', () => {
  it('that call the policy again, dispose of others and abort', async () => {
    const inner: Promise<unknown>[] = [];
    const controller = new AbortController();
    const other = await Policy.load(embeddedModel);
    const samples = await policy.generate(
      Array.from({ length: 12 }, (_, i) => [1 + i]),
      {
        maxNewTokens: 60,
        samplesPerPrompt: 4,
        onProgress() {
          inner.push(
            policy.score(probe),
            policy.score(probe, { signal: controller.signal }).catch(() => undefined),
          );
          other.dispose();
          controller.abort();
        },
      },
    );
    assert.equal(samples.length, 48);
    for (const result of await Promise.all(inner)) if (result !== undefined) assert.deepEqual(result, expected);
    await unharmed();
  });
});

describe('calls that overlap', () => {
  it('a forward between forward and backward, a forget with gradients waiting: BusyError or the length', async () => {
    const long = { prompts: [[1]], responses: [[2, 3]] };
    const results = await Promise.allSettled([
      policy.forward(batch),
      policy.forward(long),
      policy.backward(new Float32Array(3)),
      policy.backward(new Float32Array(2)),
      policy.backward(new Float32Array(2)),
      policy.forget(batch, forget),
      policy.step({ lr: 0 }),
      policy.step({ lr: 0 }),
    ]);
    const codes = results.map((result) => (result.status === 'rejected' ? result.reason.code : 'ok'));
    assert.deepEqual(codes, ['ok', 'ok', 'EEPO_INVALID_ARGUMENT', 'ok', 'EEPO_BUSY', 'EEPO_BUSY', 'ok', 'EEPO_BUSY']);
    await unharmed();
  });

  it('dispose() under every call in flight: each finishes or says why not', async () => {
    const calls: ((policy: Policy) => Promise<unknown>)[] = [
      (p) => p.generate([[1]], { maxNewTokens: 20 }),
      (p) => p.score(probe),
      (p) => p.logits([1, 2]),
      (p) => p.forward(batch),
      (p) => p.forget(batch, forget),
      (p) => p.gradients(),
      (p) => p.parameters(),
      (p) => p.clone(),
      (p) => p.save(join(folder, 'disposed')),
      (p) => p.hash(),
      (p) => p.memory(),
    ];
    for (const call of calls) {
      const doomed = await Policy.load(embeddedModel);
      const running = call(doomed);
      doomed.dispose();
      doomed.dispose();
      await settles(() => running, String(call));
      await assert.rejects(call(doomed), { code: 'EEPO_DISPOSED' });
    }
  });

  it('an abort at any moment is an AbortError, or came too late', async () => {
    const large = {
      prompts: Array.from({ length: 16 }, (_, i) => [1 + i]),
      responses: Array.from({ length: 16 }, () => Array.from({ length: 30 }, (_, t) => t)),
    };
    const calls: ((signal: AbortSignal) => Promise<unknown>)[] = [
      (signal) => policy.generate(large.prompts, { maxNewTokens: 30, signal }),
      (signal) => policy.score(large.responses, { signal }),
      (signal) => policy.forward(large, { signal }),
      (signal) => policy.forget(large, { ...forget, entropy: new Float32Array(480).fill(1), signal }),
      (signal) => policy.save(join(folder, 'aborted'), { signal }),
      (signal) => Policy.load(embeddedModel, { signal }),
    ];
    for (const call of calls) {
      for (const moment of [0, 1, 2, 3, 5, 8, 13]) {
        const controller = new AbortController();
        const running = settles(() => call(controller.signal), String(call));
        if (moment === 0) controller.abort();
        else setTimeout(() => controller.abort(), moment);
        const result = await running;
        if (result !== 'resolved') assert.equal(result.code, 'EEPO_ABORTED', String(call));
      }
    }
    await unharmed();
  });
});
