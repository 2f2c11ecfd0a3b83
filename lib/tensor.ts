import { inspect } from 'node:util';
import { resolveDevice } from './cuda.js';
import { InvalidArgumentError } from './errors.js';
import { callNative, loadNative } from './native.js';
import { checkOptions, describe, type OptionKeys, SIGNAL } from './options.js';
import { track, untrack } from './scope.js';

/** Element types. `bfloat16` and `float16` take two bytes and are read as float32. */
export type DType = 'float32' | 'bfloat16' | 'float16' | 'int64';

/** The element types of real numbers. */
export type FloatDType = Exclude<DType, 'int64'>;

/** Where a tensor can live. */
export type TensorDevice = 'cpu' | 'cuda';

/** Numbers, or arrays of them, nested as deep as the tensor has dimensions. */
export type NestedNumbers = number | readonly NestedNumbers[];

/** What `data()` gives: int64 as BigInt64Array, everything else as Float32Array. */
export type DataOf<D extends DType> = D extends 'int64' ? BigInt64Array<ArrayBuffer> : Float32Array<ArrayBuffer>;

/** JavaScript's Float16Array, where the runtime has it (Node 24). */
export interface Float16ArrayLike extends ArrayBufferView {
  readonly length: number;
  readonly [Symbol.toStringTag]: 'Float16Array';
}

/** What {@link Tensor.from} reads. */
export type TensorSource =
  | Float32Array
  | Float64Array
  | Uint16Array
  | Float16ArrayLike
  | Int32Array
  | BigInt64Array
  | NestedNumbers;

/** Options of {@link Tensor.from}. */
export interface TensorOptions<D extends DType = DType> {
  /** Default: the nesting of the arrays, else `[data.length]`. Non-negative integers; `[]` is a scalar. */
  shape?: readonly number[];
  /** Default: int64 for Int32Array and BigInt64Array, float16 for Float16Array, else float32. */
  dtype?: D;
  /** Default 'cpu'. 'auto': the GPU where there is one that works. */
  device?: TensorDevice | 'auto';
}

/** The native handle behind a {@link Tensor}. @internal */
export interface NativeTensor {
  readonly shape: number[];
  readonly dtype: DType;
  readonly device: TensorDevice;
  readonly size: number;
  readonly byteLength: number;
  readonly disposed: boolean;
  dispose(): void;
  data(signal?: AbortSignal): Promise<Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>>;
  bits(signal?: AbortSignal): Promise<Uint16Array<ArrayBuffer>>;
  to(dtype: DType | undefined, device: TensorDevice | undefined, signal?: AbortSignal): Promise<NativeTensor>;
  clone(signal?: AbortSignal): Promise<NativeTensor>;
  reshape(shape: readonly number[]): NativeTensor;
}

declare module './native.js' {
  interface NativeAddon {
    tensorFrom(data: ArrayBufferView, shape: readonly number[], dtype: DType, device?: TensorDevice): NativeTensor;
    tensorZeros(shape: readonly number[], dtype: DType, device?: TensorDevice): NativeTensor;
    tensorMemory(): { storages: number; bytes: number; external: number };
  }
}

const FROM: OptionKeys<TensorOptions> = { shape: true, dtype: true, device: true };
const ZEROS: OptionKeys<Omit<TensorOptions, 'shape'>> = { dtype: true, device: true };
const TO: OptionKeys<Omit<TensorOptions, 'shape'> & { signal?: AbortSignal }> = { ...ZEROS, ...SIGNAL };

/** What `private` means at run time: only this file can construct a Tensor. */
const secret = Symbol('eepo.Tensor');

/** Makes a Tensor of a native handle and registers it with the current scope. @internal */
export let wrapTensor: <D extends DType = FloatDType>(native: NativeTensor) => Tensor<D>;

/** The native handle; throws when `value` is not a Tensor. @internal */
export let nativeOf: (value: unknown, argumentName: string) => NativeTensor;

/**
 * A dense array of numbers in native memory.
 *
 * Metadata is synchronous; what reads or copies elements is a promise, because it waits its turn behind the kernels
 * queued on the same device. Free the memory with `dispose()`, with `using`, or by creating tensors inside
 * {@link scope}; garbage collection is only the backstop.
 */
export class Tensor<D extends DType = FloatDType> {
  readonly #native: NativeTensor;

