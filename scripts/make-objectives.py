#!/usr/bin/env python3
"""Makes test/fixtures/objectives.json: policy losses and their gradients by torch's automatic differentiation, in float64.

For development only; the tests read what it wrote. Needs torch, and trl for the cases of its own trainer:

    python scripts/make-objectives.py

Two kinds of cases, all on padded [sequences, longest] matrices with a mask, as every Python trainer has them:
  torch   the published formula of each objective, written down here once more
  trl     the loss that trl.GRPOTrainer itself computes
A case holds its batch (by name), the options as lib/algorithm/policy-loss.ts calls them, the normalizer, the loss,
a = dL/dl and b = dL/dH of every token (the leaves of the graph).
"""

import collections
import itertools
import json
import pathlib
import random
import types

import torch

torch.set_default_dtype(torch.float64)
OUT = pathlib.Path(__file__).resolve().parent.parent / "test" / "fixtures" / "objectives.json"

GRPO = dict(surrogate="ppo", clipLow=0.2, clipHigh=0.2, clipHighStage2=None, dualClip=None, klCoef=1e-4, klEstimator="k3",
            entropyCoef=1e-5, aggregation="token-mean", ratio="behavior", ratioLevel="token", decoupledCap=2.0,
            decoupledLevel="token", stage2Weight=1.0)
OBJECTIVES = {
    "grpo": {},
    "drGrpo": dict(aggregation="seq-mean-token-sum-norm", klCoef=0.0, entropyCoef=0.0),
    "dapo": dict(clipHigh=0.28, klCoef=0.0, entropyCoef=0.0),
    "gspo": dict(ratioLevel="sequence", aggregation="seq-mean-token-mean", clipLow=3e-4, clipHigh=4e-4, klCoef=0.0,
                 entropyCoef=0.0),
    "cispo": dict(surrogate="cispo", clipLow=1.0, clipHigh=4.0, klCoef=0.0, entropyCoef=0.0),
}
AGGREGATIONS = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


def float32(values):
    """What a Float32Array will hold, exactly."""
    return torch.tensor(values).to(torch.float32).to(torch.float64)


def make_batch(name, lengths, spread, seed, masked=0.0):
    """Log-probs that lie `spread` nats apart, advantages of every sign, both stages."""
    g = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    rand = lambda n: torch.rand(n, generator=g)
    l = float32((-4 * rand(tokens) - 0.05).tolist())
    near = lambda: float32((l + spread * (2 * rand(tokens) - 1)).tolist())
    advantage = float32([[1.5, -1.0, 0.0, 0.25, -0.5][k % 5] for k in range(len(lengths))])
    mask = (rand(tokens) >= masked).to(torch.int64)
    return dict(name=name, lengths=lengths, logprob=l, entropy=float32((2 * rand(tokens)).tolist()), behaviorLogprob=near(),
                policyLogprob=near(), refLogprob=near(), advantage=advantage,
                stage=[1 + k % 2 if k < 4 else 2 for k in range(len(lengths))], mask=mask)


BATCHES = [
    make_batch("near", [3, 1, 4, 2, 3], 0.3, 1),
    make_batch("far", [2, 5, 1, 3, 2], 2.5, 2),
    make_batch("extreme", [2, 2, 3, 1, 2], 40.0, 3),
    make_batch("masked", [4, 3, 2, 5, 3], 0.4, 4, masked=0.35),
]


def padded(batch, key):
    rows = torch.split(batch[key], batch["lengths"])
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def padded_mask(batch):
    here = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in batch["lengths"]], batch_first=True)
    return here * padded(batch, "mask")


def flat(batch, matrix):
    return [matrix[k, t].item() for k, n in enumerate(batch["lengths"]) for t in range(n)]


def leaves(batch):
    l = padded(batch, "logprob").requires_grad_()
    h = padded(batch, "entropy").requires_grad_()
    return l, h


def kl_term(name, l, ref):
    if name == "k1":
        return l - ref
    if name == "k2":
        return (l - ref).square() / 2
    d = torch.clamp(ref - l, -20, 20)
    k3 = torch.clamp(torch.exp(d) - d - 1, max=10)
    if name == "k3":
        return k3
    k2 = (l - ref).square() / 2
    return k3.detach() + k2 - k2.detach()


