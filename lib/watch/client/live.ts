/**
 * Keeps the page of a report up to date: asks for /data every two seconds while somebody looks at it, and shows what the
 * runs are doing. Runs in a browser, with `initial` before it; it imports types only.
 */
import type { Browser, PageElement } from '../../report/client/dom.js';
import type { RunStatus } from '../follow-run.js';
import type { LiveData, LiveState } from '../view.js';

declare const initial: LiveState;

interface LivePage {
  readonly hidden: boolean;
  readonly head: PageElement;
  addEventListener(type: string, listener: () => void): void;
}

const EVERY_MS = 2_000;
const browser = globalThis as unknown as Browser;
const { document } = browser;
const page = document as unknown as LivePage;

let state = initial;
let paused = false;
/** Why nothing new can be had, or ''. */
let trouble = '';
let asking = false;
let latest: LiveData | null = null;

function element(name: string, className: string, text = ''): PageElement {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

const style = element('style', '');
style.textContent = `
.live{position:fixed;right:14px;bottom:14px;z-index:9;max-width:min(34rem,calc(100vw - 28px));max-height:45vh;overflow:auto;
display:flex;gap:.9rem;align-items:flex-start;padding:.5rem .55rem .5rem .85rem;border:1px solid var(--line);border-radius:12px;
background:var(--card);box-shadow:0 3px 16px rgb(0 0 0/.13);font-size:.85rem}
.live ul{list-style:none;margin:.2rem 0;padding:0;display:grid;gap:.25rem;min-width:0}
.live li{display:flex;gap:.55rem;align-items:baseline;min-width:0}
.live li>span{min-width:0;overflow-wrap:anywhere}
.live i{flex:none;width:.6em;height:.6em;border-radius:50%;background:var(--soft)}
.live .training i{background:var(--good);animation:live 2s ease-in-out infinite}
.live .complete i{background:var(--good)}
.live .broken i,.live .gone i,.live .lost i{background:var(--bad)}
.live button{flex:none;font:inherit;color:var(--ink);background:none;border:1px solid var(--line);border-radius:7px;padding:.12rem .6rem;cursor:pointer}
@keyframes live{50%{opacity:.25}}
@media (prefers-reduced-motion:reduce){.live i{animation:none!important}}
@media print{.live{display:none}}
@media (max-width:600px){.live{right:8px;left:8px;bottom:8px;justify-content:space-between}}
body{padding-bottom:5rem}`;
page.head.append(style);

const box = element('aside', 'live');
box.setAttribute('aria-label', 'What the runs are doing');
const list = element('ul', '');
const button = element('button', '', 'Pause');
button.setAttribute('type', 'button');
button.addEventListener('click', () => {
  paused = !paused;
  if (!paused && latest !== null) show(latest);
  tell();
});
box.append(list, button);
document.body.append(box);

/** `3 s ago`, by the clock of this machine: a tunnel's other end may have another, so the future is now. */
function ago(since: number): string {
  const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
  if (seconds < 2) return 'now';
  if (seconds < 120) return `${seconds} s ago`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min ago` : `${Math.round(minutes / 60)} h ago`;
}

function wordsOf({ name, state: what, message, iteration, iterations, updated }: RunStatus): string {
  const done = iteration === null ? '' : `, iteration ${iteration}${iterations === null ? '' : ` of ${iterations}`}`;
  const when = updated === null || what === 'complete' ? '' : `, ${ago(updated)}`;
  const words = {
    waiting: `${name}: waiting for it to begin`,
    training: `${name}: training${done}${when}`,
    stopped: `${name}: stopped${done}${when}`,
    complete: `${name}: complete${done}`,
    gone: `${name}: its folder has gone; this is what was there`,
    broken: `${name}: ${message}`,
  };
  return words[what];
}

function line(className: string, text: string): PageElement {
  const item = element('li', className);
  item.append(element('i', ''), element('span', '', text));
  return item;
}

function tell(): void {
  const notes = [...(trouble === '' ? [] : [line('lost', trouble)]), ...(paused ? [line('', 'paused')] : [])];
  list.replaceChildren(...notes, ...state.runs.map((run) => line(run.state, wordsOf(run))));
  button.textContent = paused ? 'Go on' : 'Pause';
}

function show(data: LiveData): void {
  latest = null;
  browser.eepoReport?.update(data.report);
}

async function ask(): Promise<void> {
  if (asking || page.hidden) return;
  asking = true;
  try {
    const answer = await fetch('data', {
      headers: { 'If-None-Match': `"${state.version}"` },
      signal: AbortSignal.timeout(20_000),
    });
    if (answer.status === 200) {
      const data = (await answer.json()) as LiveData;
      state = data.live;
      latest = data;
      if (!paused) show(data);
    } else if (answer.status !== 304) {
      throw new Error(await answer.text());
    }
    trouble = '';
  } catch (error) {
    const { name, message } = error as Error;
    trouble =
      name === 'Error' ? message.trim() : 'eepo watch does not answer; this page goes on when it is started again';
  } finally {
    asking = false;
  }
  tell();
}

function goOn(): void {
  void ask().finally(() => browser.setTimeout(goOn, EVERY_MS));
}

page.addEventListener('visibilitychange', () => void ask());
tell();
goOn();
