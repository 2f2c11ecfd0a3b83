"""PyTorch on logits."""

import math
from typing import Callable

import torch
import torch.nn.functional as F

from peers.data import ZipfRows, coefficients, sample_rows
from peers.exact import ExactRow, worst
from peers.forms import EPS_HIGH, EPS_LOW, Form, sequence_length, unlearning_loss, window_mean
from peers.workload import DTYPES, Case, Workload

TOKENS_PER_SEQUENCE = 256


class LogitsWorkload(Workload):
    def __init__(self, bench, spec: dict):
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

        def unlearn_with_entropy(z):
            return unlearning_loss(*form.stats(z, self.targets), math.inf, self.length)

        a_of = lambda row, exact: (float(self.a[row]), 0.0)
        self.add_loss(peer, "tokenGrad", lambda z: (self.a * form.logprob(z, self.targets)).sum(), a_of)
        self.add_loss(peer, "tokenGrad, b", with_entropy, lambda row, exact: (float(self.a[row]), float(self.b[row])))
        self.add_loss(peer, "unlearn", unlearn(math.inf), self.unlearning_coefficient(math.inf))
        self.add_loss(peer, "unlearn, alpha 0.3", unlearn(0.3), self.unlearning_coefficient(0.3))
        self.add_loss(peer, "unlearn, three kernels", unlearn_with_entropy, self.unlearning_coefficient(math.inf))

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

    def exact(self, row: int, target: int) -> ExactRow:
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
