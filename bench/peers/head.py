"""PyTorch on hidden states and a head."""

import math
from typing import Callable, Optional

import torch

from peers.data import ZipfRows, coefficients, sample_rows
from peers.exact import ExactRow, worst
from peers.forms import EPS_HIGH, EPS_LOW, Form
from peers.workload import DTYPES, Case, Workload


class HeadWorkload(Workload):
    """Hidden states and a head, as native/bench/head_workload.cc makes them."""

    PLANTED = 8

    def __init__(self, bench, spec: dict):
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
        self.weight = torch.full((rows,), 1 / rows, device=self.device)
        self.some_weight = torch.where(self.some_a != 0, self.weight, 0)
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

        self.add_unlearning(peer, lambda hidden, head: form.logprob(hidden @ head.t(), self.targets))

    def add_unlearning(self, peer: str, logprob: Callable) -> None:
        """For a function (hidden, head) -> log-prob with a backward."""
        for name, weight in (("unlearn", self.weight), ("unlearn, some active", self.some_weight)):
            loss = self.unlearning_loss(logprob, weight)
            self.add_gradient(peer, name, self.unlearning_coefficient(weight), None, loss)

    def unlearning_loss(self, logprob: Callable, weight: torch.Tensor) -> Callable:
        def loss(hidden, head):
            p = logprob(hidden, head).float().exp().clamp(EPS_LOW, 1 - EPS_HIGH)
            return (weight * torch.log1p(-p)).sum()

        return loss

    def unlearning_coefficient(self, weight: torch.Tensor) -> Callable:
        def coefficient(row, exact):
            inside = math.exp(exact.logprob) >= EPS_LOW and exact.one_minus_p >= EPS_HIGH
            return -float(weight[row]) * math.exp(exact.logprob) / exact.one_minus_p if inside else 0.0

        return coefficient

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
        """a: [rows], or a function (row, exact row) -> a."""
        rows = self.exact_rows()
        a_of = a if callable(a) else lambda row, exact: float(a[row])
        b_of = lambda row: 0.0 if b is None else float(b[row])
        dz = torch.stack([exact.gradient(a_of(row, exact), b_of(row)) for row, exact in rows])
        gradient = sum(part @ head.double() for part, head in zip(dz.split(8192, dim=1), self.head.split(8192)))
        index = [row for row, _ in rows]
        return {"dHidden": float((grad[index].double() - gradient).abs().max() / gradient.abs().max())}
