/** The parts of a report that are text and tables, as HTML. Figures are drawn in the page from data. */
import { basename } from 'node:path';
import { methodName } from '../train/method-name.js';
import { formatSeconds } from '../train/progress.js';
import { evaluatedSets, passPoints } from './accuracy-figures.js';
import { formatNumber } from './client/look.js';
import { html, type Markup } from './markup.js';
import type { RunData } from './read-run.js';
import { evaluatedRows } from './series.js';
import {
  chosenPrompts,
  type DistinctMeans,
  distinctMeans,
  newestSamples,
  type PromptSamples,
  type StageSamples,
} from './solutions.js';

/** Prompts of a run that are shown. */
const PROMPTS = 6;
/** Longer responses, in characters, are folded. */
const LONG_TEXT = 300;

/** Heading of a report of these runs. */
export function defaultTitle(runs: readonly RunData[]): string {
  const tasks = [...new Set(runs.map(({ config }) => String(config.task?.name ?? 'a task')))];
  const names = runs.length === 1 ? [methodOf(runs[0] as RunData)] : runs.map(({ name }) => name);
  const shown = names.length > 4 ? `${names.length} runs` : names.join(', ');
  return `${shown} on ${tasks.length > 2 ? `${tasks.length} tasks` : tasks.join(' and ')}`;
}

/** As the run's own first line calls it. */
export const methodOf = ({ config }: Pick<RunData, 'config'>): string => methodName(config);

/** What was trained, a line a run; what all have in common stands once above them. */
export function runsPart(runs: readonly RunData[]): Markup {
  const described = runs.map(describe);
  const common = runs.length < 2 ? [] : (described[0] ?? []).filter((word) => described.every((d) => d.includes(word)));
  return html`${common.length > 0 && html`<p class="common">${common.join(' \u00b7 ')}</p>`}<ul class="runs">${runs.map(
    (run, i) =>
      html`<li><button type="button" class="chip" data-run="${i}" aria-pressed="true"><i class="dot"></i>${run.name}</button>
<span>${(described[i] ?? []).filter((word) => !common.includes(word)).join(' \u00b7 ')}</span></li>`,
  )}</ul>`;
}

function describe(run: RunData): string[] {
  const { model, task, rollout, optimizer, run: own } = run.config;
  const done = run.metrics.at(-1)?.iteration ?? 0;
  const total = run.summary?.iterations ?? own?.iterations;
  const seconds =
    run.summary?.seconds ?? run.metrics.reduce((sum, { values }) => sum + (values['timing_s/iteration'] ?? 0), 0);
  return [
    methodOf(run),
    `model ${basename(String(model?.path ?? '?'))}, task ${String(task?.name ?? '?')}`,
    `${rollout?.promptsPerIteration ?? '?'} prompts \u00d7 ${rollout?.groupSize ?? '?'} samples`,
    `lr ${typeof optimizer?.lr === 'number' ? formatNumber(optimizer.lr) : '?'}`,
    `seed ${own?.seed ?? '?'}`,
    run.summary === null ? `iteration ${done} of ${total ?? '?'}, not finished` : `${done} iterations`,
    formatSeconds(seconds),
  ];
}

interface NumberRow {
  name: string;
  cells: (Markup | null)[];
}

interface NumberGroup {
  title: string;
  rows: NumberRow[];
}

/** The numbers that a reader asks for first, before and after training. */
export function numbersPart(runs: readonly RunData[]): Markup {
  const groups = [
    ...evaluatedSets(runs).map((set): NumberGroup => ({ title: setHeading(set), rows: setRows(runs, set) })),
    { title: 'Training', rows: trainingRows(runs) },
  ]
    .map(({ title, rows }) => ({ title, rows: rows.filter(({ cells }) => cells.some((cell) => cell !== null)) }))
    .filter(({ rows }) => rows.length > 0);
  if (groups.length === 0) return html`<p class="note">No iteration is finished yet.</p>`;
  const table = (shown: readonly NumberGroup[], head: Markup | null): Markup => html`<table class="numbers">${head}
${shown.map(
  ({
    title,
    rows,
  }) => html`<tbody><tr class="group"><th colspan="${runs.length + 1}" scope="rowgroup">${title}</th></tr>
${rows.map(({ name, cells }) => html`<tr><th scope="row">${name}</th>${cells.map((cell) => html`<td>${cell ?? '\u2013'}</td>`)}</tr>`)}</tbody>`,
)}
</table>`;
  const head = html`<thead><tr><th></th>${runs.map(({ name }, i) => html`<th scope="col"><i class="dot" data-run="${i}"></i>${name}</th>`)}</tr></thead>`;
  // of one run the groups stand beside each other, of several the runs do
  const tables =
    runs.length === 1
      ? html`<div class="groups">${groups.map((group) => table([group], null))}</div>`
      : html`<div class="scroll">${table(groups, head)}</div>`;
  return html`${tables}
<p class="note">Before \u2192 after training, \u00b1 standard error over the problems. Of training: the first \u2192 the last tenth of the iterations.</p>`;
}

