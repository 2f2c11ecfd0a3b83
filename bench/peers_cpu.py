"""PyTorch on the CPU beside eepo's kernels; started by `npx eepo bench kernels`, which talks to it (see peers/serve.py).

Peers: `eager` (log_softmax, gather, exp, sum; autograd), `by row` (TRL's form, which saves memory), `compile`
(torch.compile of the eager form), `fused` (torch.optim.AdamW(fused=True)).
"""

import argparse

import torch

from peers.serve import Bench, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--liger", help="not used on the CPU")
    parser.add_argument("--verl", help="not used on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    serve(Bench("cpu", compile=not args.no_compile), missing={})


if __name__ == "__main__":
    main()
