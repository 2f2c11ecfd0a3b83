/** Is this answer right: find it in the response, then compare it with the gold answer. */
export {
  type AnswerComparison,
  compareAnswers,
  type EquivalentOptions,
  equivalent,
  type Tolerance,
} from './equivalent.js';
export { type ExtractOptions, type ExtractStrategy, extractAnswer, lastBoxed, statedAnswer } from './extract.js';
export {
  goldAnswer,
  judge,
  type Verdict,
  type VerifyItem,
  type VerifyOptions,
  type VerifyOutcome,
} from './judge.js';
export { verifyMath } from './math.js';
export {
  VerifierPool,
  type VerifierPoolOptions,
  type VerifierProblem,
  type VerifierStats,
  verifierPool,
} from './pool.js';
