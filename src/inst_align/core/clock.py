"""How long the stages of a fit take, how far they are, and what stopped early."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inst_align.core.alignment import Callback, Step
from inst_align.core.guards import telling
from inst_align.core.memory import memory_told

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """Seconds by stage, steps for a progress bar, and what stopped early."""

    def __init__(self, total: int, callback: Callback | None) -> None:
        self.seconds: dict[str, float] = {}
        self.stops: list[str] = []
        self._total, self._done, self._stage, self._callback = total, 0, "", callback

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block under ``name``, and listen to what stops early in it."""
        start, self._stage = time.perf_counter(), name
        with telling(name, self.stops), memory_told(name):
            yield
        self.seconds[name] = time.perf_counter() - start

    def expect(self, total: int) -> None:
        """Say how many steps there will be."""
        self._total = total

    @property
    def report(self) -> dict[str, str]:
        """What the report says of stages that stopped early."""
        return {"stopped_early": "; ".join(self.stops)} if self.stops else {}

    def step(self, name: str | None = None) -> None:
        """Count one step of the current stage, or of a part of it that has a name of its own."""
        self._done += 1
        if self._callback is not None:
            self._callback(Step(stage=name or self._stage, done=self._done, total=self._total))