const setHeading = (set: string): string => (set === 'test' ? 'Test set' : set === 'ood' ? 'Out of distribution' : set);

function setRows(runs: readonly RunData[], set: string): NumberRow[] {
  const largest = Math.max(
    1,
    ...runs.flatMap((run) => {
      const last = evaluatedRows(run).findLast(({ values }) =>
        Object.keys(values).some((name) => name.startsWith(`eval/${set}/pass@`)),
      );
      return last === undefined ? [] : passPoints(run, last.iteration, set).map(({ k }) => k);
    }),
  );
  const row = (name: string, metric: string, percent: boolean, digits: number): NumberRow => ({
    name,
    cells: runs.map((run) => beforeAfter(run, `eval/${set}/${metric}`, percent, digits, set)),
  });
  return [
    row('greedy (%)', 'greedy', true, 1),
    row('pass@1 (%)', 'pass@1', true, 1),
    ...(largest > 1 ? [row(`pass@${largest} (%)`, `pass@${largest}`, true, 1)] : []),
    row('distinct correct solutions', 'distinct', false, 2),
    row('entropy (nats)', 'entropy', false, 3),
  ];
}

function beforeAfter(run: RunData, name: string, percent: boolean, digits: number, set: string): Markup | null {
  const rows = evaluatedRows(run).filter(({ values }) => values[name] !== undefined);
  const last = rows.at(-1);
  if (last === undefined) return null;
  const text = (value: number | undefined): string => ((value ?? 0) * (percent ? 100 : 1)).toFixed(digits);
  const error = standardError(run, last.iteration, name, set);
  const before =
    rows[0] !== last && rows[0]?.iteration === 0
      ? html`<span class="was">${text(rows[0].values[name])}</span> \u2192 `
      : null;
  return html`${before}<b>${text(last.values[name])}</b>${error !== null && html` <span class="was error">\u00b1 ${text(error)}</span>`}`;
}

function standardError(run: RunData, iteration: number, name: string, set: string): number | null {
  const summary = run.evaluations.find((evaluation) => evaluation.iteration === iteration)?.sets[set];
  if (summary === undefined) return null;
  if (name.endsWith('/greedy')) return summary.greedy?.standardError ?? null;
  const k = /\/pass@(\d+)$/.exec(name)?.[1];
  return k === undefined ? null : (summary.passAtK[Number(k)]?.standardError ?? null);
}

function trainingRows(runs: readonly RunData[]): NumberRow[] {
  const row = (name: string, metric: string, digits: number): NumberRow => ({
    name,
    cells: runs.map((run) => {
      const values = run.metrics.flatMap((one) => one.values[metric] ?? []);
      if (values.length === 0) return null;
      const part = Math.max(1, Math.round(values.length / 10));
      const mean = (list: number[]): string => (list.reduce((sum, v) => sum + v, 0) / list.length).toFixed(digits);
      return html`<span class="was">${mean(values.slice(0, part))}</span> \u2192 <b>${mean(values.slice(-part))}</b>`;
    }),
  });
  return [
    row('entropy, stage 1 (nats)', 'rollout/stage1/entropy', 3),
    row('entropy, stage 2 (nats)', 'rollout/stage2/entropy', 3),
    row('reward', 'reward/mean', 3),
  ];
}

/** Of several runs the keys in which their configurations differ; of all of them every key, folded. */
export function configPart(runs: readonly RunData[]): Markup {
  const all = [...new Set(runs.flatMap(({ config }) => flatten(config).map(([key]) => key)))];
  const value = ({ config }: RunData, key: string): string =>
    flatten(config).find(([name]) => name === key)?.[1] ?? '\u2013';
  const different = all.filter((key) => new Set(runs.map((run) => value(run, key))).size > 1);
  const table = (keys: readonly string[]): Markup => html`<div class="scroll"><table class="config">
<thead><tr><th></th>${runs.map(({ name }, i) => html`<th><i class="dot" data-run="${i}"></i>${name}</th>`)}</tr></thead>
<tbody>${keys.map((key) => html`<tr><th>${key}</th>${runs.map((run) => html`<td>${value(run, key)}</td>`)}</tr>`)}</tbody></table></div>`;
  return html`${
    runs.length > 1 &&
    (different.length === 0 ? html`<p class="note">The configurations are the same.</p>` : table(different))
  }
<details><summary>${runs.length > 1 ? 'Every key' : 'Configuration'}</summary>${table(all)}</details>`;
}

