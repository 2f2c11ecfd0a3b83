/** `eepo report`: what is read of a run, what is drawn of it, and a page that shows it without trusting a word of it. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Script } from 'node:vm';
import { passPoints } from '../lib/report/accuracy-figures.js';
import { shortened } from '../lib/report/client/legend.js';
import { formatNumber, movingAverage, textWidth } from '../lib/report/client/look.js';
import { thinned } from '../lib/report/figure.js';
import { figuresOf } from '../lib/report/figures.js';
import { html } from '../lib/report/markup.js';
import { jsonIsland, reportData, reportPage } from '../lib/report/page.js';
import { type RunData, readRun } from '../lib/report/read-run.js';
import { figureSvg, svgToPng } from '../lib/report/render.js';
import { distinctMeans, newestSamples } from '../lib/report/solutions.js';
import { readRuns, shortestNames, writeReport } from '../lib/report/write.js';
import { ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';
import { completionsOf, HOSTILE, line, makeRun, metricsOf } from './support/run-folder.js';

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');

/** What stands between the tags of a page's script elements, in their order. */
const scriptsOf = (page: string): string[] =>
  [...page.matchAll(/<script(?: [^>]*)?>([\s\S]*?)<\/script>/g)].map(([, text]) => text as string);

/** The page without what its scripts hold. */
const withoutScripts = (page: string): string => page.replace(/(<script(?: [^>]*)?>)[\s\S]*?(<\/script>)/g, '$1$2');

/** A run that was given hostile text wherever a run holds text. */
function hostileRun(folder: string): string {
  makeRun(folder, { sets: ['test'] });
  appendFileSync(
    join(folder, 'config.toml'),
    `\n[reward]\nmodule = ${JSON.stringify(HOSTILE)}\n[constructor]\n"__proto__" = 1\n`,
  );
  const metrics = { ...metricsOf(13), [`eval/${HOSTILE}/greedy`]: 0.5, [`eval/${HOSTILE}/pass@4`]: 0.6 };
  appendFileSync(
    join(folder, 'metrics.jsonl'),
    line({ iteration: 13, ...metrics, [`task/${HOSTILE}/stage1`]: 1 }).replace('{', '{"__proto__":{"polluted":1},'),
  );
  writeFileSync(
    join(folder, 'completions.jsonl'),
    completionsOf(13)
      .map((row) => line({ ...row, problem: HOSTILE, prompt: [{ role: HOSTILE, content: HOSTILE }] }))
      .join('') + line({ ...completionsOf(13)[0], problem: HOSTILE, response: HOSTILE.repeat(40) }),
  );
  return folder;
}

