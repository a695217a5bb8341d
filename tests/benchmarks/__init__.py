"""minild beside PyTorch on the same weights: `python -m tests.benchmarks` from the repository's root."""
