/** The figures of a report: from what runs measured to what is drawn. Pure. */
import { accuracyFigures } from './accuracy-figures.js';
import { type FigureData, type FigureSeries, rounded } from './figure.js';
import type { RunData } from './read-run.js';
import { byStage, hasPoints, ITERATION, label, metric, perRun, slug, yValues } from './series.js';

/** Every figure that the runs have data for, in the order in which they are read. Runs keep their colours throughout. */
export function figuresOf(runs: readonly RunData[]): FigureData[] {
  const figures = [
    ...explorationFigures(runs),
    ...accuracyFigures(runs),
    ...unlearningFigures(runs),
    ...updateFigures(runs),
    ...taskFigures(runs),
    ...timeFigures(runs),
  ];
  const shown = figures.filter((figure) => figure.series.some(hasPoints));
  const ids = distinctIds(shown.map(({ id }) => id));
  return shown.map((figure, i) => ({ ...figure, id: ids[i] as string, ...(runs.length > 1 ? { legend: true } : {}) }));
}

/** Sets and features may have names that differ in other characters than those of an id. */
function distinctIds(ids: readonly string[]): string[] {
  const taken = new Set<string>();
  return ids.map((id) => {
    let free = id;
    for (let i = 2; taken.has(free); i += 1) free = `${id}-${i}`;
    taken.add(free);
    return free;
  });
}

const EXPLORATION = 'Exploration';
const UNLEARNING = 'Forgetting';
const UPDATE = 'The update';
const TASK = 'The task';
const TIME = 'Time';

function explorationFigures(runs: readonly RunData[]): FigureData[] {
  return [
    {
      id: 'entropy',
      title: 'Entropy of what is sampled, by stage',
      paper: 'Fig. 2 and 6a',
      section: EXPLORATION,
      caption:
        'Mean over response tokens of the entropy each was drawn from. Stage 1 is the policy, stage 2 the policy after ' +
        'it has forgotten what stage 1 said.',
      x: ITERATION,
      y: { label: 'entropy (nats per token)' },
      series: byStage(runs, (stage) => `rollout/stage${stage}/entropy`),
      smooth: true,
      references: alphaReferences(runs),
    },
    {
      id: 'reward',
      title: 'Reward by stage',
      paper: 'Fig. 6b',
      section: EXPLORATION,
      caption: 'Mean reward of the responses of a stage, on the training prompts of the iteration.',
      x: ITERATION,
      y: { label: 'mean reward' },
      series: byStage(runs, (stage) => `rollout/stage${stage}/reward`),
      smooth: true,
    },
    {
      id: 'length',
      title: 'Length of the responses, by stage',
      paper: 'Fig. 6c and 8b',
      section: EXPLORATION,
      caption: 'Mean number of tokens of a response, the stop token included.',
      x: ITERATION,
      y: { label: 'length (tokens)' },
      series: byStage(runs, (stage) => `rollout/stage${stage}/response_length`),
      smooth: true,
    },
    {
      id: 'no-signal',
      title: 'Prompts that teach nothing',
      section: EXPLORATION,
      caption: 'Share of the groups whose responses all have the same reward: their advantages are 0.',
      x: ITERATION,
      y: { label: 'share of groups', format: 'percent', min: 0 },
      series: perRun(runs, 'reward/frac_zero_std'),
      smooth: true,
    },
  ];
}

/** alpha of Eq. 4, where all runs that unlearn have the same, and it is near enough to be seen beside the entropies. */
function alphaReferences(runs: readonly RunData[]): FigureData['references'] {
  const alphas = new Set(
    runs.filter(({ config }) => config.unlearn?.enabled === true).map(({ config }) => config.unlearn?.alpha),
  );
  const [alpha] = alphas;
  if (alphas.size !== 1 || typeof alpha !== 'number') return [];
  const most = Math.max(0, ...byStage(runs, (s) => `rollout/stage${s}/entropy`).flatMap(yValues));
  return alpha > 0 && alpha <= 1.5 * most ? [{ label: `gate: alpha = ${alpha}`, value: alpha }] : [];
}

function unlearningFigures(runs: readonly RunData[]): FigureData[] {
  return [
    {
      id: 'forgetting',
      title: 'Forgetting: log-probability of what stage 1 said',
      section: UNLEARNING,
      caption:
        'Mean change of the log-probability of the stage-1 tokens that the step acted on, after it minus before. Below 0: ' +
        'forgotten.',
      x: ITERATION,
      y: { label: 'change (nats per token)' },
      series: perRun(runs, 'unlearn/stage1_logp_delta'),
      smooth: true,
      references: [{ label: '', value: 0 }],
    },
    {
      id: 'gate',
      title: 'The gate: tokens that are forgotten',
      section: UNLEARNING,
      caption:
        'Solid: stage-1 tokens whose gate is open (Eq. 4). Dashed: of these, tokens whose probability is clipped (Eq. 8) ' +
        'and which therefore have no gradient.',
      x: ITERATION,
      y: { label: 'share of tokens', format: 'percent', min: 0 },
      series: runs
        .flatMap((run, color): FigureSeries[] => [
          { name: label(runs, run, 'open'), color, points: metric(run, 'unlearn/open_frac') },
          { name: label(runs, run, 'clipped'), color, dash: 'dashed', points: metric(run, 'unlearn/clamped_frac') },
        ])
        .filter(hasPoints),
      smooth: true,
    },
    {
      id: 'unlearning-step',
      title: 'Size of the unlearning step',
      section: UNLEARNING,
      caption: 'Norm of the step from theta to theta\u2032, over the norm of theta.',
      x: ITERATION,
      y: { label: 'relative step' },
      series: perRun(runs, 'unlearn/relative_step'),
      smooth: true,
    },
  ];
}

