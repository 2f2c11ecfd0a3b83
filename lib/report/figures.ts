/** The figures of a report: from what runs measured to what is drawn. Pure. */
import type { Estimate } from '../eval/statistics.js';
import { type FigureAxis, type FigureData, type FigureSeries, rounded, thinned } from './figure.js';
import type { RunData } from './read-run.js';

const ITERATION: FigureAxis = { label: 'iteration', format: 'integer' };

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
  return figures
    .filter((figure) => figure.series.some(hasPoints))
    .map((figure) => (runs.length > 1 ? { ...figure, legend: true } : figure));
}

const EXPLORATION = 'Exploration';
const ACCURACY = 'Accuracy';
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

/** One figure of accuracy a set, pass@k by k, pass@k over training, distinct solutions. */
function accuracyFigures(runs: readonly RunData[]): FigureData[] {
  const sets = evaluatedSets(runs);
  return sets.flatMap((set) => [
    accuracy(runs, set),
    passAtK(runs, set),
    largestPass(runs, set),
    {
      id: `distinct-${slug(set)}`,
      title: `Distinct correct solutions on ${setTitle(set)}`,
      section: ACCURACY,
      caption:
        'Different correct solutions among the samples of a problem, mean over the problems solved at least once.',
      x: ITERATION,
      y: { label: 'distinct solutions per solved problem' },
      series: perRun(runs, `eval/${set}/distinct`),
    },
  ]);
}

/** Names of all sets that any run was evaluated on: test first, then the others as they come. */
export function evaluatedSets(runs: readonly RunData[]): string[] {
  const names = new Set<string>();
  for (const { metrics, evaluations } of runs) {
    for (const { values } of metrics) {
      for (const name of Object.keys(values)) {
        const set = /^eval\/(.+)\/(?:greedy|avg@\d+)$/.exec(name)?.[1];
        if (set !== undefined) names.add(set);
      }
    }
    for (const { sets } of evaluations) for (const set of Object.keys(sets)) names.add(set);
  }
  return [...names].sort((a, b) => Number(b === 'test') - Number(a === 'test'));
}

/** What a set is called in a sentence. */
export function setTitle(set: string): string {
  return set === 'test' ? 'the test set' : set === 'ood' ? 'the out-of-distribution set' : set;
}

function accuracy(runs: readonly RunData[], set: string): FigureData {
  const greedy = runs.some(({ metrics }) => metrics.some(({ values }) => values[`eval/${set}/greedy`] !== undefined));
  const series = runs.map((run, color): FigureSeries => {
    const points: [number, number][] = [];
    const intervals: (readonly [number, number] | null)[] = [];
    for (const { iteration, values } of run.metrics) {
      const estimate = estimateAt(run, iteration, set, greedy);
      const value = estimate?.value ?? valueAt(values, set, greedy);
      if (value === undefined) continue;
      points.push([iteration, rounded(value)]);
      intervals.push(intervalOf(estimate));
    }
    return withIntervals({ name: run.name, color, points, dots: true }, intervals);
  });
  return {
    id: `accuracy-${slug(set)}`,
    title: `Accuracy on ${setTitle(set)}`,
    paper: set === 'test' ? 'Fig. 2, Tables 1-3' : 'Fig. 2 and 7a, Tables 1-3',
    section: ACCURACY,
    caption: greedy
      ? 'Share of the problems solved by greedy decoding, with 95 % intervals over the problems.'
      : 'Mean accuracy of a sample, with 95 % intervals over the problems.',
    x: ITERATION,
    y: { label: greedy ? 'greedy accuracy' : 'accuracy of a sample', format: 'percent' },
    series,
  };
}

function valueAt(values: Readonly<Record<string, number>>, set: string, greedy: boolean): number | undefined {
  if (greedy) return values[`eval/${set}/greedy`];
  const name = Object.keys(values).find((key) => key.startsWith(`eval/${set}/avg@`));
  return name === undefined ? undefined : values[name];
}

function estimateAt(run: RunData, iteration: number, set: string, greedy: boolean): Estimate | null {
  const summary = run.evaluations.find((evaluation) => evaluation.iteration === iteration)?.sets[set];
  return (greedy ? summary?.greedy : summary?.avgAtK) ?? null;
}

const intervalOf = (estimate: Estimate | null | undefined): readonly [number, number] | null =>
  estimate ? [rounded(estimate.interval[0]), rounded(estimate.interval[1])] : null;

function withIntervals(series: FigureSeries, intervals: (readonly [number, number] | null)[]): FigureSeries {
  return intervals.some((interval) => interval !== null) ? { ...series, intervals } : series;
}

/** One point of pass@k. */
interface PassPoint {
  k: number;
  value: number;
  interval: readonly [number, number] | null;
}

/** pass@k of a set at an iteration, by k. */
export function passPoints(run: RunData, iteration: number, set: string): PassPoint[] {
  const values = run.metrics.find((row) => row.iteration === iteration)?.values ?? {};
  const estimates = run.evaluations.find((evaluation) => evaluation.iteration === iteration)?.sets[set]?.passAtK ?? {};
  const ks = new Set(Object.keys(estimates).map(Number));
  for (const name of Object.keys(values)) {
    if (name.startsWith(`eval/${set}/pass@`)) ks.add(Number(name.slice(`eval/${set}/pass@`.length)));
  }
  return [...ks]
    .filter((k) => Number.isInteger(k) && k > 0)
    .sort((a, b) => a - b)
    .flatMap((k) => {
      const value = estimates[k]?.value ?? values[`eval/${set}/pass@${k}`];
      return value === undefined ? [] : [{ k, value, interval: intervalOf(estimates[k]) }];
    });
}

