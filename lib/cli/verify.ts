/** `eepo verify PREDICTION GOLD` and `eepo verify --jsonl FILE` */
import { writeFile } from 'node:fs/promises';
import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { EepoError, InvalidArgumentError } from '../errors.js';
import { type Agreement, AgreementTable, disagrees } from '../verify/agreement.js';
import type { ExtractOptions } from '../verify/extract.js';
import { goldAnswer, type Verdict, type VerifyOptions } from '../verify/judge.js';
import { cleanLatex } from '../verify/latex/clean.js';
import { VerifierPool } from '../verify/pool.js';
import { collect, formatTable, wholeNumber, withInterrupt } from './common.js';
import { type Case, readCases, USUAL } from './verify-rows.js';

interface Options {
  response?: boolean;
  strict?: boolean;
  tolerance?: string;
  jsonl?: string;
  predictionColumn?: string;
  responseColumn?: string;
  goldColumn?: string;
  expectedColumn?: string;
  by?: string;
  where: string[];
  showDisagreements: string;
  json?: string;
  workers: string;
  timeout: string;
  maxMemory: string;
}

export function register(program: Command): void {
  program
    .command('verify')
    .description('compare answers: one with its gold answer, or a file of them with the judgements in it')
    .argument('[answers...]', 'PREDICTION GOLD [GOLD...]; equal to one gold answer is right')
    .option('--response', 'PREDICTION is a whole response: find the answer in it')
    .option('--strict', 'of a response only the last \\boxed{} counts')
    .option('--tolerance <t>', 'relative difference up to which real numbers are equal (default: none)')
    .option('--jsonl <file>', 'judge every row of a file (.gz too) and print how often that agrees')
    .option('--prediction-column <name>', `of the answer (default: ${USUAL.prediction.join(', ')})`)
    .option('--response-column <name>', `of the whole response (default: ${USUAL.response.join(', ')})`)
    .option('--gold-column <name>', `of the gold answer (default: ${USUAL.gold.join(', ')})`)
    .option('--expected-column <name>', `of the right judgement (default: ${USUAL.expected.join(', ')})`)
    .option('--by <column>', 'one line of the table for each value of this column')
    .option('--where <column=value>', 'only such rows; column= those without a value; may be repeated', collect, [])
    .option('--show-disagreements <n>', 'print so many, the first ones', '0')
    .option('--json <file>', 'write the counts and every disagreement')
    .option('--workers <n>', 'worker processes, of --jsonl', '2')
    .option('--timeout <ms>', 'most milliseconds of a comparison', '5000')
    .option('--max-memory <mb>', 'most MiB of a worker', '256')
    .addHelpText(
      'after',
      '\nExit code: 0 equal (or a file was judged), 1 not equal, 2 error. Write -- before an answer like -x.\nWhat is equal: docs/verifier.md.',
    )
    // Of commander's own errors; 1 says that answers differ.
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
    .action(async (answers: string[], options: Options) => {
      try {
        process.exitCode = await verify(answers, options);
      } catch (error) {
        if (!(error instanceof EepoError)) throw error;
        console.error(`error: ${error.message} [${error.code}]`);
        process.exitCode = 2;
      }
    });
}

/** Returns the exit code. */
async function verify(answers: string[], options: Options): Promise<number> {
  const pool = new VerifierPool({
    workers: options.jsonl === undefined ? 1 : wholeNumber('workers', 1)(options.workers),
    timeoutMs: wholeNumber('timeout', 1)(options.timeout),
    maxMemoryMb: wholeNumber('max-memory', 16)(options.maxMemory),
    onProblem: () => {},
  });
  try {
    if (options.jsonl === undefined) return await verifyOne(pool, answers, options);
    if (answers.length > 0) throw new InvalidArgumentError('give answers or --jsonl FILE, not both');
    await withInterrupt((signal) => verifyFile(pool, options, signal));
    return 0;
  } finally {
    await pool.close();
  }
}

function optionsOf({ strict, tolerance }: Options): VerifyOptions {
  const relative = tolerance === undefined ? undefined : Number(tolerance);
  if (relative !== undefined && !(relative >= 0 && relative < 1)) {
    throw new InvalidArgumentError(`--tolerance ${tolerance}: expected a number from 0 to below 1`);
  }
  const extract: ExtractOptions = strict ? { strict: 'boxed' } : {};
  return { extract, compare: relative === undefined ? {} : { tolerance: relative } };
}