def formula(batch, o, normalizer):
    """The loss and its leaves."""
    l, h = leaves(batch)
    mask = padded_mask(batch)
    advantage = batch["advantage"].unsqueeze(1)
    stage2 = torch.tensor(batch["stage"]).unsqueeze(1) == 2
    behavior, policy = padded(batch, "behaviorLogprob"), padded(batch, "policyLogprob")
    log_ratio = l - (behavior if o["ratio"] == "behavior" else policy)
    if o["ratioLevel"] == "sequence":  # GSPO-token: the value of s_k, the gradient of the token's own log-prob
        s = ((log_ratio * mask).sum(1) / mask.sum(1).clamp(min=1)).detach().unsqueeze(1)
        log_ratio = s + l - l.detach()
    r = torch.exp(torch.clamp(log_ratio, -20, 20))
    high = o["clipHigh"] if o["clipHighStage2"] is None else torch.where(stage2, o["clipHighStage2"], o["clipHigh"])
    clipped = torch.minimum(torch.clamp(r, min=1 - o["clipLow"]), torch.as_tensor(1 + high))
    if o["surrogate"] == "cispo":
        loss = -clipped.detach() * advantage * l
    else:
        loss = -torch.minimum(r * advantage, clipped * advantage)
        if o["dualClip"] is not None:
            loss = torch.where(advantage < 0, torch.minimum(loss, -o["dualClip"] * advantage), loss)
    if o["ratio"] == "decoupled":
        weight = policy - behavior
        if o["decoupledLevel"] == "sequence":
            weight = torch.clamp((weight * mask).sum(1), -20, 20).unsqueeze(1)
        loss = loss * torch.clamp(torch.exp(weight), max=o["decoupledCap"])
    loss = loss + o["klCoef"] * kl_term(o["klEstimator"], l, padded(batch, "refLogprob")) - o["entropyCoef"] * h
    loss = loss * torch.where(stage2, o["stage2Weight"], 1.0) * mask
    n, s, longest = normalizer["tokens"], normalizer["sequences"], normalizer["maxTokens"]
    per_sequence = loss.sum(1)
    if o["aggregation"] == "token-mean":
        total = per_sequence.sum() / n
    elif o["aggregation"] == "seq-mean-token-mean":
        total = (per_sequence / mask.sum(1).clamp(min=1)).sum() / s
    elif o["aggregation"] == "seq-mean-token-sum":
        total = per_sequence.sum() / s
    else:
        total = per_sequence.sum() / s / longest
    return total, l, h


def digits(values):
    return [float(f"{v:.9g}") for v in values]


def case(kind, objective, batch, options, normalizer, total, l, h):
    total.backward()
    zeros = torch.zeros_like(l)
    return dict(kind=kind, objective=objective, batch=batch["name"], options=options, normalizer=normalizer,
                loss=float(f"{total.item():.12g}"), a=digits(flat(batch, l.grad if l.grad is not None else zeros)),
                b=digits(flat(batch, h.grad if h.grad is not None else zeros)))


def torch_cases():
    """Every objective x aggregation x KL estimator, on every batch; the other options are drawn."""
    draw = random.Random(5)
    extras = [
        {}, dict(dualClip=3.0), dict(stage2Weight=0.25), dict(clipHighStage2=3.0),
        dict(ratio="decoupled", decoupledLevel="sequence"), dict(entropyCoef=0.03), dict(ratioLevel="sequence"),
        dict(clipLow=0.1, clipHigh=0.4), dict(dualClip=1.5, clipHighStage2=0.05, stage2Weight=2.0),
    ]
    batches = itertools.cycle(BATCHES)
    for objective, aggregation, kl in itertools.product(OBJECTIVES, AGGREGATIONS, [None, "k1", "k2", "k3", "k3+"]):
        extra = dict(draw.choice(extras))
        if objective == "cispo":
            extra.pop("dualClip", None)
        options = dict(aggregation=aggregation, ratio=draw.choice(["behavior", "policy", "decoupled"])) | extra
        options |= dict(klCoef=0.0) if kl is None else dict(klCoef=0.2, klEstimator=kl)
        batch = next(batches)
        lengths = padded_mask(batch).sum(1)
        # of a mini-batch that has more in it than this micro-batch
        normalizer = dict(tokens=int(lengths.sum()) + 5, sequences=int((lengths > 0).sum()) + 1, maxTokens=8)
        full = {**GRPO, **OBJECTIVES[objective], **options}
        yield case("torch", objective, batch, options, normalizer, *formula(batch, full, normalizer))


