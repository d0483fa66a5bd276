"""The losses of a fit, step by step, as a record holds them: by stage, and how each stage ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGES = ("registration", "field", "phase1", "phase2")
"""Parts of a fit that have steps, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How one stage of a fit ended.

    Parameters
    ----------
    steps
        Steps that it took.
    last
        Terms of the loss after the last step, by name.
    """

    steps: int
    last: Mapping[str, float]


def ends(history: Mapping[str, Any]) -> dict[str, Stage]:
    """Return how each stage ended."""
    return {
        stage: Stage(
            steps=max(len(values) for values in terms.values()),
            last={term: float(values[-1]) for term, values in sorted(terms.items()) if len(values)},
        )
        for stage, terms in by_stage(history).items()
    }


def by_stage(history: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Return the values of losses by stage and term; terms without a stage come under ``""``.

    Files nest what has a slash in its name, so a stage may also be a dict of its terms. They keep no order either, so the
    stages come in the order in which they run.
    """
    stages: dict[str, dict[str, np.ndarray]] = {}
    for name, values in history.items():
        if isinstance(values, dict):
            stages.setdefault(name, {}).update({term: np.asarray(v, dtype=np.float64) for term, v in values.items()})
        else:
            stage, _, term = name.replace("/", ".").rpartition(".")
            stages.setdefault(stage, {})[term] = np.asarray(values, dtype=np.float64)
    order = sorted(stages, key=lambda stage: (STAGES.index(stage) if stage in STAGES else len(STAGES), stage))
    return {stage: stages[stage] for stage in order}
