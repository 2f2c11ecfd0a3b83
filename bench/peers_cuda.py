"""PyTorch, Liger-Kernel, verl and flash-attn on a GPU beside eepo's kernels; started by `npx eepo bench kernels
--device cuda`, which talks to it (see peers/serve.py).

Besides the peers of peers_cpu.py:

    flash-attn      flash_attn.ops.triton.cross_entropy: log-prob, gradient in place (no entropy)
    liger           cross entropy (Triton): gradient in place, computed in the forward; fused with the head: in chunks
    liger GRPO      its GRPO loss: from logits in place (Triton), and fused with the head (chunks, torch.compile)
    liger scaled    fused_linear_scaled_cross_entropy: log-prob and entropy from hidden states (CuTe on Hopper)
    verl            verl.utils.kernel.linear_cross_entropy: log-prob and entropy from hidden states (Triton)

Whatever cannot be imported is reported with the reason and left out. --liger and --verl name checkouts; verl's kernels
are then imported without verl's own package, which wants ray and more.
"""

import argparse
import importlib
import math
import os
import sys
import types
from typing import Callable

import torch

from peers.forms import sequence_length, unlearning_loss
from peers.head import HeadWorkload
from peers.logits import LogitsWorkload
from peers.serve import Bench, refuse, serve
from peers.workload import Case


def import_liger(folder):
    if folder:
        source = os.path.join(folder, "src")
        sys.path.insert(0, source if os.path.isdir(source) else folder)
    return {
        "cross_entropy": importlib.import_module("liger_kernel.transformers.functional").liger_cross_entropy,
        "linear": importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy,
        "grpo": importlib.import_module("liger_kernel.transformers.grpo_loss").triton_grpo_loss,
        "logprob": importlib.import_module("liger_kernel.ops.grpo_loss").fused_selective_log_softmax,
        "linear_grpo": importlib.import_module("liger_kernel.chunked_loss.grpo_loss").LigerFusedLinearGRPOLoss,
    }


def import_liger_scaled(_folder):
    name = "liger_kernel.ops.fused_linear_scaled_cross_entropy"
    return importlib.import_module(name).LigerFusedLinearScaledCrossEntropyFunction.apply


def import_verl(folder):
    if folder:
        for name in ("verl", "verl.utils"):
            package = types.ModuleType(name)
            package.__path__ = [os.path.join(folder, *name.split("."))]
            sys.modules[name] = package
    kernels = importlib.import_module("verl.utils.kernel.kernels")
    if not getattr(kernels, "HAVE_TRITON", True):
        raise ImportError("triton is not installed")
    return importlib.import_module("verl.utils.kernel.linear_cross_entropy").linear_cross_entropy


def import_flash(_folder):
    return importlib.import_module("flash_attn.ops.triton.cross_entropy").cross_entropy_loss


def import_all(liger, verl) -> tuple[dict, dict]:
    """What could be imported, and why the rest could not."""
    wanted = {
        "flash-attn": (import_flash, None),
        "liger": (import_liger, liger),
        "liger scaled": (import_liger_scaled, liger),
        "verl": (import_verl, verl),
    }
    found, missing = {}, {}
    for name, (load, folder) in wanted.items():
        try:
            found[name] = load(folder)
        except Exception as error:  # whatever a package raises while it is imported
            missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return found, missing


class CudaLogits(LogitsWorkload):
    def __init__(self, bench, spec):
        super().__init__(bench, spec)
        self.over = torch.empty_like(self.logits).requires_grad_()  # what in-place gradients overwrite
        if "flash-attn" in bench.found:
            self.add_flash(bench.found["flash-attn"])
        if "liger" in bench.found:
            self.add_liger(bench.found["liger"])

    def restore(self) -> None:
        self.over.grad = None
        self.over.data.copy_(self.logits)

    def add_in_place(self, peer: str, name: str, loss: Callable, coefficient: Callable) -> None:
        def run():
            loss(self.over).backward()
            return self.over.grad

        self.add(peer, name, Case(run, lambda grad: self.gradient_errors(grad, coefficient), self.restore))

    def add_flash(self, cross_entropy) -> None:
        logprob = torch.no_grad()(lambda: (-cross_entropy(self.logits, self.targets)[0], None))
        self.add("flash-attn", "tokenStats", Case(logprob, self.stats_errors))

        def logprob_of(z):
            return -cross_entropy(z, self.targets, inplace_backward=True)[0]

        self.add_token_grad("flash-attn", logprob_of)
        self.add_unlearning("flash-attn", logprob_of)

    def add_token_grad(self, peer: str, logprob_of: Callable) -> None:
        a_of = lambda row, exact: (float(self.a[row]), 0.0)
        self.add_in_place(peer, "tokenGrad", lambda z: (self.a * logprob_of(z)).sum(), a_of)

    def add_unlearning(self, peer: str, logprob_of: Callable) -> None:
        def loss(z):
            return unlearning_loss(logprob_of(z), self.entropy, math.inf, self.length)

        self.add_in_place(peer, "unlearn", loss, self.unlearning_coefficient(math.inf))

    def add_liger(self, liger: dict) -> None:
        def logprob_of(z):
            return -liger["cross_entropy"](z, self.targets, reduction="none")

        self.add_token_grad("liger", logprob_of)
        self.add_unlearning("liger", logprob_of)

        # One sequence whose last row has no token: its layout is [batch, length + 1, vocab].
        tokens = self.targets[None, :-1].contiguous()
        logprob = lambda: (liger["logprob"](self.logits[None], tokens, temperature=1.0)[0], None)
        self.add("liger GRPO", "tokenStats", Case(torch.no_grad()(logprob), self.stats_errors))
        advantage = torch.ones(1, device=self.device)

        def grpo(z):
            how = dict(temperature=1.0, beta=0.0, inplace=True, loss_type="grpo", reduce=False)
            return liger["grpo"](z[None], None, None, tokens, advantage, **how)[0].sum()

        last = len(self.targets) - 1
        self.add_in_place("liger GRPO", "tokenGrad", grpo, lambda row, exact: (0.0 if row == last else -1.0, 0.0))


