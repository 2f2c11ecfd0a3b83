/** The native half of the kernels' bench: workloads of one shape, and named pieces of work on them. */
import { callNative, loadNative } from '../native.js';
import type { NativeTensor, TensorDevice } from '../tensor.js';
import type { WorkloadSpec } from './workloads.js';

/** An opaque handle of native/node/bench_binding.cc. */
type NativeWorkload = { readonly __workload: unique symbol };

/** Largest errors against float64, by what was compared: nats for logprob and entropy, relative for the others. */
export type Errors = Record<string, number>;

/** A floor (no `floors`) or a kernel. */
export interface Entry {
  name: string;
  /** Of these, the fastest counts. */
  floors: string[];
  /** Bytes or FLOPs of the least work that does the job. */
  amount: number;
  unit: 'B' | 'FLOP';
}

declare module '../native.js' {
  interface NativeAddon {
    benchOpen(spec: WorkloadSpec & { device: TensorDevice }): Promise<NativeWorkload>;
    benchEntries(workload: NativeWorkload): Entry[];
    benchRun(workload: NativeWorkload, name: string): Promise<number>;
    benchMemory(workload: NativeWorkload, name: string): Promise<number>;
    benchErrors(workload: NativeWorkload, name: string): Promise<Errors>;
    benchClose(workload: NativeWorkload): Promise<void>;
    benchRows(rows: number, vocab: number): { logits: NativeTensor; targets: NativeTensor; entropy: Float64Array };
  }
}

/** Whoever can run the same work: the addon, or a child process with a peer's implementation. */
export interface Runner {
  /** Milliseconds of one call. */
  run(name: string): Promise<number>;
  /** Bytes that one call needs beyond its data. */
  memory(name: string): Promise<number>;
  errors(name: string): Promise<Errors>;
}

/** Our kernels on one workload. */
export class NativeRunner implements Runner {
  private constructor(
    private readonly workload: NativeWorkload,
    readonly entries: readonly Entry[],
  ) {}

  static async open(device: TensorDevice, spec: WorkloadSpec): Promise<NativeRunner> {
    const native = loadNative();
    const workload = await callNative(() => native.benchOpen({ ...spec, device }));
    return new NativeRunner(
      workload,
      callNative(() => native.benchEntries(workload)),
    );
  }

  run(name: string): Promise<number> {
    return callNative(() => loadNative().benchRun(this.workload, name));
  }

  memory(name: string): Promise<number> {
    return callNative(() => loadNative().benchMemory(this.workload, name));
  }

  errors(name: string): Promise<Errors> {
    return callNative(() => loadNative().benchErrors(this.workload, name));
  }

  close(): Promise<void> {
    return callNative(() => loadNative().benchClose(this.workload));
  }
}
