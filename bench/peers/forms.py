"""PyTorch's own ways to write the statistics of rows, and the unlearning loss."""

from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F

EPS_LOW, EPS_HIGH = 1e-6, 1e-5


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
