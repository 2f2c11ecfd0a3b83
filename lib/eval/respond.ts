/** Generating and judging the responses of a set, a batch at a time. */
import { AbortedError, RewardError } from '../errors.js';
import type { Generation, PolicyLike } from '../policy.js';
import type { Problem, RewardInput } from '../tasks/types.js';
import type {
  EvaluationProgress,
  EvaluationSet,
  EvaluationTokenizer,
  Judgement,
  Phase,
  ResponseLine,
  ResponseRecord,
} from './types.js';

/** How responses are drawn: all that decides their tokens beside the policy and the prompts. */
export interface Sampling {
  /** Of the samples; the greedy phase has none. */
  temperature: number;
  topP: number;
  seed: number;
  maxNewTokens: number;
  stopTokens?: readonly number[];
}

/** What bounds the memory of a generation and changes no response on a CPU. */
export interface GenerationBounds {
  /** Responses that are generated, judged and written together. */
  batchSize: number;
  /** As of `GenerateOptions`. */
  maxRows?: number;
  cacheTokens?: number;
}

export interface RespondOptions extends Sampling, GenerationBounds {
  policy: PolicyLike;
  tokenizer: EvaluationTokenizer;
  set: EvaluationSet;
  /** Ids of the prompts of the set's problems. */
  prompts: readonly (readonly number[])[];
  phase: Phase;
  /** The first so many problems of the set. */
  problems: number;
  /** Responses per problem; 1 in the greedy phase. */
  samples: number;
  /** Responses there are already. */
  records: readonly ResponseRecord[];
  signal?: AbortSignal;
  onProgress?: (progress: EvaluationProgress) => void;
}

/** Consecutive samples of one problem that are still missing. */
interface Unit {
  problem: number;
  from: number;
  count: number;
}

/**
 * Generates what is missing and yields it batch by batch, judged. Random numbers are keyed by (seed, problem, sample,
 * position), so neither the batch size nor what was there before changes a response.
 */
export async function* respond(options: RespondOptions): AsyncGenerator<ResponseLine[]> {
  const { signal, onProgress } = options;
  const progress = new Counter(options);
  const units = missingUnits(options);
  // The first event of a phase tells what there was before it.
  onProgress?.(progress.now());
  for (const batch of batchesOf(units, options.batchSize)) {
    if (signal?.aborted) throw new AbortedError('The evaluation was aborted', { cause: signal.reason });
    const lines = await respondBatch(options, batch, (tokens) => onProgress?.(progress.now(tokens)));
    progress.add(lines);
    yield lines;
    onProgress?.(progress.now());
  }
}

function missingUnits({ set, phase, problems, samples, batchSize, records }: RespondOptions): Unit[] {
  const there = new Map<string, Set<number>>();
  for (const record of records) {
    if (record.phase !== phase) continue;
    const own = there.get(record.problem) ?? new Set();
    there.set(record.problem, own.add(record.sample));
  }
  const units: Unit[] = [];
  for (let problem = 0; problem < problems; problem += 1) {
    const own = there.get((set.problems[problem] as Problem).id);
    let open: Unit | null = null;
    for (let sample = 0; sample < samples; sample += 1) {
      if (own?.has(sample)) {
        open = null;
      } else if (open !== null && open.count < batchSize) {
        open.count += 1;
      } else {
        open = { problem, from: sample, count: 1 };
        units.push(open);
      }
    }
  }
  return units;
}

/** Neighbours that miss the same samples go together: a call of `generate` draws the same samples of every prompt. */
function* batchesOf(units: readonly Unit[], batchSize: number): Generator<Unit[]> {
  let batch: Unit[] = [];
  for (const unit of units) {
    const first = batch[0];
    const fits =
      first === undefined ||
      (unit.from === first.from && unit.count === first.count && (batch.length + 1) * unit.count <= batchSize);
    if (!fits) {
      yield batch;
      batch = [];
    }
    batch.push(unit);
  }
  if (batch.length > 0) yield batch;
}

