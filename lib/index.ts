/**
 * eepo: reinforcement learning with verifiable rewards for language models, by GRPO and by EEPO (sample, then forget).
 *
 * - Train: {@link Policy}, {@link Trainer}, {@link defineConfig}, {@link createTask}, {@link defineTask}
 * - Your own loss: `policy.forward`, an {@link Objective}, `policy.backward`, `policy.step`
 * - The kernels alone: {@link Tensor}, {@link tokenStats}, {@link tokenGrad}, {@link complementaryLoss},
 *   {@link complementaryGrad}, {@link ascend}, {@link sample}
 *
 * @packageDocumentation
 */

export { type LoraOptions, type LoraTarget, loraTargets } from './adapter.js';
export { MetricAccumulator } from './algorithm/accumulator.js';
export { type AdvantageOptions, type GroupAdvantages, groupAdvantages } from './algorithm/advantages.js';
export { normalizerOf } from './algorithm/batch.js';
export { type SamplesToForget, samplesToForget } from './algorithm/forgettable.js';
export { EntropyGate, type GateDecision, type GateOptions, movingMeanEntropy, tokenGate } from './algorithm/gate.js';
export { cispo, dapo, drGrpo, type GrpoOptions, grpo, grpoLoss, gspo } from './algorithm/grpo.js';
export type { KlEstimator } from './algorithm/kl.js';
export { type NllOptions, nll, nllLoss } from './algorithm/nll.js';
export { overlongPenalty } from './algorithm/overlong.js';
export type { PolicyLossOptions } from './algorithm/policy-loss.js';
export type { SurrogateName } from './algorithm/surrogate.js';
export type {
  Aggregation,
  GateMode,
  Normalizer,
  Objective,
  ObjectiveResult,
  RatioLevel,
  RatioMode,
  TokenBatch,
} from './algorithm/types.js';
export { type CudaDevice, type CudaStatus, cudaStatus } from './cuda.js';
export { type DeviceInfo, deviceInfo, emptyCache } from './device.js';
export {
  AbortedError,
  BusyError,
  CheckpointError,
  ConfigError,
  DisposedError,
  EepoError,
  HubError,
  InvalidArgumentError,
  InvalidFileError,
  LoadError,
  NativeError,
  NonFiniteError,
  OutOfMemoryError,
  RewardError,
  UnsupportedError,
  VerifierError,
} from './errors.js';
export {
  type BenchmarkOptions,
  type LoadedSet,
  loadBenchmarks,
  loadDataSet,
} from './eval/benchmark-data.js';
export { BENCHMARKS, type Benchmark } from './eval/benchmarks.js';
export {
  type Evaluation,
  type EvaluationOptions,
  type EvaluationRow,
  evaluatePolicy,
} from './eval/evaluate.js';
export { answerClasses, majAtK, type SameAnswers, type Vote } from './eval/majority.js';
export type { MeasureOptions } from './eval/measure.js';
export { passAtK } from './eval/pass-at-k.js';
export type { Estimate } from './eval/statistics.js';
export {
  evaluateBenchmarks,
  type ModelResult,
  readResult,
  type SetResult,
  type SuiteOptions,
} from './eval/suite.js';
export type { ProblemSummary, ResponseStatistics, SetSummary } from './eval/summary.js';
export {
  formatDetails,
  formatResultTable,
  type ResultRow,
  type ResultTable,
  resultTable,
  type TableOptions,
} from './eval/table.js';
export { type TaskSetOptions, taskSet } from './eval/task-set.js';
export type {
  EvaluationProgress,
  EvaluationSet,
  EvaluationTokenizer,
  Judgement,
  Phase,
  ResponseVerdict,
} from './eval/types.js';
export {
  type DownloadOptions,
  download,
  downloadFile,
  type HubOptions,
  type HubProgress,
  modelFolder,
} from './hub/index.js';
export {
  type AscendOptions,
  type AscendReport,
  ascend,
  type ComplementaryGradOptions,
  type ComplementaryGradReport,
  type ComplementaryLossInput,
  type ComplementaryLossReport,
  complementaryGrad,
  complementaryLoss,
  type Reals,
  type SampleOptions,
  type Samples,
  sample,
  type TokenGradOptions,
  type TokenInput,
  type TokenStats,
  type TokenStatsOptions,
  type TokenTargets,
  tokenGrad,
  tokenStats,
} from './kernels.js';
export {
  type CreateOptions,
  type Device,
  type FindNonFiniteOptions,
  type ForgetOptions,
  type ForgetReport,
  type ForwardOptions,
  type GenerateOptions,
  type Generation,
  type LoadOptions,
  type NonFinite,
  Policy,
  type PolicyConfig,
  type PolicyMemory,
  type SaveOptions,
  type SequenceBatch,
  type StepOptions,
  type StepReport,
  type TokenStatistics,
  type WeightDType,
} from './policy.js';
/** Plain references of all kernels, in double precision and TypeScript. */
export * as reference from './reference.js';
export type { ReportOptions } from './report/page.js';
export { type FigureFormat, type WriteReportOptions, type WrittenReport, writeReport } from './report/write.js';
export {
  type Rollout,
  type RolloutOptions,
  type RolloutPhase,
  type RolloutPolicy,
  type RolloutPrompt,
  type RolloutSample,
  twoStageRollout,
  type UnlearnOptions,
} from './rollout.js';
export { keep, scope } from './scope.js';
export {
  type CalculatorAnswer,
  type CalculatorOptions,
  type ChatMessage,
  type CountdownAnswer,
  type CountdownOptions,
  calculator,
  countdown,
  createTask,
  type DataFormat,
  type DatasetOptions,
  type DatasetRules,
  type Demonstration,
  datasetTask,
  defineTask,
  type ErrorPolicy,
  gsm8kTask,
  jsonlTask,
  type MathOptions,
  mathTask,
  type NamedReward,
  type OverlongPolicy,
  type PerSampleRewardFunction,
  type PresetOptions,
  type Problem,
  type PromptOptions,
  type PromptStyle,
  type PromptTokenizer,
  parquetTask,
  type Reward,
  type RewardContext,
  type RewardFunction,
  type RewardInput,
  type Row,
  type Task,
  type TaskDefinition,
  type TaskOptions,
  type TimeoutPolicy,
  type VerifierName,
  verifierReward,
  verlTask,
} from './tasks/index.js';
export {
  type DType,
  type FloatDType,
  Tensor,
  type TensorDevice,
  type TensorOptions,
  type TensorSource,
  tensorMemory,
} from './tensor.js';
export type { PromptEncoder } from './tokenizer/prompts.js';
export type { StoppingTokenizer } from './tokenizer/stop-tokens.js';
export {
  type ChatTemplateOptions,
  type DecodeOptions,
  type DecodeStream,
  type EncodeOptions,
  type EncodePromptOptions,
  type Prompt,
  type RenderedChat,
  type StopToken,
  type TemplateMessage,
  Tokenizer,
  type TokenizerOptions,
} from './tokenizer.js';
export { defineConfig, loadTrainConfig, type TrainConfig, type TrainConfigInput } from './train/config.js';
export type { Metrics } from './train/metrics.js';
export type { Incident } from './train/non-finite.js';
export { type RunSummary, type TrainRunOptions, trainRun } from './train/run.js';
export { cosineSchedule, type SftStep, SftTrainer, type SftTrainerOptions } from './train/sft.js';
export { defineSftConfig, loadSftConfig, type SftConfig } from './train/sft-config.js';
export {
  type Evaluator,
  type Iteration,
  type Preparation,
  type Streaks,
  type TrainablePolicy,
  Trainer,
  type TrainerEvent,
  type TrainerOptions,
  type TrainerPhase,
  type TrainerTokenizer,
  type TrainSample,
} from './train/trainer.js';
export type { ReferencePolicy } from './train/update.js';
export {
  type AnswerComparison,
  compareAnswers,
  type EquivalentOptions,
  type ExtractOptions,
  type ExtractStrategy,
  equivalent,
  extractAnswer,
  type Tolerance,
  type Verdict,
  VerifierPool,
  type VerifierPoolOptions,
  type VerifierProblem,
  type VerifierStats,
  type VerifyItem,
  type VerifyOptions,
  type VerifyOutcome,
  verifierPool,
  verifyMath,
} from './verify/index.js';
export { type WatchOptions, type WatchServer, watchRuns } from './watch/server.js';
