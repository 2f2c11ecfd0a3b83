"""The data of native/bench/rows.h, so that peers see rows of the same entropies as we do."""

import math

import torch

LEVELS = 64


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
