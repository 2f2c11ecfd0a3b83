"""The same iteration as `npx eepo bench step --algorithm grpo`, in TRL's GRPOTrainer, for a comparison on one machine.

    python bench/trl_step.py --model DIR [--prompts 16] [--group 8] [--max-new 64] [--threads 2] [--iterations 10]

Needs torch, transformers, trl and datasets. Prompts and rewards are random; every response has its full length; no KL
penalty; one optimizer step per iteration.
"""

import argparse
import json
import random
import statistics
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """The wall time of every step, generation included."""

    def __init__(self):
        self.times = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begin = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.times.append(time.perf_counter() - self.begin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random.seed(0)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    words = ["once", "upon", "a", "time", "there", "was", "little", "dog", "girl", "tree", "sun", "play"]
    prompts = [" ".join(random.choices(words, k=10)) for _ in range(args.prompts)]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)

    clock = Clock()
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [float(random.random() < 0.5) for _ in completions],
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        callbacks=[clock],
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=args.prompts * args.group,
            num_generations=args.group,
            max_completion_length=args.max_new,
            generation_kwargs={"min_new_tokens": args.max_new},
            beta=0.0,
            learning_rate=1e-6,
            max_steps=args.warmup + args.iterations,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    times = [1000 * t for t in clock.times[args.warmup :]]
    print(json.dumps({"ms": {"min": min(times), "median": statistics.median(times)}, "threads": args.threads}))


if __name__ == "__main__":
    main()
