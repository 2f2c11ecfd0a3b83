/** [unlearn]: the step between the two stages. */
import { SAMPLES_TO_FORGET } from '../../algorithm/forgettable.js';
import { choice, flag, integer, number, section } from '../config-file.js';

export const unlearn = section(
  {
    enabled: flag(true, { doc: 'true is EEPO: sample G/2, forget, sample G/2. false is GRPO.', paper: 'true' }),
    eta: number(
      3e-3,
      { min: 0 },
      { doc: "Step size of the one ascent step theta' = theta + eta grad L (Eq. 11).", paper: '3e-3' },
    ),
    alpha: number(
      0.3,
      { over: 0 },
      { doc: 'Gate: only where the mean entropy over the window is below this many nats (Eq. 5).', paper: '0.3' },
    ),
    window: integer(
      3,
      { min: 1 },
      { doc: 'm, the length of the gate\'s window (Eq. 4), in tokens or, for gate "step", iterations.', paper: '3' },
    ),
    gate: choice(['token', 'step', 'token+step', 'always', 'never'], 'token', {
      doc: 'Reading of the gate: "token" as in Eq. 4-5 and 10; "step" on the mean entropy of the last m iterations, as in Algorithm 1; both; every token; none.',
      paper: 'leaves it open',
    }),
    epsLow: number(1e-6, { min: 0, max: 0.5 }, { doc: 'Lower clip of p in Eq. 9.', paper: 'not given' }),
    epsHigh: number(
      1e-5,
      { min: 0, max: 0.5 },
      { doc: 'Upper clip, 1 - p, in Eq. 9. A large value exempts the most dominant tokens.', paper: 'not given' },
    ),
    clampGrad: choice(['zero', 'saturate'], 'zero', {
      doc: 'Gradient of clipped tokens: "zero" as automatic differentiation of a clamp gives, or that of the bound.',
      paper: 'leaves it open',
    }),
    normalize: choice(['none', 'gradNorm', 'relative'], 'none', {
      doc: '"gradNorm" divides the gradient by its global norm, so that eta is the length of the step; "relative": so that it is the length relative to the norm of what is trained.',
      paper: 'none',
    }),
    loss: choice(['complementary', 'nll'], 'complementary', {
      doc: 'What is ascended: Eq. 9, or the plain -log p, which pushes every open token down alike and clips nothing.',
      paper: 'complementary',
    }),
    steps: integer(
      1,
      { min: 1, max: 1000 },
      { doc: "Steps of ascent, each from the theta' of the one before, behind the gate of the first.", paper: '1' },
    ),
    direction: choice(['gradient', 'random'], 'gradient', {
      doc: '"random" is a control: steps of the same length in a direction drawn at random.',
      paper: 'gradient',
    }),
    memory: number(
      0,
      { min: 0, max: 1 },
      {
        doc: "d: theta'_i = theta_i + d (theta'_{i-1} - theta_{i-1}) + eta grad L. 0 = theta' is theta again in every iteration.",
        paper: '0',
      },
    ),
    scope: choice(['batch', 'prompt'], 'batch', {
      doc: '"prompt" makes a theta\' for each prompt, from its own stage-1 samples, and draws its stage 2 from it, one prompt after the other.',
      paper: 'batch',
    }),
    samples: choice(SAMPLES_TO_FORGET, 'all', {
      doc: 'Stage-1 samples that are forgotten: "correct", those with a reward above 0; "wrong", the others; "solved", those of prompts whose stage 1 is all correct. The mean of Eq. 10 is over them alone.',
      paper: 'all',
    }),
    rolloutDtype: choice(['same', 'float32'], 'same', {
      doc: 'Type of theta\' where model.dtype is bfloat16: "same", rounded stochastically; "float32", twice the memory and no rounding.',
      paper: 'not given',
    }),
    maxRelativeStep: number(
      1,
      { min: 0 },
      {
        doc: 'A step longer than so many times the norm of what is trained has diverged: it is undone, stage 2 is drawn from theta (unlearn/undone). 0 = no bound.',
        paper: 'not used',
      },
    ),
    maxLogpDelta: number(
      20,
      { min: 0 },
      {
        doc: 'So has one that changes the log-prob of the probed tokens by more nats on average. 0 = no bound.',
        paper: 'not used',
      },
    ),
    probeTokens: integer(
      256,
      { min: 0 },
      { doc: 'Stage-1 tokens whose log-prob is measured again after the step (unlearn/stage1_logp_delta); 0 = none.' },
    ),
  },
  'The temporary unlearning between the two stages of the rollout (Eq. 9-11).',
);
