/** Is this answer right: find it in the response, then compare it with the gold answer. */
export { equivalent } from './equivalent.js';
export { extractAnswer, lastBoxed } from './extract.js';
export { goldAnswer, judge, type Verdict, type VerifyItem, type VerifyOutcome } from './judge.js';
export { verifyMath } from './math.js';
export { normalizeAnswer } from './normalize.js';
