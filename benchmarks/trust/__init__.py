"""Can a result be trusted? What the benchmarks of inputs, verdicts and robustness found, in one table."""