describe('a run that is read', () => {
  it('gives its metrics, evaluations with intervals, responses and summary', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'mine')));
    assert.equal(run.name, 'mine');
    assert.equal(run.metrics.length, 13);
    assert.equal(run.metrics[0]?.values['eval/test/greedy'], 0.5);
    assert.deepEqual(
      run.evaluations.map(({ iteration, sets }) => [iteration, Object.keys(sets)]),
      [
        [0, ['ood', 'test']],
        [12, ['ood', 'test']],
      ],
    );
    assert.equal(run.summary?.iterations, 12);
    assert.equal(run.completions.length, 8);
    assert.deepEqual(passPoints(run, 12, 'test'), [
      { k: 1, value: 0.42, interval: [0.34, 0.5] },
      { k: 8, value: 0.68, interval: [0.6, 0.76] },
    ]);
  });

  it('may be at its beginning, in the middle of a line, or gone on from a checkpoint', async (t) => {
    const folder = makeRun(join(temporaryFolder(t), 'run'), { complete: false });
    const metrics = join(folder, 'metrics.jsonl');
    appendFileSync(metrics, '{"iteration":13,"reward/me');
    assert.equal((await readRun(folder)).metrics.length, 13);
    // the same iteration again: what was written last holds
    writeFileSync(metrics, line({ iteration: 1, 'reward/mean': 0.1 }) + line({ iteration: 1, 'reward/mean': 0.2 }));
    assert.deepEqual((await readRun(folder)).metrics, [{ iteration: 1, values: { 'reward/mean': 0.2 } }]);
    for (const name of ['metrics.jsonl', 'completions.jsonl', 'evals']) rmSync(join(folder, name), { recursive: true });
    const run = await readRun(folder);
    assert.deepEqual([run.metrics, run.evaluations, run.completions, run.summary], [[], [], [], null]);
    assert.deepEqual(figuresOf([run]), []);
    assert.match(reportPage(reportData([run])), /No iteration is finished yet/);
  });

  it('leaves out what is no number, and pollutes nothing', async (t) => {
    const folder = makeRun(join(temporaryFolder(t), 'run'));
    writeFileSync(
      join(folder, 'metrics.jsonl'),
      '{"iteration":1,"a":null,"b":"7","c":1e999,"d":[1],"__proto__":{"polluted":1},"reward/mean":0.5}\n',
    );
    const run = await readRun(folder);
    assert.deepEqual(run.metrics, [{ iteration: 1, values: { 'reward/mean': 0.5 } }]);
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
  });

  const broken: [name: string, file: string, content: string, message: RegExp][] = [
    ['NaN', 'metrics.jsonl', '{"iteration":1}\n{"iteration":2,"x":NaN}\n', /metrics\.jsonl:2: not valid JSON/],
    ['no iteration', 'metrics.jsonl', '{"x":1}\n', /metrics\.jsonl:1: expected "iteration"/],
    ['a list', 'metrics.jsonl', '[1]\n', /metrics\.jsonl:1: must hold a JSON object/],
    ['steps of eepo sft', 'metrics.jsonl', '{"step":1}\n', /this is a run of `eepo sft`/],
    [
      'an endless line',
      'metrics.jsonl',
      `{"iteration":1,"x":"${'x'.repeat(17 << 20)}"}`,
      /metrics\.jsonl:1: longer than/,
    ],
    ['other responses', 'completions.jsonl', '{"iteration":1}\n', /completions\.jsonl: a line without .* remove it/],
    ['another summary', 'summary.json', '{"iterations":"many"}', /summary\.json: expected numbers/],
    [
      'another evaluation',
      'evals/iteration-000012/test/summary.json',
      '{}',
      /evals.iteration-000012.test.summary\.json/,
    ],
    ['no configuration', 'config.toml', 'run = [', /config\.toml/],
    ['a run of eepo sft', 'config.toml', '[sft]\nepochs = 1\n', /is a run of `eepo sft`/],
  ];
  for (const [name, file, content, message] of broken) {
    it(`is refused by file and line: ${name}`, async (t) => {
      const folder = makeRun(join(temporaryFolder(t), 'run'));
      writeFileSync(join(folder, file), content);
      await assert.rejects(readRun(folder), (error: Error & { code?: string }) => {
        assert.match(error.message, message);
        assert.match(String(error.code), /^ERR_|^[A-Z_]+$/);
        return true;
      });
    });
  }

  it('is refused where it has a pipe or a folder for a file, without waiting for it', async (t) => {
    const folder = makeRun(join(temporaryFolder(t), 'run'));
    rmSync(join(folder, 'metrics.jsonl'));
    execFileSync('mkfifo', [join(folder, 'metrics.jsonl')]);
    await assert.rejects(readRun(folder), /metrics\.jsonl: cannot be read: it is a pipe/);
    rmSync(join(folder, 'metrics.jsonl'));
    mkdirSync(join(folder, 'metrics.jsonl'));
    await assert.rejects(readRun(folder), /metrics\.jsonl: cannot be read: it is a folder/);
    await assert.rejects(readRun(join(folder, 'none')), /none: no such folder; give the folder of a run/);
    await assert.rejects(readRun(join(folder, 'evals')), /is no folder of a run: it has no config\.toml/);
  });
});

