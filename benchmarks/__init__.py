"""Measurements, each `python -m benchmarks.NAME [--json FILE]`; the figures in README and docs come from `results/`."""
