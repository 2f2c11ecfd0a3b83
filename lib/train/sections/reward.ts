/** [reward]: how responses are rewarded. */
import { ERROR_POLICIES } from '../../tasks/call-reward.js';
import { OVERLONG } from '../../tasks/rewards.js';
import { VERIFIERS } from '../../tasks/verifiers.js';
import { choice, integer, number, optionalPath, section } from '../config-file.js';

export const reward = section(
  {
    verifier: choice(['auto', ...VERIFIERS, 'none'], 'auto', {
      doc: 'What makes a response right: "math", its final answer is mathematically equal to the gold one; "gsm8k", it ends in #### and the same number; "exact", trimmed it is the gold answer; "none", only the module decides. "auto" = the task\'s own rule, else "math".',
      paper: 'a rule-based verifier of the final answer',
    }),
    weight: number(1, {}, { doc: 'Weight of the verifier in the sum of the rewards.' }),
    module: optionalPath('', {
      doc: 'A JavaScript module of your own, e.g. "./reward.mjs": it exports a function of a batch, or a list of { name, fn, weight } as `rewards`. It runs with all rights of this process. See docs/tasks.md.',
    }),
    moduleWeight: number(1, {}, { doc: "Weight of the module's function; a list brings its own." }),
    timeoutMs: integer(
      60_000,
      { min: 0 },
      {
        doc: 'Milliseconds after which a reward that has not come is cut off; 0 = never. A list has its own times. Verifiers keep their own time.',
      },
    ),
    onTimeout: choice(['null', 'zero', 'throw'], 'null', {
      doc: 'What a cut-off reward is: "null", left out of the sum; "zero"; "throw", the end of the run.',
    }),
    onError: choice(ERROR_POLICIES, 'stop', {
      doc: 'What becomes of a reward that throws, is no finite number or is missing: "stop", the end of the run; "skip", it is left out of the sum and counted.',
    }),
    maxFailedShare: number(
      0.5,
      { min: 0, max: 1 },
      {
        doc: 'Rewards are broken where more than this share of the responses has one that failed or was cut off, ...',
      },
    ),
    maxFailedIterations: integer(
      3,
      { min: 0 },
      { doc: '... for so many iterations in a row: then the run ends. 0 = never.' },
    ),
    overlong: choice(OVERLONG, 'verify', {
      doc: 'Responses cut off at maxNewTokens in training: "verify", judged like all others; "zero", their reward is 0; "null", left out.',
      paper: 'verified like all others',
    }),
    overlongBuffer: number(
      0,
      { min: 0, max: 1 },
      {
        doc: "DAPO's soft punishment of long responses: over this last share of maxNewTokens the reward falls, by overlongPenalty at its end. DAPO: 0.2. 0 = off.",
        paper: 'not used',
      },
    ),
    overlongPenalty: number(1, { min: 0 }, { doc: 'What a response of maxNewTokens tokens loses.' }),
  },
  'How responses are rewarded: 1 for a right final answer, 0 otherwise (Eq. 1), and what you add.',
);