describe('the figures', () => {
  it('are those that the paper has, and more, of a run with two stages', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'run')));
    const figures = figuresOf([run]);
    const ids = figures.map(({ id }) => id);
    assert.deepEqual(ids.slice(0, 4), ['entropy', 'reward', 'length', 'no-signal']);
    for (const set of ['test', 'ood']) {
      for (const id of ['accuracy', 'pass-at-k', 'pass-at-8', 'distinct']) assert.ok(ids.includes(`${id}-${set}`), id);
    }
    for (const id of ['forgetting', 'gate', 'clip-fraction', 'ratio', 'ratio-max', 'kl', 'time-by-phase', 'time'])
      assert.ok(ids.includes(id), id);
    const entropy = figures[0];
    assert.deepEqual(
      entropy?.series.map(({ name, dash, points }) => [name, dash, points.length]),
      [
        ['stage 1', undefined, 12],
        ['stage 2', 'dashed', 12],
      ],
    );
    assert.deepEqual(entropy?.references, [{ label: 'gate: alpha = 0.3', value: 0.3 }]);
    const [after, before] = figures.find(({ id }) => id === 'pass-at-k-test')?.series ?? [];
    assert.deepEqual(after?.points, [
      [1, 0.42],
      [8, 0.68],
    ]);
    assert.deepEqual(after?.intervals, [
      [0.34, 0.5],
      [0.6, 0.76],
    ]);
    assert.deepEqual([before?.name, before?.points[0]], ['before training', [1, 0.3]]);
    const times = figures.find(({ id }) => id === 'time-by-phase')?.series ?? [];
    assert.deepEqual(
      times.map(({ name, points }) => [name, points[0]?.[1]]),
      [
        ['stage 1', 0.02],
        ['unlearning', 0.05],
        ['stage 2', 0.02],
        ['update', 0.1],
        ['other', 0.01],
      ],
    );
  });

  it('of several runs lie over each other, in the colours of their order', async (t) => {
    const folder = temporaryFolder(t);
    const runs = await readRuns([
      makeRun(join(folder, 'grpo'), { unlearn: false }),
      makeRun(join(folder, 'eepo')),
      makeRun(join(folder, 'short'), { iterations: 5, seed: 1 }),
    ]);
    const figures = figuresOf(runs);
    assert.deepEqual(
      figures[0]?.series.map(({ name, color }) => [name, color]),
      [
        ['grpo', 0],
        ['eepo, stage 1', 1],
        ['eepo, stage 2', 1],
        ['short, stage 1', 2],
        ['short, stage 2', 2],
      ],
    );
    assert.deepEqual(
      figures.find(({ id }) => id === 'pass-at-k-test')?.series.map(({ name }) => name),
      ['grpo', 'eepo', 'short', 'before training'],
    );
    const { parts, title } = reportData(runs);
    assert.equal(title, 'grpo, eepo, short on countdown');
    // what they have in common once, what differs with each
    assert.equal(parts.runs.match(/2 prompts × 4 samples/g)?.length, 1);
    assert.equal(parts.runs.match(/seed 0/g)?.length, 2);
    assert.match(parts.config, /unlearn\.enabled<\/th><td>false<\/td><td>true<\/td><td>true/);
  });

  it('have ids of their own, whatever sets and features are called', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'run'), { sets: ['a b', 'a-b', 'A/b'] }));
    const ids = figuresOf([run]).map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(
      ids.filter((id) => id.startsWith('accuracy')),
      ['accuracy-a-b', 'accuracy-a-b-2', 'accuracy-a-b-3'],
    );
    for (const id of ids) assert.match(id, /^[a-z0-9-]+$/);
  });

  it('thin out long runs to means, and average in windows', () => {
    const points = Array.from({ length: 4000 }, (_, i) => [i, i % 2] as const);
    const thin = thinned(points, 1500);
    assert.equal(thin.length, Math.ceil(4000 / 3));
    assert.deepEqual(thin[0], [1, 0.333333]);
    assert.deepEqual(
      movingAverage(
        [0, 3, 6, 0].map((y, x) => [x, y] as const),
        3,
      ),
      [
        [0, 1.5],
        [1, 3],
        [2, 3],
        [3, 3],
      ],
    );
    const room = { width: 237, titled: false, measure: (text: string) => 10 * text.length };
    assert.equal(shortened('learning-rate-1e-4-eepo', room), 'learning-r…1e-4-eepo');
    assert.ok(textWidth('stage 1', 12) < textWidth('grpo, stage 1', 12));
    assert.deepEqual(
      [0.12345, 12345.6, 1e-5, 0].map((value) => formatNumber(value)),
      ['0.1235', '12346', '1e-5', '0'],
    );
    assert.equal(formatNumber(0.4267, 'percent'), '42.7%');
  });
});

describe('a figure as a file', () => {
  /** Width and height that a PNG says it has. */
  const sizeOf = (png: Uint8Array): [number, number] => {
    const bytes = Buffer.from(png);
    assert.equal(bytes.subarray(0, 8).toString('latin1'), '\x89PNG\r\n\x1a\n');
    return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  };

  it('is an SVG with the same bytes each time, and a PNG of twice its size', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'run')));
    const figures = figuresOf([run]);
    for (const figure of figures) {
      const svg = figureSvg(figure);
      assert.equal(figureSvg(figure), svg);
      assert.doesNotMatch(svg, /NaN|Infinity|undefined|(?:href|src)=|url\(http/);
    }
    const svg = figureSvg(figures[0] as never, { width: 300, height: 200 });
    assert.match(svg, /^<svg width="300" height="200"/);
    assert.deepEqual(sizeOf(await svgToPng(svg)), [600, 400]);
    assert.notDeepEqual(await svgToPng(figureSvg(figures[0] as never, { width: 300, height: 200, dark: true })), svg);
    assert.deepEqual(sizeOf(await svgToPng(svg, 1)), [300, 200]);
    assert.throws(() => figureSvg(figures[0] as never, { width: 1 }), /width = 1: expected pixels, 100 to 10000/);
    await assert.rejects(svgToPng(svg, 0), /scale = 0/);
  });

  it('is well-formed whatever the names hold, and runs nothing', async (t) => {
    const run = await readRun(hostileRun(join(temporaryFolder(t), 'run')), { name: HOSTILE });
    for (const figure of figuresOf([run, { ...run, name: `${HOSTILE}2` }]).filter((_, i) => i % 3 === 0)) {
      const svg = figureSvg(figure);
      assert.doesNotMatch(svg, /<script|<img|<a |<foreignObject|onerror="/);
      // resvg reads XML strictly
      assert.ok((await svgToPng(svg, 0.2)).length > 100);
    }
  });
});

