"""What peers_cpu.py and peers_cuda.py share: the data, PyTorch's own forms of the kernels, float64, and the protocol.

`npx eepo bench kernels` starts one of them and asks it line by line, in JSON, between its own measurements:

    {"open": {"kind": "logits", "rows": 256, "vocab": 151936, "dtype": "float32"}}  ->  {"offer": {"eager": [...], ...}}
    {"close": true}                 ->  {}                  frees the data
    {"run": NAME, "peer": PEER}     ->  {"ms": ...}
    {"memory": NAME, "peer": PEER}  ->  {"bytes": ...}      beyond the data, at the highest
    {"errors": NAME, "peer": PEER}  ->  {"errors": {...}}   against float64
    anything that fails             ->  {"error": ...}

The data are those of native/bench/rows.h, so a peer sees rows of the same entropies as we do.
"""

import ctypes
import gc
import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F

LEVELS = 64
TOKENS_PER_SEQUENCE = 256
EPS_LOW, EPS_HIGH = 1e-6, 1e-5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


# ---- data: see native/bench/rows.h ------------------------------------------------------------------------------------


def spread(i: int) -> float:
    x = (i + 0.5) * 0.7548776662466927
    return x - math.floor(x)


def _zipf_entropies(exponents: torch.Tensor, vocab: int) -> torch.Tensor:
    """The entropy of p_k ~ k^-s for each s: the first terms added, the others integrated."""
    ranks = torch.arange(1, min(vocab, 4096) + 1, dtype=torch.float64)
    counts = torch.ones_like(ranks)
    left, end, middles, widths = 4096.5, vocab + 0.5, [], []
    while left < end:
        right = min(end, left * 1.002)
        middles.append((left + right) / 2)
        widths.append(right - left)
        left = right
    log_k = torch.cat([ranks, torch.tensor(middles, dtype=torch.float64)]).log()
    counts = torch.cat([counts, torch.tensor(widths, dtype=torch.float64)])
    terms = counts * torch.exp(-exponents[:, None] * log_k)
    return terms.sum(1).log() + exponents * (terms * log_k).sum(1) / terms.sum(1)


class ZipfRows:
    def __init__(self, vocab: int, turns: int = 1 << 30):
        self.vocab, self.turns = vocab, turns
        self.multiplier = max(1, int(0.6180339887498949 * vocab))
        while math.gcd(self.multiplier, vocab) != 1:
            self.multiplier += 1
        highest = min(6.0, 0.9 * math.log(vocab))
        lowest = min(0.1, highest / 2)
        at = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
        self.entropies = lowest * (highest / lowest) ** at
        low, high = torch.zeros(LEVELS, dtype=torch.float64), torch.full((LEVELS,), 60.0, dtype=torch.float64)
        for _ in range(60):
            middle = (low + high) / 2
            above = _zipf_entropies(middle, vocab) > self.entropies
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        self.exponents = (low + high) / 2

    def level(self, row: int) -> int:
        return row * 37 % LEVELS

    def exponent(self, row: int) -> float:
        return float(self.exponents[self.level(row)])

    def turn(self, row: int) -> int:
        return row % self.turns * 40503 % self.vocab

    def log_ranks(self) -> torch.Tensor:
        ranks = torch.arange(self.vocab, dtype=torch.int64) * self.multiplier % self.vocab
        table = ranks.double().log1p().float()
        return torch.cat([table, table])

    def fill(self, logits: torch.Tensor) -> None:
        table = self.log_ranks().to(logits.device)
        for row in range(logits.shape[0]):
            first = self.turn(row)
            logits[row] = 20 - self.exponent(row) * table[first : first + self.vocab]

    def targets(self, rows: int) -> torch.Tensor:
        inverse = pow(self.multiplier, -1, self.vocab)
        ranks = torch.arange(1, self.vocab + 1, dtype=torch.float64)
        out = torch.empty(rows, dtype=torch.int64)
        for first in range(min(rows, LEVELS)):
            cumulative = (ranks ** -self.exponent(first)).cumsum(0)
            for row in range(first, rows, LEVELS):
                rank = int(torch.searchsorted(cumulative, spread(row) * float(cumulative[-1]), right=True))
                out[row] = (min(rank, self.vocab - 1) * inverse - self.turn(row)) % self.vocab
        return out