function flatten(config: RunData['config']): [string, string][] {
  return Object.entries(config).flatMap(([section, keys]) =>
    Object.entries(keys).map(([key, value]): [string, string] => [
      `${section}.${key}`,
      typeof value === 'string' ? value || '""' : typeof value === 'bigint' ? `${value}` : JSON.stringify(value),
    ]),
  );
}

/** A few prompts of the newest iteration with what the stages said to them. */
export function samplesPart(runs: readonly RunData[]): Markup {
  const parts = runs.map((run, i) => ({ run, i, samples: newestSamples(run) }));
  if (parts.every(({ samples }) => samples === null)) {
    return html`<p class="note">The runs keep no responses (run.completionsEvery = 0).</p>`;
  }
  const unfolded = Math.max(
    0,
    parts.findIndex(({ samples }) => samples?.prompts.some(({ stages }) => stages.length > 1)),
  );
  return html`${parts.map(({ run, i, samples }) => {
    if (samples === null) return null;
    const means = distinctMeans(samples);
    const body = html`<p class="note">Iteration ${samples.iteration}. Distinct correct ${run.config.task?.name === 'countdown' ? 'solutions' : 'responses'} a prompt, mean of ${samples.prompts.length} prompts: ${distinctSentence(means)}.
Below: the first prompts with right and wrong responses.</p>
${chosenPrompts(samples, PROMPTS).map(promptPart)}`;
    if (runs.length === 1) return body;
    return html`<details class="run-samples"${i === unfolded && html` open`}><summary><i class="dot" data-run="${i}"></i>${run.name}</summary>${body}</details>`;
  })}`;
}

function distinctSentence({ stages, together, newInStage2 }: DistinctMeans): string {
  if (newInStage2 === null) return together.toFixed(2);
  const each = stages.map(({ stage, distinct }) => `${distinct.toFixed(2)} in stage ${stage}`).join(', ');
  return `${each}, ${together.toFixed(2)} together; ${newInStage2.toFixed(2)} were found by stage 2 alone`;
}

function promptPart(prompt: PromptSamples): Markup {
  return html`<article class="prompt"><pre class="question">${prompt.prompt}</pre>
<div class="stages">${prompt.stages.map((stage) => stagePart(stage, prompt))}</div></article>`;
}

/** How a long response begins and, where its answer is, ends. */
function outline(text: string): string {
  const words = text.trim().replace(/\s+/g, ' ');
  return `${words.slice(0, LONG_TEXT / 2)} \u2026 ${words.slice(-LONG_TEXT / 3)}`;
}

function stagePart(stage: StageSamples, { stages, distinct }: PromptSamples): Markup {
  const earlier = new Set(
    stage.stage === 1 ? [] : stages.flatMap((s) => (s.stage === 1 ? s.responses.map(({ solution }) => solution) : [])),
  );
  const seen = new Set<string>();
  return html`<div class="stage"><h4>${stages.length > 1 ? `Stage ${stage.stage}` : 'Responses'}
<span>${stage.correct} of ${stage.samples} right, ${stage.distinct} distinct${stage.stage === 2 ? ` (${distinct} together)` : ''}</span></h4>
<ul>${stage.responses.map((response) => {
    const right = response.solution !== null;
    const isNew =
      right && stage.stage === 2 && !earlier.has(response.solution) && !seen.has(response.solution as string);
    if (right) seen.add(response.solution as string);
    const mark = response.reward === null ? '?' : right ? '\u2713' : '\u2717';
    const said = response.reward === null ? 'left out' : right ? 'right' : 'wrong';
    const text =
      response.text.length > LONG_TEXT
        ? html`<details><summary><code>${outline(response.text)}</code></summary><code>${response.text}</code></details>`
        : html`<code>${response.text === '' ? '(empty)' : response.text}</code>`;
    return html`<li class="${right ? 'right' : 'wrong'}"><span class="mark" title="${said}, reward ${response.reward === null ? 'none' : formatNumber(response.reward)}">${mark}</span>
${text}<span class="tags">${response.times > 1 && html`<span>\u00d7${response.times}</span>`}${isNew && html`<span class="new">new</span>`}${response.truncated && html`<span>cut off</span>`}</span></li>`;
  })}</ul></div>`;
}