function updateFigures(runs: readonly RunData[]): FigureData[] {
  return [
    {
      id: 'clip-fraction',
      title: 'Clipped tokens, by stage',
      section: UPDATE,
      caption:
        'Share of the tokens of a stage whose importance ratio is clipped in Eq. 2: they do not move the policy.',
      x: ITERATION,
      y: { label: 'share of tokens', format: 'percent', min: 0 },
      series: byStage(runs, (stage) => `actor/clip_frac/stage${stage}`),
      smooth: true,
    },
    {
      id: 'ratio',
      title: 'Importance ratio, by stage',
      section: UPDATE,
      caption:
        'Mean of r of Eq. 3. With objective.ratio = "behavior" its denominator is the model that drew the token: theta in ' +
        'stage 1, theta\u2032 in stage 2.',
      x: ITERATION,
      y: { label: 'mean ratio' },
      series: byStage(runs, (stage) => `actor/ratio/stage${stage}/mean`),
      smooth: true,
      references: [{ label: '', value: 1 }],
    },
    {
      id: 'ratio-max',
      title: 'Largest importance ratio, by stage',
      section: UPDATE,
      caption: 'The largest r of an iteration, on a logarithmic axis.',
      x: ITERATION,
      y: { label: 'largest ratio', scale: 'log' },
      series: byStage(runs, (stage) => `actor/ratio/stage${stage}/max`).map((one) => ({
        ...one,
        points: one.points.filter(([, y]) => y > 0),
      })),
      smooth: true,
    },
    {
      id: 'kl',
      title: 'Distance from the reference policy',
      section: UPDATE,
      caption: 'Mean k3 estimate of the KL divergence over tokens.',
      x: ITERATION,
      y: { label: 'KL (nats per token)', min: 0 },
      series: perRun(runs, 'actor/kl'),
      smooth: true,
    },
    {
      id: 'gradient-norm',
      title: 'Gradient norm',
      section: UPDATE,
      caption: 'Global L2 norm before clipping, mean over the updates of an iteration.',
      x: ITERATION,
      y: { label: 'norm', min: 0 },
      series: perRun(runs, 'actor/grad_norm'),
      smooth: true,
    },
  ];
}

const MAX_FEATURES = 32;

/** What a task tells of its responses: `task/<feature>/stage<s>` and the like. */
function taskFigures(runs: readonly RunData[]): FigureData[] {
  const names = new Set(
    runs.flatMap(({ metrics }) =>
      metrics.slice(-1).flatMap(({ values }) => Object.keys(values).filter((n) => n.startsWith('task/'))),
    ),
  );
  const features = new Map<string, string[]>();
  for (const name of names) {
    const feature = name.split('/')[1] ?? '';
    features.set(feature, [...(features.get(feature) ?? []), name]);
  }
  return [...features].slice(0, MAX_FEATURES).map(([feature, all]): FigureData => {
    const staged = all.some((name) => /\/stage[12]\b/.test(name));
    return {
      id: `task-${slug(feature)}`,
      title: `Feature \u201c${feature}\u201d of the responses`,
      section: TASK,
      caption: `Mean over the responses of the iteration of what the task calls \u201c${feature}\u201d.`,
      x: ITERATION,
      y: { label: feature },
      series: staged
        ? byStage(runs, (stage) => all.find((name) => name.includes(`/stage${stage}`)) ?? '')
        : perRun(runs, all[0] as string),
      smooth: true,
    };
  });
}

const PHASES = [
  ['stage1', 'stage 1'],
  ['unlearn', 'unlearning'],
  ['stage2', 'stage 2'],
  ['reward', 'reward'],
  ['reference', 'reference'],
  ['update', 'update'],
] as const;

function timeFigures(runs: readonly RunData[]): FigureData[] {
  const means = runs.map((run) => {
    const rows = run.metrics.filter(({ iteration }) => iteration > 0);
    const mean = (name: string): number =>
      rows.length === 0 ? 0 : rows.reduce((sum, { values }) => sum + (values[name] ?? 0), 0) / rows.length;
    const phases = PHASES.map(([phase]) => mean(`timing_s/${phase}`));
    const rest = mean('timing_s/iteration') - phases.reduce((sum, s) => sum + s, 0);
    return [...phases, Math.max(0, rest)];
  });
  const names = [...PHASES.map(([, name]) => name), 'other'];
  return [
    {
      id: 'time-by-phase',
      title: 'Time of an iteration, by phase',
      paper: 'Fig. 8a',
      section: TIME,
      caption: 'Mean over the iterations, without evaluation and saving.',
      kind: 'bars',
      x: { label: 'run', categories: runs.map(({ name }) => name) },
      y: { label: 'seconds per iteration' },
      series: names
        .map(
          (name, i): FigureSeries => ({
            name,
            color: -2 - i,
            points: means.map((phases, run) => [run, rounded(phases[i] as number)]),
          }),
        )
        .filter(({ points }) => points.some(([, seconds]) => seconds > 0)),
    },
    {
      id: 'time',
      title: 'Time of an iteration',
      section: TIME,
      caption: 'All phases, without evaluation and saving.',
      x: ITERATION,
      y: { label: 'seconds', min: 0 },
      series: perRun(runs, 'timing_s/iteration'),
      smooth: true,
    },
  ];
}
