"""Errors against float64."""

import math

import torch
import torch.nn.functional as F


def worst(errors: dict, name: str, error: float) -> None:
    error = float(error)
    errors[name] = max(errors.get(name, 0.0), math.inf if math.isnan(error) else error)


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