def coefficients(rows: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.tensor([-0.25 - spread(r) for r in range(rows)], device=device)
    b = torch.tensor([0.1 * (spread(r + 1000) - 0.5) for r in range(rows)], device=device)
    return a, b


def sample_rows(rows: int, count: int = 32) -> list[int]:
    taken = min(rows, count)
    return [i * rows // taken + i % max(1, rows // taken) for i in range(taken)]


# ---- PyTorch's forms --------------------------------------------------------------------------------------------------


def eager_logprob(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(logits.float(), dim=-1).gather(-1, targets[:, None]).squeeze(-1)


def eager_stats(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = F.log_softmax(logits.float(), dim=-1)
    return log_p.gather(-1, targets[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


def by_row_logprob(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As TRL does it to save memory: row after row, in the logits' own dtype."""
    if logits.dtype == torch.float32:
        log_sum = torch.stack([torch.logsumexp(row, dim=-1) for row in logits])
        return logits.gather(-1, targets[:, None]).squeeze(-1) - log_sum
    return torch.stack([F.log_softmax(row, dim=-1)[target] for row, target in zip(logits, targets)])


def by_row_stats(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """And the entropies in pieces of 128 rows."""
    entropies = []
    for piece in logits.split(128):
        log_p = F.log_softmax(piece, dim=-1)
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    return by_row_logprob(logits, targets), torch.cat(entropies)


@dataclass
class Form:
    """One way to write the statistics."""

    logprob: Callable
    stats: Callable


def window_mean(entropy: torch.Tensor, length: int, window: int = 3) -> torch.Tensor:
    """The mean of each token's entropy and those of the window - 1 tokens before it in its sequence."""
    rows = entropy.view(-1, length)
    total, count = rows.clone(), torch.ones_like(rows)
    for back in range(1, window):
        total[:, back:] += rows[:, :-back]
        count[:, back:] += 1
    return (total / count).view(-1)


def unlearning_loss(logprob, entropy, alpha: float, length: int) -> torch.Tensor:
    gate = (window_mean(entropy.detach(), length) < alpha).float()
    p = logprob.float().exp().clamp(EPS_LOW, 1 - EPS_HIGH)
    return (gate * torch.log1p(-p)).sum() / logprob.shape[0]


def sequence_length(tokens: int, longest: int) -> int:
    length = min(tokens, longest)
    if tokens % length != 0:
        raise ValueError(f"{tokens} tokens are not whole sequences of {length}")
    return length


# ---- cases ------------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    run: Callable[[], Any]
    errors: Callable[[Any], dict]
    prepare: Optional[Callable[[], None]] = None


def worst(errors: dict, name: str, error: float) -> None:
    error = float(error)
    errors[name] = max(errors.get(name, 0.0), math.inf if math.isnan(error) else error)


class Workload:
    def __init__(self, bench: "Bench"):
        self.bench, self.device = bench, bench.device
        self.cases: dict[str, dict[str, Case]] = {}

    def add(self, peer: str, name: str, case: Case) -> None:
        self.cases.setdefault(peer, {})[name] = case

    def forms(self) -> dict[str, Form]:
        forms = {"eager": Form(eager_logprob, eager_stats), "by row": Form(by_row_logprob, by_row_stats)}
        if self.bench.compile:
            forms["compile"] = forms["eager"]  # compiled together with what is around it
        return forms

    def maybe_compiled(self, peer: str, function: Callable) -> Callable:
        return torch.compile(function, dynamic=False) if peer == "compile" else function


class LogitsWorkload(Workload):
    def __init__(self, bench: "Bench", spec: dict):
        super().__init__(bench)
        rows, vocab = spec["rows"], spec["vocab"]
        self.length = sequence_length(rows, TOKENS_PER_SEQUENCE)
        self.logits = torch.empty(rows, vocab, dtype=DTYPES[spec["dtype"]], device=self.device)
        zipf = ZipfRows(vocab)
        zipf.fill(self.logits)
        self.targets = zipf.targets(rows).to(self.device)
        self.a, self.b = coefficients(rows, self.device)
        self.leaf = self.logits.detach().requires_grad_()
        # Recorded when the tokens were drawn: what a gate reads.
        levels = [zipf.entropies[zipf.level(r)] for r in range(rows)]
        self.entropy = torch.tensor(levels, dtype=torch.float32, device=self.device)
        for peer, form in self.forms().items():
            self.add_stats(peer, form)
            self.add_gradients(peer, form)
        self.add_sampling()

    def add_stats(self, peer: str, form: Form) -> None:
        stats = self.maybe_compiled(peer, form.stats)
        self.add(peer, "tokenStats", Case(torch.no_grad()(lambda: stats(self.logits, self.targets)), self.stats_errors))

    def add_loss(self, peer: str, name: str, loss: Callable, coefficient: Callable) -> None:
        """`loss` of the leaf and its backward; `coefficient(exact row)`: the (a, b) that its gradient should have."""
        loss = self.maybe_compiled(peer, loss)

        def clear():
            self.leaf.grad = None

        def run():
            loss(self.leaf).backward()
            return self.leaf.grad

        self.add(peer, name, Case(run, lambda grad: self.gradient_errors(grad, coefficient), clear))

    def add_gradients(self, peer: str, form: Form) -> None:
        def with_entropy(z):
            logprob, entropy = form.stats(z, self.targets)
            return (self.a * logprob + self.b * entropy).sum()

        def unlearn(alpha):
            return lambda z: unlearning_loss(form.logprob(z, self.targets), self.entropy, alpha, self.length)

        def unlearn_unknown(z):
            return unlearning_loss(*form.stats(z, self.targets), math.inf, self.length)

        a_of = lambda row, exact: (float(self.a[row]), 0.0)
        self.add_loss(peer, "tokenGrad", lambda z: (self.a * form.logprob(z, self.targets)).sum(), a_of)
        self.add_loss(peer, "tokenGrad, b", with_entropy, lambda row, exact: (float(self.a[row]), float(self.b[row])))
        self.add_loss(peer, "unlearn", unlearn(math.inf), self.unlearning_coefficient(math.inf))
        self.add_loss(peer, "unlearn, alpha 0.3", unlearn(0.3), self.unlearning_coefficient(0.3))
        self.add_loss(peer, "unlearn, unknown", unlearn_unknown, self.unlearning_coefficient(math.inf))

    def unlearning_coefficient(self, alpha: float) -> Callable:
        open_ = window_mean(self.entropy, self.length) < alpha

        def coefficient(row, exact):
            inside = EPS_LOW <= math.exp(exact.logprob) <= 1 - EPS_HIGH and bool(open_[row])
            return (-math.exp(exact.logprob) / exact.one_minus_p / len(self.targets) if inside else 0.0), 0.0

        return coefficient

    def add_sampling(self) -> None:
        def sample(keep):
            def run():
                z = self.logits.float()
                log_p = F.log_softmax(z, dim=-1)
                tokens = torch.multinomial(F.softmax(keep(z), dim=-1), 1)
                return tokens.squeeze(-1), log_p.gather(-1, tokens).squeeze(-1), -(log_p.exp() * log_p).sum(-1)

            return torch.no_grad()(run)

        def top_k(z, k=50):
            least = torch.topk(z, min(k, z.shape[-1]), dim=-1).values[:, -1:]
            return z.masked_fill(z < least, -math.inf)

        def top_p(z, share=0.95):
            ordered, order = torch.sort(z, dim=-1, descending=True)
            p = F.softmax(ordered, dim=-1)
            dropped = p.cumsum(-1) - p >= share
            return z.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)

        for name, keep in (("sample", lambda z: z), ("sample, topK 50", top_k), ("sample, topP 0.95", top_p)):
            self.add("eager", name, Case(sample(keep), self.sample_errors))

    # float64

    def exact(self, row: int, target: int) -> "ExactRow":
        return ExactRow(self.logits[row], target)

    def stats_errors(self, result) -> dict:
        logprob, entropy = result
        errors: dict = {}
        for row in sample_rows(len(logprob)):
            exact = self.exact(row, int(self.targets[row]))
            worst(errors, "logprob", abs(float(logprob[row]) - exact.logprob))
            if entropy is not None:
                worst(errors, "entropy", abs(float(entropy[row]) - exact.entropy))
        return errors

    def sample_errors(self, result) -> dict:
        tokens, logprob, entropy = result
        errors: dict = {}
        for row in sample_rows(len(self.targets)):
            exact = self.exact(row, int(tokens[row]))
            worst(errors, "logprob", abs(float(logprob[row]) - exact.logprob))
            worst(errors, "entropy", abs(float(entropy[row]) - exact.entropy))
        return errors

    def gradient_errors(self, grad: torch.Tensor, coefficient: Callable) -> dict:
        errors: dict = {}
        for row in sample_rows(len(self.targets)):
            exact = self.exact(row, int(self.targets[row]))
            gradient = exact.gradient(*coefficient(row, exact))
            scale = float(gradient.abs().max())
            off = float((grad[row].double() - gradient).abs().max())
            worst(errors, "gradient", off / scale if scale > 0 else off)
        return errors


class ExactRow:
    """float64 statistics of one row."""

    def __init__(self, logits: torch.Tensor, target: int):
        self.target = target
        self.log_p = F.log_softmax(logits.double(), dim=-1)
        p = self.log_p.exp()
        self.logprob = float(self.log_p[target])
        self.entropy = float(-(p * self.log_p).sum())
        p[target] = 0
        self.one_minus_p = float(p.sum())

    def gradient(self, a: float, b: float) -> torch.Tensor:
        out = -self.log_p.exp() * (a + b * (self.log_p + self.entropy))
        out[self.target] = a * self.one_minus_p - b * math.exp(self.logprob) * (self.logprob + self.entropy)
        return out


class HeadWorkload(Workload):
    """Hidden states and a head, as native/bench/head_workload.cc makes them."""

    PLANTED = 8

    def __init__(self, bench: "Bench", spec: dict):
        super().__init__(bench)
        rows, dim, vocab, dtype = spec["rows"], spec["dim"], spec["vocab"], DTYPES[spec["dtype"]]
        zipf = ZipfRows(vocab, self.PLANTED)
        width = 0.3 / (math.sqrt(dim / 9) * 0.05)
        self.hidden = torch.empty(rows, dim, dtype=dtype, device=self.device).uniform_(-width, width)
        self.head = torch.empty(vocab, dim, dtype=dtype, device=self.device).uniform_(-0.05, 0.05)
        table = zipf.log_ranks().to(self.device)
        for k in range(self.PLANTED):
            self.head[:, k] = -table[zipf.turn(k) : zipf.turn(k) + vocab]
        planted = torch.zeros(rows, self.PLANTED)
        for row in range(rows):
            planted[row, row % self.PLANTED] = zipf.exponent(row)
        self.hidden[:, : self.PLANTED] = planted.to(self.device)
        self.targets = zipf.targets(rows).to(self.device)
        self.a, self.b = coefficients(rows, self.device)
        self.some_a = torch.where(torch.arange(rows, device=self.device) % 4 == 0, self.a, 0)
        self.leaves = (self.hidden.detach().requires_grad_(), self.head.detach().requires_grad_())
        for peer, form in self.forms().items():
            if peer != "by row":
                self.add_form(peer, form)

    def add_form(self, peer: str, form: Form) -> None:
        stats = self.maybe_compiled(peer, lambda hidden, head: form.stats(hidden @ head.t(), self.targets))
        run = torch.no_grad()(lambda: stats(self.hidden, self.head))
        self.add(peer, "tokenStats", Case(run, self.stats_errors))
        self.add_gradient(peer, "tokenGrad", self.a, None, self.logits_loss(form, self.a, None))
        self.add_gradient(peer, "tokenGrad, b", self.a, self.b, self.logits_loss(form, self.a, self.b))
        self.add_gradient(peer, "tokenGrad, some active", self.some_a, None, self.logits_loss(form, self.some_a, None))

    def logits_loss(self, form: Form, a: torch.Tensor, b: Optional[torch.Tensor]) -> Callable:
        def loss(hidden, head):
            logits = hidden @ head.t()
            if b is None:
                return (a * form.logprob(logits, self.targets)).sum()
            logprob, entropy = form.stats(logits, self.targets)
            return (a * logprob + b * entropy).sum()

        return loss

    def add_gradient(self, peer: str, name: str, a, b, loss: Callable) -> None:
        loss = self.maybe_compiled(peer, loss)

        def clear():
            for leaf in self.leaves:
                leaf.grad = None

        def run():
            loss(*self.leaves).backward()
            return self.leaves[0].grad

        self.add(peer, name, Case(run, lambda grad: self.gradient_errors(grad, a, b), clear))

    def exact_rows(self):
        index = torch.tensor(sample_rows(len(self.targets), 16), device=self.device)
        logits = torch.cat([self.hidden[index].double() @ part.double().t() for part in self.head.split(8192)], dim=1)
        return [(int(i), ExactRow(row, int(self.targets[i]))) for i, row in zip(index, logits)]

    def stats_errors(self, result) -> dict:
        logprob, entropy = result
        errors: dict = {}
        for row, exact in self.exact_rows():
            worst(errors, "logprob", abs(float(logprob[row]) - exact.logprob))
            if entropy is not None:
                worst(errors, "entropy", abs(float(entropy[row]) - exact.entropy))
        return errors

    def gradient_errors(self, grad, a, b) -> dict:
        rows = self.exact_rows()
        dz = torch.stack([exact.gradient(float(a[row]), 0.0 if b is None else float(b[row])) for row, exact in rows])
        gradient = sum(part @ head.double() for part, head in zip(dz.split(8192, dim=1), self.head.split(8192)))
        index = [row for row, _ in rows]
        return {"dHidden": float((grad[index].double() - gradient).abs().max() / gradient.abs().max())}


class LossWorkload(Workload):
    LENGTH = 512

    def __init__(self, bench: "Bench", spec: dict):
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

    def __init__(self, bench: "Bench", spec: dict):
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


# ---- measuring --------------------------------------------------------------------------------------------------------


def _status_bytes(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key + ":"))


class Bench:
    """One device, one open workload."""

    kinds = {"logits": LogitsWorkload, "head": HeadWorkload, "loss": LossWorkload, "weights": WeightsWorkload}

    def __init__(self, device: str, compile: bool):
        self.device, self.compile = torch.device(device), compile
        self.workload: Optional[Workload] = None

    def close(self) -> None:
        """Frees the data and what was compiled for it."""
        self.workload = None
        torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def open(self, spec: dict) -> dict:
        self.close()
        self.workload = self.kinds[spec["kind"]](self, spec)
        return {peer: list(cases) for peer, cases in self.workload.cases.items()}

    def case(self, peer: str, name: str) -> Case:
        return self.workload.cases[peer][name]

    def _prepared(self, peer: str, name: str) -> Case:
        case = self.case(peer, name)
        if case.prepare:
            case.prepare()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return case

    def run(self, peer: str, name: str) -> float:
        case = self._prepared(peer, name)
        if self.device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            case.run()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end)
        start = time.perf_counter()
        case.run()
        return (time.perf_counter() - start) * 1e3

    def memory(self, peer: str, name: str) -> int:
        case = self._prepared(peer, name)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            case.run()
            torch.cuda.synchronize()
            return max(0, torch.cuda.max_memory_allocated() - before)
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status_bytes("VmRSS")
        case.run()
        return max(0, _status_bytes("VmHWM") - before)

    def errors(self, peer: str, name: str) -> dict:
        case = self._prepared(peer, name)
        return case.errors(case.run())

    def answer(self, question: dict) -> dict:
        if "open" in question:
            return {"offer": self.open(question["open"])}
        if "close" in question:
            self.close()
            return {}
        peer = question["peer"]
        if "run" in question:
            return {"ms": self.run(peer, question["run"])}
        if "memory" in question:
            return {"bytes": self.memory(peer, question["memory"])}
        return {"errors": self.errors(peer, question["errors"])}


def refuse(reason: str) -> None:
    """Instead of serve(), where nothing can run."""
    print(json.dumps({"error": reason}), flush=True)


def serve(bench: Bench, missing: dict) -> None:
    """Answers standard input until it ends. What libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def say(answer: dict) -> None:
        # JSON has no infinity
        out.write(json.dumps(answer).replace("Infinity", "1e999").replace("NaN", "1e999") + "\n")
        out.flush()

    say(
        {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "missing": missing,
        }
    )
    for line in sys.stdin:
        try:
            say(bench.answer(json.loads(line)))
        except Exception as error:  # a peer that cannot do something must not end the others
            words = str(error).strip().split("\n")[0]
            say({"error": f"{type(error).__name__}: {words}"})
            if bench.device.type == "cuda":
                torch.cuda.empty_cache()  # after running out of memory, leave what there is to others
