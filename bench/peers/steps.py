"""PyTorch on the complementary loss alone, and on a model's parameters."""

import torch

from peers.exact import worst
from peers.forms import EPS_HIGH, EPS_LOW, sequence_length, unlearning_loss, window_mean
from peers.workload import Case, Workload


class LossWorkload(Workload):
    LENGTH = 512

    def __init__(self, bench, spec: dict):
        super().__init__(bench)
        tokens = spec["tokens"]
        self.length = sequence_length(tokens, self.LENGTH)
        t = torch.arange(tokens, dtype=torch.float64)
        frac = lambda i: ((i + 0.5) * 0.7548776662466927).frac()
        entropy = 0.1 * 60 ** frac(torch.floor(t / 8))
        self.entropy = entropy.float().to(self.device)
        self.logprob = (torch.log1p(-frac(7 * t + 3)) * entropy - 1e-4).float().to(self.device).requires_grad_()
        for peer in ("eager", "compile") if bench.compile else ("eager",):
            loss = self.maybe_compiled(peer, lambda l: unlearning_loss(l, self.entropy, 0.3, self.length))
            self.add(peer, "complementaryLoss", Case(self.run_of(loss), self.errors_of, self.clear))

    def clear(self):
        self.logprob.grad = None

    def run_of(self, loss):
        def run():
            value = loss(self.logprob)
            value.backward()
            return value.detach(), self.logprob.grad

        return run

    def errors_of(self, result) -> dict:
        value, grad = result
        logprob = self.logprob.detach().double().requires_grad_()
        gate = window_mean(self.entropy.double(), self.length) < 0.3
        p = logprob.exp().clamp(EPS_LOW, 1 - EPS_HIGH)
        exact = (gate * torch.log1p(-p)).sum() / len(logprob)
        exact.backward()
        active = logprob.grad != 0
        off = (grad.double() - logprob.grad).abs()[active] / logprob.grad.abs()[active]
        return {"loss": abs(float(value) / float(exact) - 1), "a": float(off.max()) if len(off) else 0.0}


class WeightsWorkload(Workload):
    ETA = 3e-3
    ADAMW = dict(lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    def __init__(self, bench, spec: dict):
        super().__init__(bench)
        sizes = self.sizes(spec["elements"])
        make = lambda scale: [torch.randn(n, device=self.device) * scale for n in sizes]
        self.params, self.grads = make(0.02), make(0.1)
        self.floats = [torch.zeros_like(p) for p in self.params]
        self.halves = [torch.zeros_like(p, dtype=torch.bfloat16) for p in self.params]
        self.add_steps()
        self.add_adamw("eager", foreach=True)
        self.add_adamw("fused", fused=True)

    @staticmethod
    def sizes(elements: int) -> list[int]:
        sizes, left = [], elements

        def take(size):
            nonlocal left
            taken = min(left, max(16, size // 16 * 16))
            if taken > 0:
                sizes.append(taken)
            left -= taken

        take(elements // 4)
        while left > 0:
            take(elements // 96)
            take(min(2048, elements // 1024))
        return sizes

    def add_steps(self) -> None:
        def step():
            return torch._foreach_add(self.params, self.grads, alpha=self.ETA)

        def into_floats():
            torch._foreach_copy_(self.floats, step())
            return self.floats

        def into_halves():
            torch._foreach_copy_(self.halves, step())
            return self.halves

        def stochastic():
            for half, value in zip(self.halves, step()):
                bits = value.view(torch.int32) + torch.randint_like(value, 1 << 16, dtype=torch.int32)
                half.copy_((bits & -65536).view(torch.float32))
            return self.halves

        def restore(into):
            def run():
                torch._foreach_copy_(into, self.params)
                return into

            return run

        stepped = lambda got: self.errors_of(got, lambda p, g: p + self.ETA * g)
        kept = lambda got: self.errors_of(got, lambda p, g: p)
        self.add("eager", "ascend float32", Case(into_floats, stepped))
        self.add("eager", "ascend bfloat16", Case(into_halves, stepped))
        self.add("eager", "ascend bfloat16 stochastic", Case(stochastic, stepped))
        self.add("eager", "restore float32", Case(restore(self.floats), kept))
        self.add("eager", "restore bfloat16", Case(restore(self.halves), kept))

    def errors_of(self, got, exact, least: float = 1e-6) -> dict:
        errors: dict = {}
        for x, p, g in zip(got[:8], self.params, self.grads):
            x, right = x[: 1 << 22].double(), exact(p[: 1 << 22].double(), g[: 1 << 22].double())
            worst(errors, "into", ((x - right).abs() / right.abs().clamp_min(least)).max())
        return errors

    def add_adamw(self, peer: str, **how) -> None:
        lazily: dict = {}

        def reset():
            if not lazily:
                params = [p.clone().requires_grad_() for p in self.params]
                for p, g in zip(params, self.grads):
                    p.grad = g * 0.5
                lazily["params"], lazily["optimizer"] = params, torch.optim.AdamW(params, **self.ADAMW, **how)
                lazily["optimizer"].step()  # makes the state
            with torch.no_grad():
                for p, origin, g in zip(lazily["params"], self.params, self.grads):
                    state = lazily["optimizer"].state[p]
                    p.copy_(origin)
                    state["exp_avg"].copy_(g)
                    torch.mul(g, g, out=state["exp_avg_sq"])
                    state["step"].fill_(9)

        def run():
            lazily["optimizer"].step()
            return lazily["params"]

        def exact(p, g):
            b1, b2 = self.ADAMW["betas"]
            m = (g * b1 + 0.5 * g * (1 - b1)) / (1 - b1**10)
            v = (g * g * b2 + 0.25 * g * g * (1 - b2)) / (1 - b2**10)
            lr = self.ADAMW["lr"]
            return p * (1 - lr * self.ADAMW["weight_decay"]) - lr * m / (v.sqrt() + self.ADAMW["eps"])

        errors = lambda got: {"param": self.errors_of([p.detach() for p in got], exact, 1e-3)["into"]}
        self.add(peer, "adamw", Case(run, errors, reset))
