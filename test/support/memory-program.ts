/** Asks for more than the process may have, once it has limited itself, and prints the code of every error. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadNative } from '../../lib/native.js';
import { Policy } from '../../lib/policy.js';
import { Tensor } from '../../lib/tensor.js';
import { embeddedModel } from './data.js';

const allowance = 400 * 2 ** 20;
const config = JSON.parse(readFileSync(join(embeddedModel, 'config.json'), 'utf8')) as Record<string, unknown>;
const policy = await Policy.load(embeddedModel);
const score = async (): Promise<string> => JSON.stringify(await policy.score([[1, 2, 3]]));
const before = await score();

const [, size = '0'] = /VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
execFileSync('prlimit', ['--pid', String(process.pid), `--as=${Number(size) * 1024 + allowance}`]);

const rows = (count: number, length: number): number[][] =>
  Array.from({ length: count }, () => new Array<number>(length).fill(2));
const tries: Record<string, () => unknown> = {
  tensor: () => Tensor.zeros([1 << 28]),
  create: () => Policy.create({ ...config, vocab_size: 1 << 20, hidden_size: 512 }),
  forward: () => policy.forward({ prompts: rows(6000, 1), responses: rows(6000, 60) }),
  generate: () => policy.generate(rows(4000, 2), { maxNewTokens: 60, samplesPerPrompt: 100, temperature: 9 }),
  threads() {
    const { threads } = loadNative().info();
    loadNative().setThreads(1000);
    return policy.score([[1, 2, 3]]).finally(() => loadNative().setThreads(threads));
  },
};
const result: Record<string, unknown> = {};
for (const [name, attempt] of Object.entries(tries)) {
  try {
    await attempt();
    result[name] = 'no error';
  } catch (error) {
    result[name] = (error as { code?: string }).code ?? String(error);
  }
}
result.same = (await score()) === before;
console.log(JSON.stringify(result));
