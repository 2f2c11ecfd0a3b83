"""What a peer is asked to do: named pieces of work on data of one shape."""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch

from peers.forms import Form, by_row_logprob, by_row_stats, eager_logprob, eager_stats

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Case:
    run: Callable[[], Any]
    errors: Callable[[Any], dict]
    prepare: Optional[Callable[[], None]] = None


class Workload:
    def __init__(self, bench):
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
