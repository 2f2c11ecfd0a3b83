/** What the kernels must reach, and whether they did on the shapes the promises are about. */
import type { TensorDevice } from '../tensor.js';
import type { KernelResult, WorkloadResult } from './measure.js';

export interface Check {
  what: string;
  measured: string;
  passed: boolean;
}

type Judge = (kernel: KernelResult) => Omit<Check, 'what'> | undefined;

const atMost = (value: number, limit: number, show: (x: number) => string): Omit<Check, 'what'> => ({
  measured: `${show(value)}, at most ${show(limit)}`,
  passed: value <= limit,
});

const times = (x: number): string => `${x.toFixed(2)}x`;
const scientific = (x: number): string => x.toExponential(1);
const mebibytes = (x: number): string => `${(x / 2 ** 20).toFixed(1)} MiB`;

const floor =
  (limit: number): Judge =>
  ({ floor }) => ({
    ...atMost(floor.ratio, limit, times),
    measured: `${times(floor.ratio)} of ${floor.name}, at most ${times(limit)}`,
  });

const faster =
  (peer: string, least: number): Judge =>
  ({ peers }) => {
    const ratio = peers[peer]?.ratio;
    if (ratio === undefined) return undefined;
    return { measured: `${times(ratio)} as fast, at least ${times(least)}`, passed: ratio >= least };
  };

const error =
  (names: readonly string[], limit: number): Judge =>
  ({ errors }) => {
    const values = names.flatMap((name) => errors[name] ?? []);
    return values.length === 0 ? undefined : atMost(Math.max(...values), limit, scientific);
  };

const memory =
  (limit: number): Judge =>
  ({ extraBytes }) =>
    atMost(extraBytes, limit, mebibytes);

const rate =
  (least: number): Judge =>
  ({ rate }) => ({
    measured: `${(rate / 1e12).toFixed(0)} TFLOP/s, at least ${(least / 1e12).toFixed(0)}`,
    passed: rate >= least,
  });

/** Every peer that ran is slower. */
const fastest: Judge = ({ peers }) => {
  const entries = Object.entries(peers);
  const [name, peer] = entries.toSorted(([, x], [, y]) => x.ratio - y.ratio)[0] ?? [];
  return peer === undefined
    ? undefined
    : { measured: `${name} takes ${times(peer.ratio)} as long`, passed: peer.ratio > 1 };
};

interface Target {
  applies(result: WorkloadResult): boolean;
  kernels: readonly string[];
  what: string;
  judge: Judge;
}

const isLogits = ({ spec }: WorkloadResult): boolean => spec.kind === 'logits';
const isFloat = ({ spec }: WorkloadResult): boolean => 'dtype' in spec && spec.dtype === 'float32';
const isHalf = (result: WorkloadResult): boolean => 'dtype' in result.spec && !isFloat(result);
const rowsOf = ({ spec }: WorkloadResult): number => ('rows' in spec ? spec.rows : 0);

/** Enough rows that a launch takes no time beside them. */
const isLargeLogits = (result: WorkloadResult): boolean => isLogits(result) && rowsOf(result) >= 4096;

/** On every device. */
const exactness: Target[] = [
  {
    applies: isLogits,
    kernels: ['tokenStats', 'sample'],
    what: 'error of log-prob and entropy',
    judge: error(['logprob', 'entropy'], 1e-6),
  },
  {
    applies: (result) => isLogits(result) && isFloat(result),
    kernels: ['tokenGrad', 'tokenGrad, b', 'unlearn'],
    what: 'error of the gradient',
    judge: error(['gradient'], 1e-6),
  },
  {
    applies: (result) => isLogits(result) && isHalf(result),
    kernels: ['tokenGrad', 'tokenGrad, b', 'unlearn'],
    what: 'error of the gradient',
    judge: error(['gradient'], 5e-3),
  },
];

const onCpu = (result: WorkloadResult): boolean =>
  result.spec.kind === 'logits' && result.spec.rows === 256 && result.spec.vocab === 151_936;
/** The process's pages are counted, and some of its other threads touch a few meanwhile. */
const NOTHING = 2 ** 20;

const cpu: Target[] = [
  { applies: (r) => onCpu(r) && isFloat(r), kernels: ['tokenStats'], what: 'time over one read', judge: floor(1.25) },
  {
    applies: (r) => onCpu(r) && isFloat(r),
    kernels: ['tokenStats'],
    what: 'against eager',
    judge: faster('eager', 30),
  },
  {
    applies: (r) => onCpu(r) && isFloat(r),
    kernels: ['tokenStats'],
    what: 'against torch.compile',
    judge: faster('compile', 3),
  },
  { applies: (r) => onCpu(r) && isFloat(r), kernels: ['unlearn'], what: 'time over read + write', judge: floor(1.4) },
  { applies: onCpu, kernels: ['tokenStats', 'tokenGrad', 'unlearn'], what: 'extra memory', judge: memory(NOTHING) },
  ...exactness,
];

/** Of reads alone, a copy's time counts half: its floor is scaled by bytes. */
const cuda: Target[] = [
  { applies: isLargeLogits, kernels: ['tokenStats'], what: 'time over one read', judge: floor(1.15) },
  { applies: isLargeLogits, kernels: ['unlearn'], what: 'time over read + write', judge: floor(1.7) },
  {
    applies: ({ spec }) => spec.kind === 'head' && spec.rows === 8192 && spec.dim === 4096 && spec.dtype !== 'float32',
    kernels: ['tokenStats'],
    what: 'rate',
    judge: rate(650e12),
  },
  {
    applies: ({ spec }) => spec.kind === 'head',
    kernels: ['tokenGrad', 'tokenGrad, some active', 'unlearn', 'unlearn, some active'],
    what: 'time over the bare products',
    judge: floor(1.2),
  },
  {
    applies: (r) => r.spec.kind === 'head' && rowsOf(r) === 32_768,
    kernels: ['tokenStats', 'tokenGrad', 'unlearn'],
    what: 'extra memory',
    judge: memory(1.5e9),
  },
  {
    applies: ({ spec }) => spec.kind === 'weights',
    kernels: ['ascend float32', 'ascend bfloat16', 'ascend bfloat16 stochastic', 'restore float32', 'restore bfloat16'],
    what: 'time over a copy of as many bytes',
    judge: floor(1 / 0.85),
  },
  { applies: () => true, kernels: [], what: 'against the fastest peer', judge: fastest },
  ...exactness,
];

/** Every promise about a shape that was measured. */
export function checkTargets(device: TensorDevice, results: readonly WorkloadResult[]): Check[] {
  return results.flatMap((result) =>
    (device === 'cuda' ? cuda : cpu)
      .filter(({ applies }) => applies(result))
      .flatMap(({ kernels, what, judge }) =>
        result.kernels
          .filter(({ name }) => kernels.length === 0 || kernels.includes(name))
          .flatMap((kernel) => {
            const judged = judge(kernel);
            return judged ? [{ what: `${result.title}: ${kernel.name}: ${what}`, ...judged }] : [];
          }),
      ),
  );
}
