/** A metric of `checkpoint.keepBest` that could never be seen would keep nothing: it is refused before the run. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfigError } from '../lib/errors.js';
import { keepBestSetProblem } from '../lib/train/best-metric.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';

const config = (keepBest: string, evaluation: TrainConfigInput['eval'], iterations = 10) =>
  defineConfig({ run: { iterations }, checkpoint: { keepBest }, eval: evaluation });

describe('checkpoint.keepBest', () => {
  it('takes what an evaluation after an iteration measures, and any metric of training', () => {
    config('reward/mean', {});
    config('eval/test/greedy', { every: 5 });
    config('eval/test/greedy', { atEnd: true });
    for (const name of ['avg@8', 'pass@4', 'maj@4', 'entropy', 'distinct', 'truncated_frac', 'task/habit']) {
      config(`eval/aime24/${name}`, { every: 10, samplesPerPrompt: 8, passK: [1, 4, 16], greedy: false });
    }
  });

  const wrong: [string, TrainConfigInput['eval'], RegExp][] = [
    [
      'eval/test/greedy',
      {},
      /keepBest = "eval\/test\/greedy": nothing is evaluated after an iteration; set eval\.every$/m,
    ],
    ['eval/test/greedy', { atStart: true }, /nothing is evaluated after an iteration/],
    ['eval/test/greedy', { every: 11 }, /set eval\.every to at most run\.iterations = 10/],
    ['eval/greedy', { every: 1 }, /expected eval\/<set>\/<metric>/],
    ['eval/test/greedy', { every: 1, greedy: false }, /\[eval\] does not measure "greedy"/],
    ['eval/test/gredy', { every: 1 }, /did you mean "eval\/test\/greedy"\?/],
    ['eval/test/avg@8', { every: 1, samplesPerPrompt: 4 }, /did you mean "eval\/test\/avg@4"\?/],
    ['eval/test/pass@8', { every: 1, samplesPerPrompt: 4 }, /does not measure "pass@8"/],
    ['eval/test/maj@1', { every: 1 }, /does not measure "maj@1"/],
    ['eval/test/entropy', { every: 1, samplesPerPrompt: 0 }, /does not measure "entropy"; it measures greedy,/],
    ['eval/test/task/habit', { every: 1, samplesPerPrompt: 0 }, /does not measure "task\/habit"/],
  ];
  for (const [metric, evaluation, message] of wrong) {
    it(`refuses ${metric} with ${JSON.stringify(evaluation)}`, () => {
      assert.throws(
        () => config(metric, evaluation),
        (error: Error) => {
          assert.ok(error instanceof ConfigError);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  it('needs a set that is evaluated', () => {
    assert.equal(keepBestSetProblem('eval/test/greedy', ['test', 'aime24']), null);
    assert.equal(keepBestSetProblem('reward/mean', ['test']), null);
    assert.match(
      keepBestSetProblem('eval/tset/greedy', ['test', 'aime24']) ?? '',
      /"tset" is not evaluated; there is test, aime24/,
    );
  });
});
