/** `eepo bench kernels`: every kernel against the machine's limits, against PyTorch and others, and against float64. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { machine } from '../bench/machine.js';
import { checkOnly, type MeasureOptions, measure } from '../bench/measure.js';
import { findPython, Peers } from '../bench/peers.js';
import { checksText, type KernelsReport, machineText, markdown, workloadText } from '../bench/report.js';
import { checkTargets } from '../bench/targets.js';
import { type WorkloadSpec, workloadBytes, workloads, workloadTitle } from '../bench/workloads.js';
import { resolveDevice } from '../cuda.js';
import { InvalidArgumentError, OutOfMemoryError, UnsupportedError } from '../errors.js';
import { loadNative } from '../native.js';
import type { FloatDType, TensorDevice } from '../tensor.js';
import { wholeNumber, withInterrupt } from './common.js';

interface CliOptions {
  device: string;
  rows: number[];
  vocab: number[];
  dim: number[];
  dtype: FloatDType[];
  kind: WorkloadSpec['kind'][];
  tokens?: number;
  elements?: number;
  only: string[];
  quick?: boolean;
  rounds?: number;
  threads?: number;
  /** False with --no-peers. */
  peers?: string | false;
  compile: boolean;
  liger?: string;
  verl?: string;
  json?: string;
  markdown?: string;
}

/** An option that can be given several times, or with commas. */
const numbers =
  (name: string) =>
  (value: string, previous: number[]): number[] => [...previous, ...value.split(',').map(wholeNumber(name, 1))];

function names<T extends string>(option: string, known: readonly T[]) {
  return (value: string, previous: T[]): T[] => {
    const given = value.split(',');
    for (const name of given) {
      if (!(known as readonly string[]).includes(name)) {
        throw new InvalidArgumentError(`--${option} ${name}: expected one of ${known.join(', ')}`);
      }
    }
    return [...previous, ...(given as T[])];
  };
}

export function register(bench: Command): void {
  bench
    .command('kernels')
    .description("time every kernel beside the machine's own limits, PyTorch and other implementations")
    .option('--device <name>', 'auto, cpu or cuda', 'cpu')
    .option(
      '--rows <n>',
      'rows of logits; several: commas (default: 256; cuda: 256, 4096, 8192, 32768)',
      numbers('rows'),
      [],
    )
    .option('--vocab <n>', 'vocabulary (default: 151936 and 128256)', numbers('vocab'), [])
    .option('--dim <n>', 'hidden size (default: 2048; cuda: 2048, 3072, 4096)', numbers('dim'), [])
    .option(
      '--dtype <name>',
      'float32, bfloat16, float16',
      names('dtype', ['float32', 'bfloat16', 'float16'] as const),
      [],
    )
    .option(
      '--kind <name>',
      'logits, head, loss, weights',
      names('kind', ['logits', 'head', 'loss', 'weights'] as const),
      [],
    )
    .option('--tokens <n>', 'tokens of complementaryLoss', wholeNumber('tokens', 1))
    .option('--elements <n>', 'parameters of ascend and AdamW', wholeNumber('elements', 1))
    .option(
      '--only <text>',
      'only kernels whose name contains this; may be repeated',
      (text, all: string[]) => [...all, text],
      [],
    )
    .option('--quick', 'fewer shapes and rounds, no torch.compile')
    .option('--rounds <n>', 'times each is measured (default: 15; quick: 3)', wholeNumber('rounds', 1))
    .option('--threads <n>', 'CPU threads, also of the peers (default: all)', wholeNumber('threads', 1))
    .option('--peers <python>', 'a Python with torch (default: EEPO_PYTHON, python3, python)')
    .option('--no-peers', 'without other implementations')
    .option('--no-compile', 'without torch.compile')
    .option('--liger <folder>', 'a checkout of Liger-Kernel (default: what Python finds)')
    .option('--verl <folder>', 'a checkout of verl (default: what Python finds)')
    .option('--json <file>', 'write everything there')
    .option('--markdown <file>', 'write the tables there')
    .action(benchKernels);
}