async function respondBatch(
  options: RespondOptions,
  batch: readonly Unit[],
  onTokens: (tokens: number) => void,
): Promise<ResponseLine[]> {
  const { policy, tokenizer, set, prompts, phase, signal, topP } = options;
  const stop = options.stopTokens ?? (tokenizer.eosTokenIds.length > 0 ? tokenizer.eosTokenIds : undefined);
  const { from, count } = batch[0] as Unit;
  const generations = await policy.generate(
    batch.map(({ problem }) => prompts[problem] as readonly number[]),
    {
      maxNewTokens: options.maxNewTokens,
      temperature: phase === 'greedy' ? 0 : options.temperature,
      ...(phase === 'sample' && topP < 1 ? { topP } : {}),
      samplesPerPrompt: count,
      sampleOffset: from,
      seed: options.seed,
      promptIds: batch.map(({ problem }) => problem),
      weights: 'policy',
      maxRows: options.maxRows ?? 0,
      cacheTokens: options.cacheTokens ?? 0,
      onProgress: ({ tokens }) => onTokens(tokens),
      ...(stop === undefined ? {} : { stopTokens: stop }),
      ...(signal === undefined ? {} : { signal }),
    },
  );
  const inputs = generations.map(
    ({ prompt, tokens, finishReason }): RewardInput => ({
      problem: set.problems[(batch[prompt] as Unit).problem] as Problem,
      response: tokenizer.decode(tokens),
      tokens,
      finishReason,
    }),
  );
  const judgements = await set.judge(inputs);
  if (judgements.length !== inputs.length) {
    throw new RewardError(
      `the judge of "${set.name}" returned ${judgements.length} judgements for ${inputs.length} responses; expected one each`,
    );
  }
  return generations.map((generation, i) =>
    lineOf(set, phase, from, generation, inputs[i] as RewardInput, judgements[i] as Judgement),
  );
}

function lineOf(
  set: EvaluationSet,
  phase: Phase,
  from: number,
  generation: Generation,
  { problem, response }: RewardInput,
  { verdict, answer, reason }: Judgement,
): ResponseLine {
  const right = verdict === 'correct';
  return {
    problem: problem.id,
    phase,
    sample: from + generation.sample,
    verdict,
    answer,
    ...(reason === undefined ? {} : { reason }),
    tokens: generation.tokens.length,
    finishReason: generation.finishReason,
    logprob: sum(generation.logprob),
    entropy: sum(generation.entropy),
    ...(set.distinctKey === undefined ? {} : { distinct: right ? set.distinctKey(problem, response) : null }),
    ...(set.algebraicKey === undefined ? {} : { algebraic: right ? set.algebraicKey(problem, response) : null }),
    ...(set.features === undefined ? {} : { features: set.features(problem, response) }),
    text: response,
  };
}

function sum(values: Float32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** Counts for the progress events. */
class Counter {
  readonly #options: RespondOptions;
  readonly #perProblem = new Map<string, number>();
  #done = 0;
  #responses = 0;
  #correct = 0;
  #undecided = 0;
  #tokens = 0;

  constructor(options: RespondOptions) {
    this.#options = options;
    const ids = new Set(options.set.problems.slice(0, options.problems).map(({ id }) => id));
    this.#count(
      options.records.filter(
        (record) => record.phase === options.phase && ids.has(record.problem) && record.sample < options.samples,
      ),
    );
  }

  add(lines: readonly ResponseLine[]): void {
    this.#count(lines);
    for (const { tokens } of lines) this.#tokens += tokens;
  }

  /** @param running - tokens of the batch that is being generated */
  now(running = 0): EvaluationProgress {
    const { set, phase, problems } = this.#options;
    return {
      set: set.name,
      phase,
      done: this.#done,
      total: problems,
      responses: this.#responses,
      correct: this.#correct,
      undecided: this.#undecided,
      tokens: this.#tokens + running,
    };
  }

  #count(records: readonly ResponseRecord[]): void {
    for (const { problem, verdict } of records) {
      const own = (this.#perProblem.get(problem) ?? 0) + 1;
      this.#perProblem.set(problem, own);
      if (own === this.#options.samples) this.#done += 1;
      this.#responses += 1;
      if (verdict === 'correct') this.#correct += 1;
      if (verdict === 'undecided') this.#undecided += 1;
    }
  }
}
