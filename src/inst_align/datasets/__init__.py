"""Data to try things on: a made-up pair with known truth, and a public benchmark.

Importing this loads neither anndata nor pooch: the functions load what they need when they are called.
"""

from inst_align.datasets._public import istbench
from inst_align.datasets._toy import toy_pair

__all__ = ["istbench", "toy_pair"]