describe('the page', () => {
  it('loads nothing, and may run its own scripts alone', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'run')));
    const data = reportData([run]);
    const page = reportPage(data);
    assert.doesNotMatch(
      withoutScripts(page),
      /\b(?:src|srcset|action|background)=|url\(|@import|<link|<base|<iframe|<object/,
    );
    for (const [, href] of withoutScripts(page).matchAll(/href="([^"]*)"/g)) assert.match(href as string, /^#/);
    const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)?.[1] ?? '';
    assert.match(policy, /^default-src 'none'; script-src 'sha256-/);
    assert.doesNotMatch(policy, /connect-src|script-src[^;]*unsafe|https?:/);
    const [island, ...programs] = scriptsOf(page);
    assert.deepEqual(JSON.parse(island as string), JSON.parse(JSON.stringify(data)));
    assert.equal(programs.length, 2);
    for (const program of programs) {
      assert.ok(policy.includes(`'sha256-${createHash('sha256').update(program).digest('base64')}'`));
      // throws a SyntaxError where a module's import or export was left
      new Script(program);
    }
    assert.ok(page.length < 1_500_000, `${page.length} bytes`);
    assert.equal(reportPage(reportData([run])), page);
  });

  it('shows the words of a run as words', async (t) => {
    const run = await readRun(hostileRun(join(temporaryFolder(t), 'run')), { name: HOSTILE });
    for (const runs of [[run], [run, { ...run, name: 'other' }]]) {
      const data = reportData(runs, runs.length > 1 ? { title: HOSTILE } : {});
      const page = reportPage(data);
      assert.equal(scriptsOf(page).length, 3);
      assert.deepEqual(JSON.parse(scriptsOf(page)[0] as string), JSON.parse(JSON.stringify(data)));
      for (const text of [withoutScripts(page), ...Object.values(data.parts)]) {
        assert.doesNotMatch(text, /<img|<script>window|onerror="|\u202e/);
      }
      assert.match(data.parts.samples, /&#60;\/script&#62;/);
      assert.match(data.parts.samples, /\\u202e/);
      assert.match(data.parts.config, /reward\.module/);
    }
    assert.equal(jsonIsland('</script><!--\u2028'), '"\\u003c/script\\u003e\\u003c!--\\u2028"');
    assert.equal(
      html`<b title="${'"><i>'}">${[html`<i>x</i>`, '<', null, false]}</b>`.text,
      '<b title="&#34;&#62;&#60;i&#62;"><i>x</i>&#60;</b>',
    );
  });

  it('counts distinct correct solutions, and those that stage 2 alone has found', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'run')));
    const samples = newestSamples(run);
    assert.ok(samples);
    assert.deepEqual(distinctMeans(samples), {
      stages: [
        { stage: 1, distinct: 0.5 },
        { stage: 2, distinct: 1 },
      ],
      together: 1.5,
      newInStage2: 1,
    });
    const { samples: shown } = reportData([run]).parts;
    assert.match(shown, /Stage 1\s*<span>2 of 2 right, 1 distinct</);
    assert.match(shown, /Stage 2\s*<span>1 of 2 right, 1 distinct \(2 together\)</);
    assert.match(shown, /×2/);
    assert.equal(shown.match(/class="new">new</g)?.length, 2);
    assert.match(shown, /cut off/);
    assert.match(shown, /title="left out, reward none"/);
  });

  it('says what was before and after training, with standard errors', async (t) => {
    const run = await readRun(makeRun(join(temporaryFolder(t), 'run')));
    const { numbers } = reportData([run]).parts;
    assert.match(
      numbers,
      /greedy \(%\)<\/th><td><span class="was">50\.0<\/span> → <b>62\.0<\/b> <span class="was error">± 4\.0/,
    );
    assert.match(numbers, /distinct correct solutions<\/th><td><span class="was">4\.00<\/span> → <b>3\.88<\/b>/);
  });

  const browser = [process.env.EEPO_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find(
    (path) => path && existsSync(path),
  );
  it('draws every figure in a browser, without a word in its console', {
    skip: browser ? false : 'no Chromium (set EEPO_CHROMIUM)',
  }, async (t) => {
    const folder = temporaryFolder(t);
    const runs = await readRuns([hostileRun(join(folder, 'one')), makeRun(join(folder, 'two'), { unlearn: false })]);
    const data = reportData(runs as RunData[]);
    writeFileSync(join(folder, 'page.html'), reportPage(data));
    const { stdout, stderr } = spawnSync(
      browser as string,
      [
        ...['--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr', '--window-size=1200,16000'],
        ...[`--user-data-dir=${join(folder, 'profile')}`, '--virtual-time-budget=4000', '--dump-dom'],
        `file://${join(folder, 'page.html')}`,
      ],
      { encoding: 'utf8', timeout: 60_000, maxBuffer: 64 << 20 },
    );
    assert.doesNotMatch(stderr, /CONSOLE/);
    const drawn = withoutScripts(stdout);
    assert.equal(drawn.match(/<figure id="figure-/g)?.length, data.figures.length);
    assert.equal(drawn.match(/<svg /g)?.length, data.figures.length);
    assert.doesNotMatch(drawn, /<img|<script>window|NaN/);
  });
});

describe('eepo report', () => {
  const report = (...args: string[]) => spawnSync(process.execPath, [main, 'report', ...args], { encoding: 'utf8' });

  it('writes the page and its figures, where it is told or into the first run', async (t) => {
    const folder = temporaryFolder(t);
    const [one, two] = [
      makeRun(join(folder, 'a', 'run'), { sets: [] }),
      makeRun(join(folder, 'b', 'run'), { sets: [] }),
    ];
    const out = join(folder, 'out', 'two.html');
    const { status, stdout, stderr } = report(one, two, '--out', out, '--figures', 'svg,png', '--title', 'Two <runs>');
    assert.deepEqual([status, stderr], [0, '']);
    const page = readFileSync(out, 'utf8');
    assert.match(page, /<title>Two &#60;runs&#62;<\/title>/);
    assert.match(page, /a\/run/);
    const figures = readdirSync(join(folder, 'out', 'figures'));
    assert.equal(stdout, `report: ${out}\nfigures: ${figures.length} files beside it, in figures/\n`);
    const ids = figuresOf(await readRuns([one, two])).map(({ id }) => id);
    assert.deepEqual(figures.sort(), ids.flatMap((id) => [`${id}.png`, `${id}.svg`]).sort());
    assert.deepEqual(await writeReport([one]), { page: join(one, 'report.html'), figures: [] });
    assert.match(readFileSync(join(one, 'report.html'), 'utf8'), /EEPO on countdown/);
  });

  it('tells runs of the same name apart', () => {
    assert.deepEqual(shortestNames(['/x/a/run', '/x/b/run']), ['a/run', 'b/run']);
    assert.deepEqual(shortestNames(['/x/run', '/x/run']), ['x/run', 'x/run (2)']);
    assert.deepEqual(shortestNames(['/x/one', '/y/two']), ['one', 'two']);
  });

  it('says in one line what is wrong', async (t) => {
    const folder = temporaryFolder(t);
    const run = makeRun(join(folder, 'run'));
    writeFileSync(join(folder, 'file'), '');
    const wrong: [args: string[], message: RegExp][] = [
      [[join(folder, 'none')], /^error: .*none: no such folder; give the folder of a run \[/],
      [[run, '--figures', 'pdf'], /^error: --figures pdf: expected svg, png or svg,png \[/],
      [[run, '--out', join(folder, 'file', 'x.html')], /^error: .*file/],
      [
        [run, '--out', join(folder, 'x.txt')],
        /^error: out: .*x\.txt: a report is a file that ends in \.html, or a folder/,
      ],
      [[run, '--name', 'a', '--name', 'b'], /^error: 2 names for 1 runs; give one for each, in their order \(--name\)/],
    ];
    for (const [args, message] of wrong) {
      const { status, stdout, stderr } = report(...args);
      assert.deepEqual([status, stdout], [1, '']);
      assert.match(stderr, message);
      assert.equal(stderr.trim().split('\n').length, 1, stderr);
    }
    await assert.rejects(readRuns([]), /no run is given/);
    await assert.rejects(readRuns([run], ['a', 'b']), /2 names for 1 runs; give one for each/);
  });
});
