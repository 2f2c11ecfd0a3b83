/** A report as one HTML page that needs nothing else: no network, no files beside it. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { checkOptions, type OptionKeys } from '../options.js';
import type { FigureData } from './figure.js';
import { figuresOf } from './figures.js';
import { html } from './markup.js';
import { configPart, defaultTitle, numbersPart, runsPart, samplesPart } from './parts.js';
import type { RunData } from './read-run.js';
import { CHART_LIBRARY } from './render.js';
import { STYLE } from './style.js';

/** Everything that a page shows, as JSON: what is sent to a page that is to be kept up to date. */
export interface ReportData {
  title: string;
  /** HTML, escaped, of what is no figure. */
  parts: { heading: string; runs: string; numbers: string; samples: string; config: string };
  figures: FigureData[];
}

export interface ReportOptions {
  /** Heading of the page. Default: the method or the names of the runs, and the task. */
  title?: string;
}

const REPORT_KEYS: OptionKeys<ReportOptions> = { title: true };

/** What a page of these runs shows. Runs keep their order and colours. */
export function reportData(runs: readonly RunData[], options: ReportOptions = {}): ReportData {
  checkOptions(options, REPORT_KEYS, 'reportData');
  const title = options.title ?? defaultTitle(runs);
  return {
    title,
    parts: {
      heading: html`${title}`.text,
      runs: runsPart(runs).text,
      numbers: numbersPart(runs).text,
      samples: samplesPart(runs).text,
      config: configPart(runs).text,
    },
    figures: figuresOf(runs),
  };
}

export interface PageOptions {
  /** JavaScript that runs after the page's own; it may call `eepoReport.update(data)` with new {@link ReportData}. */
  script?: string;
  /** Whether the page may talk to the server that it came from (fetch, EventSource). Default false: no network at all. */
  connect?: boolean;
}

const PAGE_KEYS: OptionKeys<PageOptions> = { script: true, connect: true };

/**
 * The page. It opens from a file, offline; a policy in it forbids every request and every script but its own, whatever
 * the data hold.
 */
export function reportPage(data: ReportData, options: PageOptions = {}): string {
  checkOptions(options, PAGE_KEYS, 'reportPage');
  const scripts = [chartLibrary(), pageScript(), ...(options.script === undefined ? [] : [options.script])].map(inline);
  const hashes = scripts.map((text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`);
  const policy = [
    "default-src 'none'",
    `script-src ${hashes.join(' ')}`,
    // of the charts, which write styles into their elements
    "style-src 'unsafe-inline'",
    ...(options.connect === true ? ["connect-src 'self'"] : []),
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>${html`${data.title}`.text}</title>
<style>${STYLE}</style>
</head>
<body>
<header><h1 id="part-heading">${data.parts.heading}</h1><div id="part-runs"></div></header>
<nav><div><div id="contents"><a href="#summary">Summary</a><span id="contents-figures"></span><a href="#samples">Samples</a><a href="#config">Configuration</a></div>
<label><span>Smoothing</span><input id="smoothing" type="range" min="0" max="25" value="7" aria-label="Smoothing: window of the moving average, in percent of the run"></label></div></nav>
<main>
<noscript><p class="note">The figures are drawn by this page's own script, which the browser did not run. "eepo report --figures svg" writes them as files.</p></noscript>
<section id="summary"><h2>Before and after</h2><div id="part-numbers"></div></section>
<div id="figures"></div>
<section id="samples"><h2>Samples</h2><div id="part-samples"></div></section>
<section id="config"><h2>Configuration</h2><div id="part-config"></div></section>
<footer>Thin lines are as measured, thick lines a centred moving average. Made by <code>eepo report</code>; figures by Apache ECharts. This page holds everything it shows and loads nothing.</footer>
</main>
<script id="report-data" type="application/json">${jsonIsland(data)}</script>
${scripts.map((text) => `<script>${text}</script>`).join('\n')}
</body>
</html>
`;
}

/** JSON that cannot end the element it stands in, nor begin a comment in it. */
export function jsonIsland(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** A script that cannot end its element: in JavaScript `<\\/` says the same where it may stand. */
function inline(script: string): string {
  return script.replace(/<\/(?=script)/gi, '<\\/').replace(/<!--/g, '<\\!--');
}

let library: string | undefined;
let script: string | undefined;

function chartLibrary(): string {
  library ??= readFileSync(CHART_LIBRARY, 'utf8').trim();
  return library;
}

/** The modules of the page as one script: they import each other and nothing else, so their exports become plain names. */
function pageScript(): string {
  script ??= `(()=>{'use strict';\n${['look.js', 'legend.js', 'option.js', 'main.js'].map(moduleText).join('\n')}\n})();`;
  return script;
}

function moduleText(name: string): string {
  const text = readFileSync(fileURLToPath(new URL(`client/${name}`, import.meta.url)), 'utf8');
  return text
    .replace(/^import .*$\n?/gm, '')
    .replace(/^export (?=function|const|class|let)/gm, '')
    .replace(/^export \{\};?$/gm, '')
    .replace(/^\/\/# sourceMappingURL=.*$/gm, '')
    .trim();
}