async function verifyOne(pool: VerifierPool, answers: string[], options: Options): Promise<number> {
  const [prediction, ...gold] = answers;
  if (prediction === undefined || gold.length === 0) {
    throw new InvalidArgumentError(
      'expected PREDICTION and GOLD, or --jsonl FILE (quote what holds spaces or backslashes)',
    );
  }
  const answer = options.response || options.strict ? { response: prediction } : { prediction };
  const [verdict] = (await pool.verify([{ ...answer, gold, options: optionsOf(options) }])) as [Verdict];
  console.log(verdict.reason === verdict.outcome ? verdict.outcome : `${verdict.outcome}: ${verdict.reason}`);
  const rows: [string, string][] = [['prediction', verdict.answer ?? '(none)']];
  for (const text of gold) rows.push(['gold', goldAnswer(text)]);
  for (const [name, text] of rows) {
    const normalized = cleanLatex(text.slice(0, 10_000));
    console.log(`${name.padEnd(10)}  ${text}${normalized === text ? '' : `  ->  ${normalized}`}`);
  }
  return verdict.equal ? 0 : 1;
}

async function verifyFile(pool: VerifierPool, options: Options, signal: AbortSignal): Promise<void> {
  const file = options.jsonl as string;
  const shown = wholeNumber('show-disagreements', 0)(options.showDisagreements);
  const cases = await readCases(file, options, optionsOf(options));
  const start = performance.now();
  const verdicts = await judgeAll(pool, cases, signal);
  const seconds = (performance.now() - start) / 1000;
  const table = new AgreementTable();
  cases.forEach(({ group, expected }, i) => {
    table.add(group, { expected, verdict: verdicts[i] as Verdict });
  });
  console.log(agreementTable(table, options.by ?? 'rows'));
  const { msPerComparison } = pool.stats;
  console.log(
    `\n${Math.round(cases.length / seconds)} cases a second with ${options.workers} workers; ` +
      `${msPerComparison.toFixed(3)} ms of a worker's time each`,
  );
  const contradicted = cases.flatMap(({ where, item, expected }, i) => {
    const verdict = verdicts[i] as Verdict;
    if (!disagrees({ expected, verdict })) return [];
    return [
      {
        where,
        ...item,
        options: undefined,
        answer: verdict.answer,
        expected,
        outcome: verdict.outcome,
        reason: verdict.reason,
      },
    ];
  });
  for (const { where, answer, gold, expected, outcome, reason } of contradicted.slice(0, shown)) {
    const should = expected ? 'equal' : 'different';
    console.log(`\n${where}: ${outcome} (${reason}), expected ${should}\n  ${show(answer)}\n  ${show(gold)}`);
  }
  if (options.json === undefined) return;
  const report = {
    file,
    options: optionsOf(options),
    total: table.total,
    groups: Object.fromEntries(table.groups),
    stats: pool.stats,
    seconds,
    disagreements: contradicted,
  };
  await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
}

const show = (value: unknown): string => {
  const text = JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 297)}...` : text;
};

const CHUNK = 500;

async function judgeAll(pool: VerifierPool, cases: readonly Case[], signal: AbortSignal): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  const bar = process.stderr.isTTY
    ? new SingleBar({
        stream: process.stderr,
        hideCursor: true,
        clearOnComplete: true,
        format: 'verifying [{bar}] {value}/{total}  {eta_formatted} left',
      })
    : null;
  bar?.start(cases.length, 0);
  try {
    for (let begin = 0; begin < cases.length; begin += CHUNK) {
      const chunk = cases.slice(begin, begin + CHUNK).map(({ item }) => item);
      verdicts.push(...(await pool.verify(chunk, { signal })));
      bar?.update(verdicts.length);
    }
  } finally {
    bar?.stop();
  }
  return verdicts;
}

/** One line for each group, and the sum where there are several. Without expected judgements, what was judged. */
export function agreementTable({ groups, total }: AgreementTable, by: string): string {
  const known = total.expected > 0;
  const header = known
    ? [by, 'cases', 'agree', 'false pos.', 'false neg.', 'no answer', 'undecided', 'stopped']
    : [by, 'cases', 'equal', 'no answer', 'undecided', 'stopped'];
  const line = (name: string, counts: Agreement): string[] => {
    const { cases, equal, noAnswer, undecided, stopped, expected, agree, falsePositives, falseNegatives } = counts;
    const rest = [noAnswer, undecided, stopped].map(String);
    if (!known) return [name, String(cases), percent(equal, cases), ...rest];
    return [name, String(cases), percent(agree, expected), String(falsePositives), String(falseNegatives), ...rest];
  };
  const rows = [...groups].map(([name, counts]) => line(name, counts));
  if (groups.size > 1) rows.push(line('total', total));
  return formatTable(header, rows);
}

const percent = (part: number, whole: number): string => (whole === 0 ? '-' : `${((100 * part) / whole).toFixed(2)} %`);
