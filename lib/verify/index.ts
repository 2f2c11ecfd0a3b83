/** Is this answer right: find it in the response, then compare it with the gold answer. */
export { equivalent } from './equivalent.js';
export { extractAnswer, lastBoxed } from './extract.js';
export { normalizeAnswer } from './normalize.js';