/** Iterations with samples of a set. */
function sampledIterations(run: RunData, set: string): number[] {
  const all = new Set([
    ...run.metrics
      .filter(({ values }) => Object.keys(values).some((name) => name.startsWith(`eval/${set}/pass@`)))
      .map((row) => row.iteration),
    ...run.evaluations
      .filter(({ sets }) => Object.keys(sets[set]?.passAtK ?? {}).length > 0)
      .map((one) => one.iteration),
  ]);
  return [...all].sort((a, b) => a - b);
}

function passAtK(runs: readonly RunData[], set: string): FigureData {
  const curve = (run: RunData, iteration: number, color: number, before: boolean): FigureSeries => {
    const points = passPoints(run, iteration, set);
    return withIntervals(
      {
        name: before ? 'before training' : run.name,
        color,
        dash: before ? 'dotted' : 'solid',
        points: points.map(({ k, value }) => [k, rounded(value)]),
        dots: true,
      },
      before ? [] : points.map(({ interval }) => interval),
    );
  };
  const last = runs.flatMap((run, color) => {
    const at = sampledIterations(run, set).at(-1);
    return at === undefined ? [] : [curve(run, at, color, false)];
  });
  // Runs that begin at the same policy have the same curve: it is drawn once.
  const first = runs.find((run) => {
    const iterations = sampledIterations(run, set);
    return iterations[0] === 0 && iterations.length > 1;
  });
  return {
    id: `pass-at-k-${slug(set)}`,
    title: `pass@k on ${setTitle(set)}`,
    paper: 'Fig. 7b',
    section: ACCURACY,
    caption:
      'Share of the problems that one of k samples solves, unbiased, with 95 % intervals over the problems, at the last ' +
      `evaluation${first === undefined ? '' : `; dotted: before training${runs.length > 1 ? ` (${first.name})` : ''}`}.`,
    x: { label: 'k (samples)', scale: 'log', format: 'integer' },
    y: { label: 'pass@k', format: 'percent' },
    series: first === undefined ? last : [...last, curve(first, 0, -1, true)],
  };
}

function largestPass(runs: readonly RunData[], set: string): FigureData {
  const largest = Math.max(
    0,
    ...runs.flatMap((run) =>
      sampledIterations(run, set)
        .slice(-1)
        .flatMap((at) => passPoints(run, at, set).map(({ k }) => k)),
    ),
  );
  const series = runs.map((run, color): FigureSeries => {
    const points: [number, number][] = [];
    const intervals: (readonly [number, number] | null)[] = [];
    for (const iteration of sampledIterations(run, set)) {
      const point = passPoints(run, iteration, set).find(({ k }) => k === largest);
      if (point === undefined) continue;
      points.push([iteration, rounded(point.value)]);
      intervals.push(point.interval);
    }
    return withIntervals({ name: run.name, color, points, dots: true }, intervals);
  });
  return {
    id: `pass-at-${largest}-${slug(set)}`,
    title: `pass@${largest} on ${setTitle(set)} during training`,
    section: ACCURACY,
    caption: `Share of the problems that one of ${largest} samples solves. Where it falls while pass@1 rises, the policy has only become surer of what it could do before.`,
    x: ITERATION,
    y: { label: `pass@${largest}`, format: 'percent' },
    series: largest > 1 ? series : [],
  };
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
        'Mean of r of Eq. 3. Its denominator is the model that drew the token: theta in stage 1, theta\u2032 in stage 2.',
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
  return [...features].map(([feature, all]): FigureData => {
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

/** A metric of a run, thinned out for drawing. */
function metric(run: RunData, name: string): [number, number][] {
  return thinned(
    run.metrics.flatMap(({ iteration, values }): [number, number][] => {
      const value = values[name];
      return value === undefined ? [] : [[iteration, value]];
    }),
  );
}

const perRun = (runs: readonly RunData[], name: string): FigureSeries[] =>
  runs.map((run, color) => ({ name: run.name, color, points: metric(run, name) })).filter(hasPoints);

/** Stage 1 solid, stage 2 dashed; a run without a second stage has no need to name its first. */
function byStage(runs: readonly RunData[], name: (stage: 1 | 2) => string): FigureSeries[] {
  return runs.flatMap((run, color) => {
    const [one, two] = [metric(run, name(1)), metric(run, name(2))];
    const alone = two.length === 0;
    const series: FigureSeries[] = [
      { name: alone ? run.name : label(runs, run, 'stage 1'), color, points: one },
      { name: label(runs, run, 'stage 2'), color, dash: 'dashed', points: two },
    ];
    return series.filter(hasPoints);
  });
}

/** Of a single run what it is, of several also whose. */
const label = (runs: readonly RunData[], run: RunData, what: string): string =>
  runs.length === 1 ? what : `${run.name}, ${what}`;

const hasPoints = ({ points }: FigureSeries): boolean => points.length > 0;
const yValues = ({ points }: FigureSeries): number[] => points.map(([, y]) => y);

/** For ids: letters, digits and `-`. */
export function slug(name: string): string {
  return (
    name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-|-$/g, '') || 'x'
  );
}