const log = (text: string): void => console.error(text);

async function startPeers(cli: CliOptions, device: TensorDevice): Promise<Peers | undefined> {
  if (cli.peers === false) return undefined;
  const { python, reasons } = findPython(cli.peers);
  try {
    if (python === undefined) throw new UnsupportedError(`no Python with torch: ${reasons.join('; ')}`);
    const { liger, verl } = cli;
    const compile = cli.compile && !cli.quick;
    return await Peers.start(python, { device, threads: loadNative().info().threads, compile, liger, verl });
  } catch (error) {
    if (cli.peers !== undefined || !(error instanceof UnsupportedError)) throw error;
    log(`${error.message}; measuring without peers`); // nobody asked for them
    return undefined;
  }
}

/** Throws OutOfMemoryError for a shape whose data alone do not fit. */
async function refuseTooLarge(device: TensorDevice, spec: WorkloadSpec): Promise<void> {
  const freeBytes = device === 'cpu' ? freemem() : (await loadNative().deviceInfo(device)).freeBytes;
  const needed = workloadBytes(spec);
  if (needed <= freeBytes * 0.9) return;
  const gibibytes = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
  throw new OutOfMemoryError(`needs ${gibibytes(needed)} GiB, ${gibibytes(freeBytes)} GiB are free`);
}

async function run(
  cli: CliOptions,
  device: TensorDevice,
  peers: Peers | undefined,
  signal: AbortSignal,
): Promise<KernelsReport> {
  const shapes = workloads({
    ...cli,
    device,
    kinds: cli.kind,
    tokens: cli.tokens,
    elements: cli.elements,
    quick: cli.quick ?? false,
  });
  await checkOnly(
    device,
    shapes.map(({ kind }) => kind),
    cli.only,
  );
  const rounds = cli.rounds ?? (cli.quick ? 3 : 15);
  const budget = cli.quick ? 1 : 3;
  const report: KernelsReport = {
    machine: await machine(device, peers?.machine),
    options: { rounds, budget, only: cli.only, quick: cli.quick ?? false, compile: cli.compile && !cli.quick },
    workloads: [],
    skipped: [],
    checks: [],
  };
  console.log(machineText(report));
  const options: MeasureOptions = {
    device,
    rounds,
    budget,
    only: cli.only,
    peers,
    signal,
    progress: process.stderr.isTTY ? (message) => log(`  ${message}`) : undefined,
  };
  for (const spec of shapes) {
    log(`\n${workloadTitle(spec)} ...`);
    try {
      await refuseTooLarge(device, spec);
      const result = await measure(spec, options);
      if (result.kernels.length === 0) continue;
      report.workloads.push(result);
      console.log(`\n${workloadText(result)}`);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      const reason = `${workloadTitle(spec)}: left out: ${error.message}`;
      report.skipped.push(reason);
      console.log(`\n${reason}`);
    }
  }
  report.checks = checkTargets(device, report.workloads);
  if (report.checks.length > 0) console.log(`\n${checksText(report.checks)}`);
  return report;
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

async function benchKernels(cli: CliOptions): Promise<void> {
  if (!['auto', 'cpu', 'cuda'].includes(cli.device)) {
    throw new InvalidArgumentError(`--device ${cli.device}: expected auto, cpu or cuda`);
  }
  const device = resolveDevice(cli.device as 'auto' | 'cpu' | 'cuda');
  if (cli.threads !== undefined) loadNative().setThreads(cli.threads);
  await withInterrupt(async (signal) => {
    const peers = await startPeers(cli, device);
    try {
      const report = await run(cli, device, peers, signal);
      if (cli.json) write(cli.json, `${JSON.stringify(report, null, 2)}\n`);
      if (cli.markdown) write(cli.markdown, markdown(report));
    } finally {
      await peers?.close();
    }
  });
}