class CudaHead(HeadWorkload):
    def __init__(self, bench, spec):
        super().__init__(bench, spec)
        if "verl" in bench.found:
            verl = bench.found["verl"]
            self.add_fused("verl", lambda hidden, head: verl(hidden, head, self.targets, 1.0, "none"))
        if "liger scaled" in bench.found:
            scaled = bench.found["liger scaled"]

            def stats(hidden, head):
                nll, entropy = scaled(hidden, head, self.targets, 1.0, -100, 1, True)
                return -nll, entropy

            self.add_fused("liger scaled", stats)
        if "liger" in bench.found:
            self.add_liger(bench.found["liger"])

    def add_fused(self, peer: str, stats: Callable) -> None:
        """For a function (hidden, head) -> (log-prob, entropy) with a backward."""
        run = torch.no_grad()(lambda: stats(self.hidden, self.head))
        self.add(peer, "tokenStats", Case(run, self.stats_errors))

        def loss(a, b):
            def of(hidden, head):
                logprob, entropy = stats(hidden, head)
                return (a * logprob).sum() if b is None else (a * logprob + b * entropy).sum()

            return of

        self.add_gradient(peer, "tokenGrad", self.a, None, loss(self.a, None))
        self.add_gradient(peer, "tokenGrad, b", self.a, self.b, loss(self.a, self.b))
        self.add_gradient(peer, "tokenGrad, some active", self.some_a, None, loss(self.some_a, None))
        self.add_unlearning(peer, lambda hidden, head: stats(hidden, head)[0])

    def add_liger(self, liger: dict) -> None:
        def loss(a):
            def of(hidden, head):
                nll = liger["linear"](hidden, head, self.targets, reduction="none", accum_dtype=torch.float32)
                return -(a * nll).sum()

            return of

        self.add_gradient("liger", "tokenGrad", self.a, None, loss(self.a))
        self.add_gradient("liger", "tokenGrad, some active", self.some_a, None, loss(self.some_a))

        how = dict(reduction="none", accum_dtype=torch.float32)
        self.add_unlearning("liger", lambda hidden, head: -liger["linear"](hidden, head, self.targets, **how))

        rows = len(self.targets)
        length = sequence_length(rows, 512)
        advantages = torch.ones(rows // length, device=self.device)
        mask = torch.ones(rows // length, length, device=self.device)
        grpo = liger["linear_grpo"](beta=0.0, use_ref_model=False, temperature=1.0)

        def grpo_loss(hidden, head):
            batch = hidden.view(rows // length, length, -1)
            return grpo(batch, head, self.targets.view(-1, length), mask, advantages)[0]

        uniform = torch.full((rows,), -1.0 / rows, device=self.device)
        self.add_gradient("liger GRPO", "tokenGrad", uniform, None, grpo_loss)


class CudaBench(Bench):
    kinds = {**Bench.kinds, "logits": CudaLogits, "head": CudaHead}

    def __init__(self, found: dict, compile: bool):
        super().__init__("cuda", compile)
        self.found = found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--liger", help="a checkout of Liger-Kernel")
    parser.add_argument("--verl", help="a checkout of verl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not torch.cuda.is_available():
        refuse(f"torch {torch.__version__} of this Python finds no GPU")
        return
    torch.manual_seed(0)
    found, missing = import_all(args.liger, args.verl)
    serve(CudaBench(found, compile=not args.no_compile), missing)


if __name__ == "__main__":
    main()
