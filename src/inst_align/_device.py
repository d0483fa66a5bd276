"""Where tensors live: resolved once per call, then passed down."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("inst_align")


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to compute on; None takes CUDA where there is any, else the CPU, and logs which.

    Raises
    ------
    ValueError
        The device is not there, or is neither the CPU nor CUDA.
    """
    import torch

    if device is None:
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        logger.info("computing on %s", chosen)
        return chosen
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'`device={device!r}` is no device; pass "cpu", "cuda", "cuda:0" or None.') from error
    if chosen.type not in {"cpu", "cuda"}:
        raise ValueError(f'`device={str(device)!r}` is not supported; pass "cpu", "cuda" or None.')
    if chosen.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= n_devices:
            raise ValueError(
                f'`device={str(device)!r}`: there are {n_devices} CUDA devices; pass `device=None` or `device="cpu"`.'
            )
    return chosen
