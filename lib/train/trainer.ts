/** GRPO and EEPO, iteration by iteration. */
import { EntropyGate } from '../algorithm/gate.js';
import type { Objective } from '../algorithm/types.js';
import { AbortedError, ConfigError } from '../errors.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import type { StepOptions } from '../policy.js';
import { type Rollout, type RolloutOptions, type RolloutPrompt, twoStageRollout } from '../rollout.js';
import { type AnyReward, tryRewards } from '../tasks/rewards.js';
import type { Reward } from '../tasks/types.js';
import { type Collected, collect, failedShareOf, type Round, totalTimings } from './collect.js';
import { checkContext, defineConfig, type TrainConfig } from './config.js';
import { type Incident, rewardIncidents, tooMany, unlearnIncidents } from './incidents.js';
import { IterationRewards } from './iteration-rewards.js';
import { featureMetrics, finiteOnly, type Metrics, rolloutMetrics, timingMetrics, unlearnMetrics } from './metrics.js';
import { objectiveOf } from './objective.js';
import { PromptStream } from './prompt-stream.js';
import { rewardPolicy } from './reward-policy.js';
import { chooseStopTokens, ownTokenizer, rewardsOf, setUpPolicy } from './trainer-setup.js';
import type {
  Evaluator,
  Iteration,
  Preparation,
  Streaks,
  TrainablePolicy,
  TrainerEvent,
  TrainerOptions,
  TrainerPhase,
  TrainerState,
  TrainerTokenizer,
} from './trainer-types.js';
import { promptsFingerprint, type TrainPrompt, trainingPrompts } from './training-prompts.js';
import { addLogprobs, lossSample, type ReferencePolicy, updatePolicy } from './update.js';

const KEYS: OptionKeys<TrainerOptions> = {
  policy: true,
  tokenizer: true,
  task: true,
  reward: true,
  rewards: true,
  reference: true,
  config: true,
  objective: true,
  evaluate: true,
  stopTokens: true,
  onEvent: true,
  ...SIGNAL,
};

/**
 * Trains a policy:
 *
 *     for await (const { iteration, metrics } of new Trainer({ policy, task, config })) {
 *       console.log(iteration, metrics['reward/mean']);
 *     }
 *
 * Every iteration: sample in two stages (Algorithm 1), reward, advantages over all G samples of a prompt, and one AdamW
 * step per mini-batch of prompts. The result does not depend on `optimizer.microBatchTokens`
 * but for rounding (docs/determinism.md).
 *
 * The policy is the caller's: the trainer changes its weights and disposes of nothing but the reference it made.
 */
export class Trainer implements AsyncIterable<Iteration> {
  readonly config: TrainConfig;
  readonly #policy: TrainablePolicy;
  readonly #task: TrainerOptions['task'];
  readonly #rewards: readonly AnyReward[];
  readonly #objective: Objective;
  readonly #evaluate: Evaluator | undefined;
  #stopTokens: readonly number[] | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #onEvent: ((event: TrainerEvent) => void) | undefined;
  readonly #gate: EntropyGate;
  #tokenizer: TrainerTokenizer | null;
  #reference: ReferencePolicy | null;
  #prompts: TrainPrompt[] = [];
  #preparation: Preparation | null = null;
  #stream: PromptStream | null = null;
  #iteration = 0;
  #startEvaluated = false;
  /** The iteration whose evaluation is still to come. */
  #pending: Iteration | null = null;
  /** What #next goes back to when it fails. */
  #boundary = { promptsDrawn: 0, gateHistory: [] as readonly number[] };
  /** Whether an optimizer step of an iteration that is not finished has changed the weights. */
  #between = false;
  #prompted: string | null = null;
  #warned = false;
  #streaks: Streaks = { skippedSteps: 0, failedRewards: 0 };
  /** What ends the run once its iteration is handed over. */
  #fatal: Error | null = null;

  /** @throws ConfigError for a wrong configuration, and where neither the task nor `reward` rewards */
  constructor(options: TrainerOptions) {
    checkOptions(options, KEYS, 'new Trainer');
    const config = defineConfig(options.config);
    for (const name of ['policy', 'task'] as const) {
      if (!options[name]) throw new ConfigError(`new Trainer({ ${name}, ... }): ${name} is missing`);
    }
    this.config = config;
    this.#policy = options.policy;
    this.#tokenizer = options.tokenizer ?? null;
    this.#task = options.task;
    this.#rewards = rewardsOf(options);
    this.#reference = options.reference ?? null;
    this.#evaluate = options.evaluate;
    this.#stopTokens = options.stopTokens;
    this.#signal = options.signal;
    this.#onEvent = options.onEvent;
    const { alpha, window, gate } = config.unlearn;
    this.#gate = new EntropyGate({ gate, alpha, window });
    this.#objective = options.objective ?? objectiveOf(config);
  }