  static {
    wrapTensor = (native) => new Tensor(native, secret);
    nativeOf = (value, argumentName) => {
      if (typeof value === 'object' && value !== null && #native in value) return value.#native;
      throw new InvalidArgumentError(`${argumentName} must be a Tensor, got ${describe(value)}`);
    };
  }

  private constructor(native: NativeTensor, token: symbol) {
    if (token !== secret) throw new InvalidArgumentError('Tensor has no public constructor; use Tensor.from or zeros');
    this.#native = native;
    track(this);
  }

  /**
   * A new tensor with a copy of `data`. Floating-point sources are rounded to `dtype` (to nearest, ties to even).
   *
   * @param data Float32Array, Float64Array, number[] (nested or flat) or a number for any dtype; Uint16Array for the
   *   bits of bfloat16 or float16 (give `dtype`); Float16Array for float16; Int32Array and BigInt64Array for int64.
   * @throws InvalidArgumentError when the length does not match `shape`, the nesting is ragged, a number is not an
   *   integer for int64, or the source does not fit the dtype; UnsupportedError for device 'cuda' where there is none;
   *   OutOfMemoryError when the device has less memory than asked for.
   */
  static from(data: Int32Array | BigInt64Array, options?: TensorOptions<'int64'>): Tensor<'int64'>;
  static from<D extends DType>(data: TensorSource, options: TensorOptions<D> & { dtype: D }): Tensor<D>;
  static from(data: Exclude<TensorSource, Uint16Array>, options?: TensorOptions<FloatDType>): Tensor;
  static from(data: TensorSource, options: TensorOptions = {}): Tensor<DType> {
    checkOptions(options, FROM, 'Tensor.from');
    const device = requireDevice(options.device);
    const source = normalise(data, options.dtype);
    const shape = options.shape ?? source.shape;
    const dtype = options.dtype ?? source.dtype;
    return wrapTensor(callNative(() => loadNative().tensorFrom(source.data, shape, dtype, device)));
  }

  /**
   * A new tensor of zeros.
   *
   * @param shape non-negative integers.
   * @param options dtype, default 'float32'; device, default 'cpu' ('cuda' as of {@link Tensor.from}).
   */
  static zeros<D extends DType = 'float32'>(
    shape: readonly number[],
    options: { dtype?: D; device?: TensorDevice | 'auto' } = {},
  ): Tensor<D> {
    checkOptions(options, ZEROS, 'Tensor.zeros');
    const device = requireDevice(options.device);
    return wrapTensor(callNative(() => loadNative().tensorZeros(shape, options.dtype ?? 'float32', device)));
  }

  /** Sizes of the dimensions. A fresh array each time. */
  get shape(): number[] {
    return callNative(() => this.#native.shape);
  }

  /** Element type. */
  get dtype(): D {
    return callNative(() => this.#native.dtype) as D;
  }

  get device(): TensorDevice {
    return callNative(() => this.#native.device);
  }

  /** Number of elements. */
  get size(): number {
    return callNative(() => this.#native.size);
  }

  /** Bytes of the elements. */
  get byteLength(): number {
    return callNative(() => this.#native.byteLength);
  }

  /** Whether `dispose()` was called. The one property that never throws. */
  get disposed(): boolean {
    return this.#native.disposed;
  }

  /** A copy of the elements, row-major: BigInt64Array for int64, Float32Array for every other dtype. */
  async data(options: { signal?: AbortSignal } = {}): Promise<DataOf<D>> {
    checkOptions(options, SIGNAL, 'tensor.data');
    return (await callNative(() => this.#native.data(options.signal))) as DataOf<D>;
  }

  /**
   * A copy of the raw 16-bit patterns of a bfloat16 or float16 tensor.
   *
   * @throws InvalidArgumentError for other dtypes.
   */
  async bits(options: { signal?: AbortSignal } = {}): Promise<Uint16Array<ArrayBuffer>> {
    checkOptions(options, SIGNAL, 'tensor.bits');
    return callNative(() => this.#native.bits(options.signal));
  }

  /** The only element of a tensor of size 1: a bigint for int64, else a number. */
  async item(options: { signal?: AbortSignal } = {}): Promise<D extends 'int64' ? bigint : number> {
    checkOptions(options, SIGNAL, 'tensor.item');
    const size = this.size;
    if (size !== 1) throw new InvalidArgumentError(`item() needs a tensor of one element, this one has ${size}`);
    return (await this.data(options))[0] as D extends 'int64' ? bigint : number;
  }

  /** A copy with its own storage in another dtype (float to int64 truncates towards zero) or on another device. */
  async to<E extends DType = D>(options: {
    dtype?: E;
    device?: TensorDevice | 'auto';
    signal?: AbortSignal;
  }): Promise<Tensor<E>> {
    checkOptions(options, TO, 'tensor.to');
    const device = requireDevice(options.device, this.device);
    return wrapTensor(await callNative(() => this.#native.to(options.dtype, device, options.signal)));
  }

  /** A copy with its own storage. */
  async clone(options: { signal?: AbortSignal } = {}): Promise<Tensor<D>> {
    checkOptions(options, SIGNAL, 'tensor.clone');
    return wrapTensor(await callNative(() => this.#native.clone(options.signal)));
  }

  /**
   * A view of the same elements under another shape: writes through one are seen through the other, and the memory is
   * freed when both are disposed. One size may be -1 and is inferred.
   */
  reshape(shape: readonly number[]): Tensor<D> {
    return wrapTensor(callNative(() => this.#native.reshape(shape)));
  }

  /** Frees the memory (once jobs that still read it are done). Idempotent; every later use throws DisposedError. */
  dispose(): void {
    untrack(this);
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** `Tensor(float32 [2, 3])`. */
  toString(): string {
    return this.disposed ? 'Tensor(disposed)' : `Tensor(${this.dtype} [${this.shape.join(', ')}])`;
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/**
 * Native memory that this thread's tensors hold: storages (views share one), their bytes, and all the bytes V8 was told
 * of. Memory of a loaded policy counts only where its tensors were handed out.
 */
export function tensorMemory(): { storages: number; bytes: number; external: number } {
  return callNative(() => loadNative().tensorMemory());
}

/**
 * A device option as a device that is there, the CUDA half loaded if it is meant.
 *
 * @throws InvalidArgumentError for another value; UnsupportedError saying why 'cuda' cannot be used. @internal
 */
export function requireDevice(device: unknown, otherwise: TensorDevice = 'cpu'): TensorDevice {
  if (device === undefined) return otherwise;
  if (device !== 'cpu' && device !== 'cuda' && device !== 'auto') {
    throw new InvalidArgumentError(`device must be 'cpu', 'cuda' or 'auto', got ${describe(device)}`);
  }
  return resolveDevice(device);
}

interface Source {
  data: ArrayBufferView;
  shape: number[];
  dtype: DType;
}

function normalise(data: TensorSource, dtype: DType | undefined): Source {
  if (data instanceof Float32Array || data instanceof Float64Array) return flat(data, 'float32');
  if (data instanceof Int32Array || data instanceof BigInt64Array) return flat(data, 'int64');
  if (data instanceof Uint16Array) {
    if (dtype === undefined) {
      throw new InvalidArgumentError("data is a Uint16Array: say whether its bits are dtype 'bfloat16' or 'float16'");
    }
    return flat(data, dtype);
  }
  if (isFloat16Array(data)) {
    if (dtype !== undefined && dtype !== 'float16') {
      return flat(Float32Array.from(data as unknown as ArrayLike<number>), 'float32');
    }
    return flat(new Uint16Array(data.buffer, data.byteOffset, data.length), 'float16');
  }
  if (typeof data === 'number' || Array.isArray(data)) return nested(data as NestedNumbers);
  throw new InvalidArgumentError(
    'data must be a Float32Array, Float64Array, Float16Array, Uint16Array, Int32Array, BigInt64Array, a number or ' +
      `(nested) arrays of numbers, got ${describe(data)}`,
  );
}

function flat(data: ArrayBufferView & { readonly length: number }, dtype: DType): Source {
  return { data, shape: [data.length], dtype };
}

function isFloat16Array(data: unknown): data is Float16ArrayLike {
  return ArrayBuffer.isView(data) && (data as { [Symbol.toStringTag]?: string })[Symbol.toStringTag] === 'Float16Array';
}

/** Nested arrays as one Float64Array and the shape their nesting has. */
function nested(data: NestedNumbers): Source {
  const shape: number[] = [];
  for (let level = data; Array.isArray(level); level = level[0] as NestedNumbers) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  const values = new Float64Array(shape.reduce((product, extent) => product * extent, 1));
  let filled = 0;
  const visit = (node: unknown, depth: number, path: string): void => {
    if (depth === shape.length) {
      if (typeof node !== 'number') {
        throw new InvalidArgumentError(`data${path} must be a number like its neighbours, got ${describe(node)}`);
      }
      values[filled++] = node;
      return;
    }
    if (!Array.isArray(node) || node.length !== shape[depth]) {
      const got = Array.isArray(node) ? `${node.length} elements` : describe(node);
      throw new InvalidArgumentError(`data is ragged: data${path} should have ${shape[depth]} elements, got ${got}`);
    }
    // Not forEach, which skips holes.
    for (let index = 0; index < node.length; index++) visit(node[index], depth + 1, `${path}[${index}]`);
  };
  visit(data, 0, '');
  return { data: values, shape, dtype: 'float32' };
}
