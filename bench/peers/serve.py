"""Measures one piece of work at a time, as asked.

`npx eepo bench kernels` starts one of them and asks it line by line, in JSON, between its own measurements:

    {"open": {"kind": "logits", "rows": 256, "vocab": 151936, "dtype": "float32"}}  ->  {"offer": {"eager": [...], ...}}
    {"close": true}                 ->  {}                  frees the data
    {"run": NAME, "peer": PEER}     ->  {"ms": ...}
    {"memory": NAME, "peer": PEER}  ->  {"bytes": ...}      beyond the data, at the highest
    {"errors": NAME, "peer": PEER}  ->  {"errors": {...}}   against float64
    anything that fails             ->  {"error": ...}
"""

import ctypes
import gc
import json
import os
import platform
import sys
import time
from typing import Optional

import torch

from peers.head import HeadWorkload
from peers.logits import LogitsWorkload
from peers.steps import LossWorkload, WeightsWorkload
from peers.workload import Case, Workload


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
