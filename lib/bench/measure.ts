/** Takes the times: floors, kernels and peers in turns, so that a busy moment of the machine meets all of them. */

import { InvalidArgumentError } from '../errors.js';
import type { TensorDevice } from '../tensor.js';
import { type Entry, type Errors, NativeRunner, type Runner } from './native.js';
import type { Offer, Peers } from './peers.js';
import { type WorkloadSpec, workloadTitle } from './workloads.js';

/** Milliseconds. */
export interface Times {
  min: number;
  median: number;
  rounds: number;
}

export interface PeerResult {
  ms: Times;
  /** Its time over ours (minima): above 1, ours is faster. */
  ratio: number;
  extraBytes: number | null;
  errors: Errors;
}

export interface FloorResult {
  name: string;
  ms: Times;
  amount: number;
  unit: Entry['unit'];
}

export interface KernelResult {
  name: string;
  ms: Times;
  amount: number;
  unit: Entry['unit'];
  /** Bytes or FLOPs per second at the minimum. */
  rate: number;
  /**
   * The fastest of its floors, scaled to this kernel's amount of work (median), and our time over it: each round takes the
   * floors right before the kernel, and this is the median of the rounds' ratios.
   */
  floor: { name: string; ms: number; ratio: number };
  extraBytes: number;
  errors: Errors;
  peers: Record<string, PeerResult>;
}

export interface WorkloadResult {
  spec: WorkloadSpec;
  title: string;
  floors: FloorResult[];
  kernels: KernelResult[];
  /** What could not be run, and why. */
  notes: string[];
}

export interface MeasureOptions {
  device: TensorDevice;
  rounds: number;
  /** After this much time in one piece of work it sits out, once it has run `leastRounds` times. Seconds. */
  budget: number;
  /** Only kernels whose name contains one of these; empty: all. */
  only: readonly string[];
  peers: Peers | undefined;
  signal?: AbortSignal;
  /** Told what is going on. */
  progress?: (message: string) => void;
}

const LEAST_ROUNDS = 3;

/** One piece of work and who does it. */
interface Turn {
  name: string;
  peer?: string;
  runner: Runner;
  times: number[];
  /** Of one of our kernels: what it is compared with, and its time over the fastest of them, round by round. */
  floors: { name: string; scale: number }[];
  ratios: number[];
}

export function summarize(times: readonly number[]): Times {
  const sorted = times.toSorted((x, y) => x - y);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] as number;
  const median = sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
  return { min: sorted[0] as number, median, rounds: sorted.length };
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Whether `only` asks for a kernel; without any, all are meant. */
const isWanted = (name: string, only: readonly string[]): boolean =>
  only.length === 0 || only.some((part) => name.includes(part));

/** As small as a workload can be. */
const SMALLEST = {
  logits: { kind: 'logits', rows: 1, vocab: 16, dtype: 'float32' },
  head: { kind: 'head', rows: 1, dim: 16, vocab: 16, dtype: 'float32' },
  loss: { kind: 'loss', tokens: 512 },
  weights: { kind: 'weights', elements: 64 },
} as const satisfies { [Kind in WorkloadSpec['kind']]: Extract<WorkloadSpec, { kind: Kind }> };

/**
 * Before minutes are spent on shapes.
 *
 * @param kinds - of the workloads that will be measured.
 * @throws InvalidArgumentError naming what of `only` no kernel's name contains, and the kernels that there are
 */
export async function checkOnly(
  device: TensorDevice,
  kinds: readonly WorkloadSpec['kind'][],
  only: readonly string[],
): Promise<void> {
  if (only.length === 0) return;
  const names = new Set<string>();
  for (const kind of new Set(kinds)) {
    const native = await NativeRunner.open(device, SMALLEST[kind]);
    for (const { name, floors } of native.entries) if (floors.length > 0) names.add(name);
    await native.close();
  }
  const nothing = only.find((part) => ![...names].some((name) => isWanted(name, [part])));
  if (nothing === undefined) return;
  throw new InvalidArgumentError(
    `--only ${nothing}: no kernel has this in its name; there are ${[...names].map((name) => `"${name}"`).join(', ')}`,
  );
}

/** The kernels asked for, and the floors they are compared with. */
function chosen(entries: readonly Entry[], only: readonly string[]): Entry[] {
  const kernels = entries.filter(({ name, floors }) => floors.length > 0 && isWanted(name, only));
  return entries.filter((entry) => kernels.some((kernel) => kernel === entry || kernel.floors.includes(entry.name)));
}

