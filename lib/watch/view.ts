/** What `eepo watch` shows: the page of a report, and a script that keeps it up to date. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jsonIsland, type ReportData, reportData, reportPage } from '../report/page.js';
import type { RunData } from '../report/read-run.js';
import type { RunStatus } from './follow-run.js';

/** What a page is told of the runs beside their report. */
export interface LiveState {
  /** Changes with what is shown; also from process to process. */
  version: string;
  runs: readonly RunStatus[];
}

/** The answer to GET /data. */
export interface LiveData {
  live: LiveState;
  report: ReportData;
}

/** @param runs those that have begun */
export function liveData(runs: readonly RunData[], live: LiveState): LiveData {
  const title = runs.length > 0 ? {} : { title: `Waiting for ${live.runs.map(({ name }) => name).join(', ')}` };
  return { live, report: reportData(runs, title) };
}

/** The page as it is now; its script asks for /data from then on. */
export function livePage({ live, report }: LiveData): string {
  return reportPage(report, { connect: true, script: liveScript(live) });
}

let client: string | undefined;

function liveScript(live: LiveState): string {
  client ??= readFileSync(fileURLToPath(new URL('client/live.js', import.meta.url)), 'utf8')
    .replace(/^export \{\};?$/gm, '')
    .replace(/^\/\/# sourceMappingURL=.*$/gm, '');
  return `(()=>{'use strict';\nconst initial = ${jsonIsland(live)};\n${client}\n})();`;
}
