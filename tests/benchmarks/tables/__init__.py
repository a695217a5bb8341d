"""The tables and figures of the latent diffusion paper in miniature: python -m tests.benchmarks.tables NAME."""