def trl_loss(batch, **settings):
    """What trl.GRPOTrainer computes of log-probs and entropies that are given to it."""
    from trl import GRPOTrainer

    l, h = leaves(batch)
    mask = padded_mask(batch)
    args = types.SimpleNamespace(delta=settings["delta"], use_bias_correction_kl=False, steps_per_generation=1)
    accelerator = types.SimpleNamespace(num_processes=1, sync_gradients=True, gather=lambda x: x,
                                        gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x)
    trainer = types.SimpleNamespace(
        args=args, accelerator=accelerator, model=types.SimpleNamespace(training=True), aux_loss_enabled=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, beta=settings["beta"], loss_type=settings["loss_type"],
        importance_sampling_level=settings["level"], epsilon_low=settings["low"], epsilon_high=settings["high"],
        use_vllm=False, current_gradient_accumulation_steps=1, max_completion_length=8, use_adaptive_entropy=False,
        _entropy_bonus_enabled=settings["entropy"] != 0, entropy_coef=settings["entropy"],
        _metrics={"train": collections.defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (l, h, None),
    )
    none = torch.zeros(len(batch["lengths"]), 0, dtype=torch.int64)
    inputs = dict(prompt_ids=none, prompt_mask=none, completion_ids=torch.zeros_like(mask, dtype=torch.int64),
                  completion_mask=mask, advantages=batch["advantage"], old_per_token_logps=padded(batch, "behaviorLogprob"),
                  ref_per_token_logps=padded(batch, "refLogprob"), num_items_in_batch=mask.sum())
    return GRPOTrainer._compute_loss(trainer, None, inputs), l, h


TRL = {
    "grpo": ("grpo", dict(aggregation="seq-mean-token-mean")),
    "bnpo": ("grpo", dict(aggregation="token-mean")),
    "dr_grpo": ("drGrpo", {}),
    "dapo": ("dapo", {}),
    "cispo": ("cispo", {}),
}


def trl_cases():
    for loss_type, level, (beta, delta) in itertools.product(TRL, ["token", "sequence"], [(0.0, None), (0.1, None), (0.0, 2.0)]):
        if loss_type == "cispo" and delta is not None:
            continue
        objective, mapped = TRL[loss_type]
        # GSPO is 'grpo' with ratios of sequences; the bonus of TRL is a token mean whatever the loss is
        entropy = 0.02 if loss_type in ("bnpo", "dapo", "cispo") else 0.0
        low, high = (0.2, 5.0) if loss_type == "cispo" else (0.2, 0.28)
        options = dict(mapped, ratioLevel=level, klCoef=beta, entropyCoef=entropy, dualClip=delta,
                       clipLow=1.0 if loss_type == "cispo" else low, clipHigh=high - 1 if loss_type == "cispo" else high)
        for batch in (BATCHES[0], BATCHES[3]) if beta else (BATCHES[0], BATCHES[1], BATCHES[3]):
            lengths = padded_mask(batch).sum(1)
            if (lengths == 0).any():
                raise SystemExit("TRL counts sequences without tokens; choose another mask")
            normalizer = dict(tokens=int(lengths.sum()), sequences=len(batch["lengths"]), maxTokens=8)
            result = trl_loss(batch, loss_type=loss_type, level=level, beta=beta, delta=delta, entropy=entropy, low=low,
                              high=high)
            yield case("trl", objective, batch, options, normalizer, *result)


def main():
    batches = {}
    for batch in BATCHES:
        row = {k: (v.tolist() if isinstance(v, torch.Tensor) else v) for k, v in batch.items() if k != "name"}
        batches[batch["name"]] = {k: (digits(v) if k.endswith(("rob", "opy")) else v) for k, v in row.items()}
    cases = [*torch_cases(), *trl_cases()]
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    text = '{"batches":%s,\n"cases":[\n%s\n]}\n' % (json.dumps(batches, separators=(",", ":")), lines)
    OUT.write_text(text)
    print(f"{OUT.name}: {len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
