/** What a device has and holds. */
import { callNative, loadNative } from './native.js';
import { requireDevice, type TensorDevice } from './tensor.js';

/** What {@link deviceInfo} tells. */
export interface DeviceInfo {
  name: string;
  /** Memory of the device (of the machine, for the CPU), and what of it nobody uses. */
  totalBytes: number;
  freeBytes: number;
  /** Compute capability, such as `9.0`; `0.0` for the CPU. */
  capability: string;
  multiprocessors: number;
  /**
   * In use by policies and by tensors made here, and the most since {@link emptyCache}. On a CPU this does not count
   * what kernels hold while they run.
   */
  allocatedBytes: number;
  peakBytes: number;
  /**
   * How often this process has waited for the GPU. Every read of results waits once, generation once per position, a
   * training forward once per micro-batch, `forget` and `step` a few times more; nothing else does.
   */
  synchronizations: number;
}

declare module './native.js' {
  interface NativeAddon {
    emptyCache(device: TensorDevice): Promise<void>;
  }
}

/**
 * The device's memory and counters, once all work queued before is done.
 *
 * @param device 'cpu' or 'cuda'; default 'cuda'.
 * @throws UnsupportedError where there is no CUDA, saying why.
 */
export async function deviceInfo(device: TensorDevice = 'cuda'): Promise<DeviceInfo> {
  const there = requireDevice(device);
  return callNative(() => loadNative().deviceInfo(there));
}

/**
 * Gives GPU memory that libtorch keeps for later back to the system, and starts the peak anew.
 *
 * @param device default 'cuda'. 'cpu' keeps nothing: only the peak starts anew.
 * @throws UnsupportedError where there is no CUDA, saying why.
 */
export async function emptyCache(device: TensorDevice = 'cuda'): Promise<void> {
  const there = requireDevice(device);
  await callNative(() => loadNative().emptyCache(there));
}
