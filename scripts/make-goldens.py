#!/usr/bin/env python3
"""Makes test/fixtures/goldens: tiny random models and what transformers says of them (float32, eager attention).

For development only; the tests read what it wrote. Needs torch, transformers and safetensors (CONTRIBUTING.md):

    python scripts/make-goldens.py [OUT] [--only NAME]
    python scripts/make-goldens.py --lora           (test/fixtures/lora: adapters on these models; needs peft too)
    python scripts/make-goldens.py OUT --greedy MODELS   (OUT/greedy.json: 100 tokens for the goldens of other models)

Each model is a folder in Hugging Face layout (bfloat16 weights; the reference used the same rounded ones) with
  golden.json                  cases: ids, log-probs, entropies, 100 greedy tokens after each; loss, five AdamW losses
  golden_tensors.safetensors   logits of every case
  golden_grads.safetensors     the gradient of the first case's mean cross-entropy, every parameter
"""

import argparse
import copy
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

GREEDY = 100
# The smallest lead of a greedy token over the next: rounding in another order must not turn one.
LEAD = 4e-3
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "clip": 1.0}
LENGTHS = (24, 7, 37)

# name: (config class, its values, the rope keys as config.json is to spell them)
# Contexts are 16 or 64 tokens long before scaling, cases and greedy runs go beyond.
MODELS = {
    # multi-head, one layer, untied, old style
    "llama-mha-linear": (
        LlamaConfig,
        dict(vocab_size=41, hidden_size=20, intermediate_size=33, num_hidden_layers=1, num_attention_heads=5,
             num_key_value_heads=5, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False),
        dict(rope_theta=500.0, rope_scaling={"type": "linear", "factor": 2.5}),
    ),
    "llama-gqa-dynamic": (
        LlamaConfig,
        dict(vocab_size=41, hidden_size=24, intermediate_size=23, num_hidden_layers=2, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=16, rms_norm_eps=1e-6, tie_word_embeddings=True),
        dict(rope_theta=10000.0, rope_scaling={"rope_type": "dynamic", "factor": 10.0}),
    ),
    # biases on q, k, v and o; head_dim is not hidden / heads
    "llama-bias-llama3": (
        LlamaConfig,
        dict(vocab_size=43, hidden_size=18, intermediate_size=19, num_hidden_layers=2, num_attention_heads=6,
             num_key_value_heads=3, head_dim=8, max_position_embeddings=256, rms_norm_eps=1e-5,
             tie_word_embeddings=False, attention_bias=True),
        dict(rope_parameters={"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 16}),
    ),
    # five heads on one key and value head, odd sizes, three layers
    "qwen2-mqa-yarn": (
        Qwen2Config,
        dict(vocab_size=131, hidden_size=12, intermediate_size=53, num_hidden_layers=3, num_attention_heads=5,
             num_key_value_heads=1, head_dim=6, max_position_embeddings=64, rms_norm_eps=1e-6,
             tie_word_embeddings=False),
        dict(rope_theta=1000.0,
             rope_scaling={"type": "yarn", "factor": 5.0, "original_max_position_embeddings": 32}),
    ),
    # heads of two, one layer, tied
    "qwen2-mha-narrow": (
        Qwen2Config,
        dict(vocab_size=47, hidden_size=14, intermediate_size=31, num_hidden_layers=1, num_attention_heads=7,
             num_key_value_heads=7, max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=True),
        dict(rope_theta=10000.0),
    ),
    "qwen2-gqa-dynamic": (
        Qwen2Config,
        dict(vocab_size=41, hidden_size=16, intermediate_size=21, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=32, rms_norm_eps=1e-6, tie_word_embeddings=False),
        dict(rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 5.0}),
    ),
    # biases and head norms together; every key of YaRN
    "qwen3-bias-yarn": (
        Qwen3Config,
        dict(vocab_size=41, hidden_size=14, intermediate_size=23, num_hidden_layers=2, num_attention_heads=3,
             num_key_value_heads=3, head_dim=12, max_position_embeddings=256, rms_norm_eps=1e-6,
             tie_word_embeddings=True, attention_bias=True),
        dict(rope_parameters={"rope_type": "yarn", "rope_theta": 50.0, "factor": 16.0, "beta_fast": 4.0,
                              "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False,
                              "original_max_position_embeddings": 16}),
    ),
    "qwen3-gqa-linear": (
        Qwen3Config,
        dict(vocab_size=41, hidden_size=14, intermediate_size=22, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=10, max_position_embeddings=64, rms_norm_eps=1e-6,
             tie_word_embeddings=False),
        dict(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    ),
    "llama-attention-factor": (
        LlamaConfig,
        dict(vocab_size=37, hidden_size=16, intermediate_size=21, num_hidden_layers=1, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True),
        dict(rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "attention_factor": 1.25,
                              "original_max_position_embeddings": 32}),
    ),
}  # fmt: skip


def random_weights(model, generator):
    """Matrices that keep a row's size, norms around 1, biases of some weight; all rounded to bfloat16."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                noise = 0.3 * noise if name.endswith(".bias") else 1 + 0.3 * noise
            elif "embed_tokens" not in name and "lm_head" not in name:
                noise = noise / p.shape[1] ** 0.5
            else:
                noise = noise / 2
            p.copy_(noise.to(torch.bfloat16).float())


def fresh(model):
    """The model as it was loaded: dynamic rope remembers the longest sequence it has seen."""
    return copy.deepcopy(model)


def greedy(model, ids):
    """100 greedy tokens and the smallest lead of one over the runner-up."""
    out = fresh(model).generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False, max_new_tokens=GREEDY, eos_token_id=None,
        pad_token_id=0, return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    top = torch.stack(out.logits).squeeze(1).topk(2).values
    return out.sequences[0, len(ids) :].tolist(), (top[:, 0] - top[:, 1]).min().item()


def digits(values):
    return [float(f"{v:.9g}") for v in values]


def case(model, ids):
    with torch.no_grad():
        logits = fresh(model)(torch.tensor([ids])).logits[0]
    logp = logits.double().log_softmax(-1)
    tokens, lead = greedy(model, ids)
    return {
        "ids": ids,
        "next_logprobs": digits(logp[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()),
        "entropy": digits((-(logp.exp() * logp).sum(-1)).tolist()),
        "greedy": tokens,
    }, logits, lead


def cross_entropy(model, ids):
    logits = model(torch.tensor([ids])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))


def clipped_norm(model):
    return torch.nn.utils.clip_grad_norm_(trained(model).values(), ADAMW["clip"]).item()


def trained(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def training(model, ids):
    """The gradient of the first loss, and the losses of five AdamW steps."""
    model = fresh(model).train()
    optimizer = torch.optim.AdamW(
        trained(model).values(), lr=ADAMW["lr"], betas=ADAMW["betas"], eps=ADAMW["eps"],
        weight_decay=ADAMW["weight_decay"],
    )  # fmt: skip
    losses, grads, norm = [], None, None
    for _ in range(5):
        optimizer.zero_grad()
        loss = cross_entropy(model, ids)
        loss.backward()
        losses.append(loss.item())
        if grads is None:
            grads = {n: p.grad.clone().contiguous() for n, p in trained(model).items()}
        before = clipped_norm(model)
        norm = before if norm is None else norm
        optimizer.step()
    return losses, grads, norm


def attempt(config, seed):
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    random_weights(model, generator)
    cases, tensors, lead = [], {}, float("inf")
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(0, config.vocab_size, (length,), generator=generator).tolist()
        one, logits, least = case(model, ids)
        cases.append(one)
        tensors[f"case{i}.logits"] = logits.contiguous()
        lead = min(lead, least)
    return model, cases, tensors, lead


def save_model(out, model, config, rope):
    out.mkdir(parents=True, exist_ok=True)
    names = dict(model.named_parameters())
    save_file({n: p.detach().to(torch.bfloat16).contiguous() for n, p in names.items()},
              out / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    values = {k: v for k, v in config.to_dict().items() if k in WRITTEN and v is not None}
    values.pop("rope_parameters", None)
    (out / "config.json").write_text(json.dumps({**values, **rope, "dtype": "bfloat16"}, indent=1) + "\n")


WRITTEN = {
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "attention_bias", "hidden_act",
}  # fmt: skip


def make(name, out):
    cls, values, rope = MODELS[name]
    config = cls(**values, **copy.deepcopy(rope), bos_token_id=None, eos_token_id=None, pad_token_id=None)
    config.architectures = [f"{cls.__name__.removesuffix('Config')}ForCausalLM"]
    seed = next(s for s in range(1000) if attempt(config, s)[3] > LEAD)
    model, cases, tensors, lead = attempt(config, seed)
    save_model(out, model, config, rope)
    losses, grads, norm = training(model, cases[0]["ids"])
    save_file(tensors, out / "golden_tensors.safetensors")
    save_file(grads, out / "golden_grads.safetensors")
    golden = {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": seed,
        "lead": float(f"{lead:.3g}"), "cases": cases, "ce_loss": losses[0], "grad_norm": norm,
        "adamw": {**ADAMW, "losses": losses},
    }  # fmt: skip
    (out / "golden.json").write_text(json.dumps(golden) + "\n")
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"{name}: seed {seed}, lead {lead:.2g}, {sum(p.numel() for p in model.parameters())} parameters, {size} bytes")


# base model: how its adapter is
ADAPTERS = {
    "qwen3-bias-yarn": dict(r=3, lora_alpha=5, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                                               "up_proj", "down_proj"]),
    "llama-gqa-dynamic": dict(r=2, lora_alpha=3, target_modules=["v_proj", "q_proj", "up_proj"], use_rslora=True),
}  # fmt: skip


def make_adapter(name, models, out):
    """An adapter with random A and B, written by PEFT, and what PEFT says of base and adapter together."""
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(models / name, attn_implementation="eager", dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[name])).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in trained(model).values():
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5 / 2)
    model.save_pretrained(out / name)
    (out / name / "README.md").unlink()
    ids = json.loads((models / name / "golden.json").read_text())["cases"][0]["ids"]
    with torch.no_grad():
        logits = fresh(model)(torch.tensor([ids])).logits[0]
    losses, grads, norm = training(model, ids)
    save_file({"logits": logits.contiguous()}, out / name / "golden_tensors.safetensors")
    save_file({n.replace(".default", ""): g for n, g in grads.items()}, out / name / "golden_grads.safetensors")
    golden = {"ids": ids, "grad_norm": norm, "adamw": {**ADAMW, "losses": losses}}
    (out / name / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: adapter of {sum(p.numel() for p in trained(model).values())} parameters, losses {losses}")


def greedy_of(models, out):
    """100 greedy tokens after every case of the goldens that other models came with, where no lead is too small."""
    result = {}
    for golden in sorted(models.glob("*/golden.json")):
        cases = json.loads(golden.read_text()).get("cases")
        if not cases:
            continue
        model = AutoModelForCausalLM.from_pretrained(golden.parent, attn_implementation="eager", dtype=torch.float32)
        result[golden.parent.name] = [
            {"case": i, "greedy": tokens, "lead": lead}
            for i, (tokens, lead) in enumerate(greedy(model.eval(), c["ids"]) for c in cases)
            if lead > LEAD / 10
        ]
    (out / "greedy.json").write_text(json.dumps(result) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", default="test/fixtures/goldens", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=sorted(MODELS))
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--greedy", type=pathlib.Path, metavar="MODELS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.greedy:
        greedy_of(options.greedy, options.out)
        return
    if options.lora:
        for name in ADAPTERS:
            make_adapter(name, options.out, options.out.parent / "lora")
        return
    for name in options.only or MODELS:
        make(name, options.out / name)


if __name__ == "__main__":
    main()
