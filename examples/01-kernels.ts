/**
 * The fused kernels on tensors of your own: log-probabilities, entropies, gradients and the unlearning step, without a
 * model and without ever holding the softmax.
 *
 *     node dist/examples/01-kernels.js
 */
import { ascend, complementaryLoss, sample, scope, Tensor, tokenGrad, tokenStats } from 'eepo';

await scope(async () => {
  // Two sequences of three tokens over a vocabulary of five.
  const logits = Tensor.from(
    Float32Array.from({ length: 6 * 5 }, (_, i) => 3 * Math.sin(i)),
    { shape: [6, 5], device: 'auto' },
  );
  const offsets = [0, 3, 6];

  // One pass over the logits: the drawn token, its log-prob and the row's entropy.
  const drawn = await sample(logits, { seed: 7 });
  const before = await tokenStats(logits, drawn.tokens);

  // Eq. 9-10 of the paper: ascending this loss makes the drawn tokens less likely, where the gate is open.
  const { loss, a, openTokens } = await complementaryLoss({
    logprob: before.logprob,
    entropy: before.entropy,
    oneMinusP: before.oneMinusP,
    offsets,
    alpha: Number.POSITIVE_INFINITY,
  });

  // Any loss of (log-prob, entropy) is two numbers per token; tokenGrad turns them into the gradient of the logits, in
  // their place, so it is given a copy.
  const gradient = await tokenGrad(await logits.clone(), drawn.tokens, { a });
  const forgotten = Tensor.zeros([6, 5], { device: logits.device });
  const report = await ascend([logits], [gradient], { eta: 2, into: [forgotten] });
  const after = await tokenStats(forgotten, drawn.tokens);

  const [p, q] = [await before.logprob.data(), await after.logprob.data()];
  console.log(
    `L = ${loss.toFixed(4)}, ${openTokens} open tokens, ${report.changed} of ${report.elements} logits changed`,
  );
  console.log('log-prob before', Array.from(p, (l) => l.toFixed(3)).join(' '));
  console.log('log-prob after ', Array.from(q, (l) => l.toFixed(3)).join(' '));
});