/** Floors first, then each kernel with its peers after it. */
function turnsOf(entries: readonly Entry[], native: Runner, offer: Offer, peers: Peers | undefined): Turn[] {
  const amounts = new Map(entries.map(({ name, amount }) => [name, amount]));
  return entries.flatMap(({ name, amount, floors }): Turn[] => {
    const scaled = floors
      .filter((floor) => amounts.has(floor))
      .map((floor) => ({ name: floor, scale: amount / (amounts.get(floor) as number) }));
    return [
      { name, runner: native, times: [], floors: scaled, ratios: [] },
      ...Object.entries(offer)
        .filter(([, names]) => peers && names.includes(name))
        .map(([peer]) => ({ name, peer, runner: (peers as Peers).runner(peer), times: [], floors: [], ratios: [] })),
    ];
  });
}

/** Runs everything once, untimed: memory is touched and peers compile. Peers that fail are noted and left out. */
async function warmUp(turns: Turn[], notes: string[], options: MeasureOptions): Promise<Turn[]> {
  const able: Turn[] = [];
  for (const turn of turns) {
    options.signal?.throwIfAborted();
    options.progress?.(`warming up ${turn.peer ?? 'eepo'} ${turn.name}`);
    try {
      await turn.runner.run(turn.name);
      able.push(turn);
    } catch (error) {
      if (turn.peer === undefined) throw error;
      notes.push(`${turn.peer} ${turn.name}: not here: ${messageOf(error)}`);
    }
  }
  return able;
}

async function takeTimes(turns: Turn[], options: MeasureOptions): Promise<void> {
  for (let round = 0; round < options.rounds; round++) {
    options.progress?.(`round ${round + 1} of ${options.rounds}`);
    for (const { name, runner, times, floors, ratios } of turns) {
      options.signal?.throwIfAborted();
      const spent = times.reduce((sum, ms) => sum + ms, 0) / 1000;
      if (times.length >= LEAST_ROUNDS && spent > options.budget) continue;
      // The memory of a shared machine is faster in one second than in the next: the floor is that of this moment.
      let floor = Number.POSITIVE_INFINITY;
      for (const { name, scale } of floors) floor = Math.min(floor, (await runner.run(name)) * scale);
      const ms = await runner.run(name);
      times.push(ms);
      if (floors.length > 0) ratios.push(ms / floor);
    }
  }
}

async function peerResult(turn: Turn, ours: Times): Promise<PeerResult> {
  const ms = summarize(turn.times);
  return {
    ms,
    ratio: ms.median / ours.median,
    extraBytes: await turn.runner.memory(turn.name),
    errors: await turn.runner.errors(turn.name),
  };
}

async function kernelResult(
  entry: Entry,
  turns: readonly Turn[],
  floors: readonly FloorResult[],
): Promise<KernelResult> {
  const mine = turns.filter(({ name }) => name === entry.name);
  const ours = mine.find(({ peer }) => peer === undefined) as Turn;
  const ms = summarize(ours.times);
  const scaled = floors
    .filter(({ name }) => entry.floors.includes(name))
    .map(({ name, ms, amount }) => ({ name, ms: (ms.median * entry.amount) / amount }))
    .sort((x, y) => x.ms - y.ms)[0] as { name: string; ms: number };
  const peers: Record<string, PeerResult> = {};
  for (const turn of mine) if (turn.peer !== undefined) peers[turn.peer] = await peerResult(turn, ms);
  return {
    name: entry.name,
    ms,
    amount: entry.amount,
    unit: entry.unit,
    rate: entry.amount / (ms.min / 1000),
    floor: { ...scaled, ratio: summarize(ours.ratios).median },
    extraBytes: await ours.runner.memory(entry.name),
    errors: await ours.runner.errors(entry.name),
    peers,
  };
}

/** Measures one shape. */
export async function measure(spec: WorkloadSpec, options: MeasureOptions): Promise<WorkloadResult> {
  const title = workloadTitle(spec);
  const notes: string[] = [];
  options.progress?.(`making the data`);
  const native = await NativeRunner.open(options.device, spec);
  try {
    const entries = chosen(native.entries, options.only);
    let offer: Offer = {};
    try {
      offer = (await options.peers?.open(spec)) ?? {};
    } catch (error) {
      notes.push(`peers: not here: ${messageOf(error)}`);
    }
    const turns = await warmUp(turnsOf(entries, native, offer, options.peers), notes, options);
    await takeTimes(turns, options);
    const floors = entries
      .filter(({ floors }) => floors.length === 0)
      .map(({ name, amount, unit }): FloorResult => {
        const { times } = turns.find((turn) => turn.name === name) as Turn;
        return { name, ms: summarize(times), amount, unit };
      });
    options.progress?.('measuring memory and errors');
    const kernels: KernelResult[] = [];
    for (const entry of entries) {
      options.signal?.throwIfAborted();
      if (entry.floors.length > 0) kernels.push(await kernelResult(entry, turns, floors));
    }
    return { spec, title, floors, kernels, notes };
  } finally {
    await native.close();
    await options.peers?.clear().catch(() => {}); // a process that ended has freed it
  }
}
