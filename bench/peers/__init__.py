"""Other implementations of eepo's kernels; see serve.py for how they are asked."""