  /** Iterations done. */
  get iteration(): number {
    return this.#iteration;
  }

  /** What went wrong in a row, up to now; a part of {@link state}. */
  get streaks(): Readonly<Streaks> {
    return { ...this.#streaks };
  }

  set streaks(streaks: Readonly<Streaks>) {
    this.#streaks = { ...streaks };
  }

  /**
   * Whether the policy's weights are those of {@link state}. false: an error came between two optimizer steps of one
   * iteration, and only an older save has the weights of a boundary.
   */
  get atBoundary(): boolean {
    return !this.#between;
  }

  /** The iteration whose update is done and whose evaluation was cut off, with its samples; else null. */
  get unfinished(): Iteration | null {
    return this.#pending;
  }

  /**
   * Where the run stands: at the end of the last iteration that was finished. What was drawn since is drawn again, the
   * same, by the run that goes on.
   *
   * @throws ConfigError before `prepare()`
   */
  state(): TrainerState {
    if (this.#stream === null) throw new ConfigError('trainer.state() needs the prompts: call prepare() first');
    this.#prompted ??= promptsFingerprint(this.#prompts);
    return {
      iteration: this.#iteration,
      promptsDrawn: this.#boundary.promptsDrawn,
      prompts: this.#prompted,
      gateHistory: [...this.#boundary.gateHistory],
      streaks: this.streaks,
      startEvaluated: this.#startEvaluated,
      pending: this.#pending === null ? null : { ...this.#pending.metrics },
    };
  }

  /**
   * Goes on from a {@link state}, after `prepare()` and before iterating. The policy must have the weights and the
   * optimizer of that moment, and a KL penalty needs `reference`, the policy as it was at the very beginning.
   *
   * @param otherPrompts - true: take the prompts there are, even if they are not those of the state
   * @throws ConfigError where the training prompts are others than they were
   */
  restore(state: TrainerState, otherPrompts = false): void {
    const now = this.state();
    if (state.prompts !== now.prompts && !otherPrompts) {
      throw new ConfigError(
        `task "${this.#task.name}": the training prompts are not those that the run began with (other data, order, ` +
          'template or tokenizer); give it the old ones',
      );
    }
    if (this.config.objective.klCoef > 0 && this.#reference === null && state.iteration > 0) {
      throw new ConfigError(
        'a run that goes on with objective.klCoef above 0 needs the policy it began with: new Trainer({ reference, ... })',
      );
    }
    const { iteration, promptsDrawn, gateHistory, startEvaluated, pending, streaks } = state;
    this.#streaks = { ...streaks };
    this.#iteration = iteration;
    this.#startEvaluated = startEvaluated;
    this.#pending = pending === null ? null : { iteration, metrics: { ...pending }, samples: [], incidents: [] };
    this.#boundary = { promptsDrawn, gateHistory };
    this.#rollBack();
  }

  /** Prompts and gate as they were when the last iteration ended. */
  #rollBack(): void {
    const { promptsDrawn, gateHistory } = this.#boundary;
    this.#stream = new PromptStream(this.#prompts.length, this.config.run.seed, promptsDrawn);
    this.#gate.restore(gateHistory);
  }

  /**
   * Everything that can be found wrong before anything expensive: no prompts, prompts and responses that do not fit into
   * the context, a reward that throws. Iterating calls it; calling it earlier is free.
   *
   * @throws ConfigError, RewardError
   */
  async prepare(): Promise<Preparation> {
    if (this.#preparation !== null) return this.#preparation;
    const { config } = this;
    await setUpPolicy(this.#policy, config);
    this.#tokenizer ??= await ownTokenizer(this.#policy, config);
    const tokenizer = this.#tokenizer;
    tokenizer.checkVocabulary?.(this.#policy.config.vocabSize);
    const { prompts, tooLong } = await trainingPrompts(this.#task, tokenizer, config.task.maxPromptTokens);
    const longestPrompt = prompts.reduce((most, { tokens }) => Math.max(most, tokens.length), 0);
    checkContext(config, longestPrompt, this.#policy.config.maxPositionEmbeddings);
    const failures = await tryRewards(this.#rewards, (prompts[0] as TrainPrompt).problem, this.#rewardOptions());
    for (const { label, first } of failures) {
      process.emitWarning(`${label} fails for an empty response: ${first || 'it took too long'}`, 'EepoRewardWarning');
    }
    this.#stopTokens ??= chooseStopTokens(tokenizer, config, prompts);
    this.#prompts = prompts;
    this.#stream = new PromptStream(prompts.length, config.run.seed);
    this.#preparation = { prompts: prompts.length, tooLong, longestPrompt };
    return this.#preparation;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Iteration> {
    await this.prepare();
    const { run, eval: evaluation, objective } = this.config;
    let ownReference: { dispose(): void } | null = null;
    if (objective.klCoef > 0 && this.#reference === null) {
      const copy = await this.#policy.clone();
      ownReference = copy;
      this.#reference = copy;
    }
    try {
      if (this.#pending !== null) yield await this.#finish(this.#pending);
      if (this.#iteration === 0 && !this.#startEvaluated && evaluation.atStart && this.#evaluate) {
        const metrics = await this.#evaluation(0);
        this.#startEvaluated = true;
        yield { iteration: 0, metrics, samples: [], incidents: [] };
      }
      while (this.#iteration < run.iterations) {
        this.#pending = await this.#next();
        yield await this.#finish(this.#pending);
        // After the boundary: what was done is known, and can be saved.
        const fatal = this.#fatal;
        this.#fatal = null;
        if (fatal !== null) throw fatal;
      }
    } catch (error) {
      this.#rollBack();
      await this.#policy.zeroGrad();
      throw error;
    } finally {
      if (ownReference !== null) {
        this.#reference = null;
        ownReference.dispose();
      }
    }
  }

  /** Adds the evaluation that is due. */
  async #finish(result: Iteration): Promise<Iteration> {
    const { run, eval: evaluation } = this.config;
    const { iteration } = result;
    const due =
      (evaluation.every > 0 && iteration % evaluation.every === 0) ||
      (evaluation.atEnd && iteration === run.iterations);
    const metrics = due && this.#evaluate ? await this.#evaluation(iteration) : {};
    this.#pending = null;
    return { ...result, metrics: { ...result.metrics, ...metrics } };
  }

  /** One iteration, without its evaluation. */
  async #next(): Promise<Iteration> {
    const iteration = this.#iteration + 1;
    const start = performance.now();
    const timings: Record<string, number> = {};
    const timed = async <T>(phase: TrainerPhase, work: () => Promise<T>): Promise<T> => {
      this.#signalCheck();
      this.#emit({ type: 'phase', iteration, phase });
      const from = performance.now();
      const result = await work();
      timings[phase] = (timings[phase] ?? 0) + (performance.now() - from) / 1000;
      return result;
    };

    const { prompts, samples, groups, rounds, metrics: collected } = await this.#collect(iteration, timed);
    const { rollout, judged } = rounds[0] as Round;
    this.#warnWithoutRewards(
      samples.map(({ reward }) => reward),
      iteration,
    );
    const lossSamples = samples.map((sample) =>
      lossSample(
        this.config,
        sample,
        (prompts[sample.promptIndex] as RolloutPrompt).tokens,
        `${sample.problem.id} (reward ${sample.reward})`,
      ),
    );
    const updating = this.#updating();
    if (this.config.objective.ratio !== 'behavior' || this.#reference !== null) {
      await timed('reference', () => addLogprobs(lossSamples, this.#reference, updating));
    }
    const update = await timed('update', () =>
      updatePolicy(lossSamples, this.#objective, updating, iteration, this.#streaks.skippedSteps),
    );
    this.#iteration = iteration;
    const incidents = [
      ...rounds.flatMap((round) => unlearnIncidents(round.rollout, iteration)),
      ...rounds.flatMap((round) => rewardIncidents(round.judged, iteration)),
      ...update.incidents,
    ];
    this.#count(update.skippedInARow, failedShareOf(rounds), incidents);
    this.#between = false;
    this.#boundary = {
      promptsDrawn: (this.#stream as PromptStream).position,
      gateHistory: this.#gate.history,
    };

    const metrics: Metrics = {
      ...rolloutMetrics(samples, groups),
      ...featureMetrics(this.#task, samples),
      ...finiteOnly(judged.metrics),
      ...collected,
      ...unlearnMetrics(rollout),
      ...update.metrics,
      ...timingMetrics(
        rounds.flatMap((round) => round.rollout.samples),
        { timings: totalTimings(rounds), gate: rollout.gate },
        timings,
        (performance.now() - start) / 1000,
      ),
    };
    return { iteration, metrics, samples, incidents };
  }

  #collect(
    iteration: number,
    timed: <T>(phase: TrainerPhase, work: () => Promise<T>) => Promise<T>,
  ): Promise<Collected> {
    const tokenizer = this.#tokenizer as TrainerTokenizer;
    return collect({
      config: this.config,
      draw: (count) =>
        (this.#stream as PromptStream)
          .next(count)
          .map(({ index, id }) => ({ id, ...(this.#prompts[index] as TrainPrompt) })),
      rollout: async (prompts, refill, judge) => {
        const { history } = this.#gate;
        const rollout = await this.#rollout(prompts, iteration, judge);
        // The gate counts iterations.
        if (refill) this.#gate.restore(history);
        return rollout;
      },
      rewards: (input) => {
        const rewards = new IterationRewards(this.#rewards, this.#rewardOptions(), input);
        return {
          judge: (samples) => timed('reward', () => rewards.judge(samples)),
          finish: (samples) => timed('reward', () => rewards.finish(samples)),
        };
      },
      decode: (tokens) => tokenizer.decode(tokens),
    });
  }

  /** Warns of what went wrong, and decides whether it has too often. */
  #count(skippedSteps: number, failedShare: number, incidents: readonly Incident[]): void {
    const failedRewards = failedShare > this.config.reward.maxFailedShare ? this.#streaks.failedRewards + 1 : 0;
    this.#streaks = { skippedSteps, failedRewards };
    for (const { kind, message } of incidents) {
      process.emitWarning(message, kind === 'reward' ? 'EepoRewardWarning' : 'EepoNonFiniteWarning');
    }
    this.#fatal = tooMany(this.#streaks, this.config, incidents);
  }

  /**
   * What the update works with. Between the first optimizer step of an iteration and its last nothing is aborted: the
   * weights would be those of no iteration, and a checkpoint of them could not go on exactly.
   */
  #updating() {
    const policy = this.#policy;
    return {
      config: this.config,
      check: () => {
        if (!this.#between) this.#signalCheck();
      },
      policy: {
        forward: policy.forward.bind(policy),
        backward: policy.backward.bind(policy),
        zeroGrad: policy.zeroGrad.bind(policy),
        ...(policy.findNonFinite ? { findNonFinite: policy.findNonFinite.bind(policy) } : {}),
        step: async (options: StepOptions) => {
          const report = await policy.step(options);
          if (report.applied) this.#between = true;
          return report;
        },
      },
    };
  }

  #rewardOptions() {
    const signal = this.#signal;
    return {
      task: this.#task.name,
      overlong: this.config.reward.overlong,
      ...rewardPolicy(this.config),
      ...(signal === undefined ? {} : { signal }),
    };
  }

  /** Nothing is learned from an iteration without rewards, and nothing else would say so. */
  #warnWithoutRewards(rewards: readonly Reward[], iteration: number): void {
    if (this.#warned || rewards.some((reward) => reward !== null)) return;
    this.#warned = true;
    process.emitWarning(
      `iteration ${iteration}: no response got a reward, every one was null (a time limit? see reward/*/timeouts); ` +
        'nothing is learned from it',
      'EepoRewardWarning',
    );
  }

  #rollout(
    prompts: readonly RolloutPrompt[],
    iteration: number,
    judge: NonNullable<RolloutOptions['judge']>,
  ): Promise<Rollout> {
    const { rollout, unlearn, optimizer, run } = this.config;
    const stopTokens = this.#stopTokens;
    return twoStageRollout(this.#policy, prompts, {
      groupSize: rollout.groupSize,
      maxNewTokens: rollout.maxNewTokens,
      temperature: rollout.temperature,
      maxRows: rollout.maxRows,
      cacheTokens: rollout.cacheTokens,
      seed: run.seed,
      iteration,
      unlearn: unlearn.enabled
        ? {
            eta: unlearn.eta,
            gate: this.#gate,
            epsLow: unlearn.epsLow,
            epsHigh: unlearn.epsHigh,
            clampGrad: unlearn.clampGrad,
            normalize: unlearn.normalize,
            loss: unlearn.loss,
            steps: unlearn.steps,
            direction: unlearn.direction,
            memory: unlearn.memory,
            scope: unlearn.scope,
            samples: unlearn.samples,
            probeTokens: unlearn.probeTokens,
            rolloutDtype: unlearn.rolloutDtype,
            maxRelativeStep: unlearn.maxRelativeStep,
            maxLogpDelta: unlearn.maxLogpDelta,
            microBatchTokens: optimizer.microBatchTokens,
          }
        : null,
      judge,
      ...(stopTokens === undefined ? {} : { stopTokens }),
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      onPhase: (phase) => this.#emit({ type: 'phase', iteration, phase }),
      onProgress: ({ tokens, running }) => this.#emit({ type: 'progress', iteration, tokens, running }),
    });
  }

  async #evaluation(iteration: number): Promise<Metrics> {
    this.#signalCheck();
    this.#emit({ type: 'phase', iteration, phase: 'eval' });
    const start = performance.now();
    const metrics = await (this.#evaluate as Evaluator)(iteration);
    return {
      ...Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`eval/${name}`, value])),
      'timing_s/eval': (performance.now() - start) / 1000,
    };
  }

  #emit(event: TrainerEvent): void {
    this.#onEvent?.(event);
  }

  #signalCheck(): void {
    if (this.#signal?.aborted) throw new AbortedError('training was aborted');
  }
}

export type * from './trainer-types.js';
