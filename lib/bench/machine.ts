/** What a run was made on. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { loadNativeDetails, packageRoot } from '../native.js';
import type { TensorDevice } from '../tensor.js';
import type { PeerMachine } from './peers.js';

export interface Machine {
  /** The GPU's or the processor's name. */
  device: string;
  kind: TensorDevice;
  cores: number;
  threads: number;
  isa: string;
  eepo: string;
  libtorch: string;
  node: string;
  /** ISO 8601, when the run began. */
  date: string;
  /** Null where no peers ran. */
  peers: PeerMachine | null;
}

export async function machine(device: TensorDevice, peers: PeerMachine | undefined): Promise<Machine> {
  const { addon, libtorch } = loadNativeDetails();
  const { isa, threads } = addon.info();
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  const gpu = device === 'cuda' ? await addon.deviceInfo('cuda') : undefined;
  return {
    device: gpu?.name ?? cpus()[0]?.model.trim() ?? 'unknown processor',
    kind: device,
    cores: availableParallelism(),
    threads,
    isa,
    eepo: version,
    libtorch: libtorch.version,
    node: process.versions.node,
    date: new Date().toISOString(),
    peers: peers ?? null,
  };
}
