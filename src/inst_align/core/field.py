"""The canonical expression field, its decoder, and both of them as plain arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from inst_align.core.encoding import WindowedEncoding

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION = 1
"""Raised when a packed module can no longer be read as before."""


def init_linear(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the linear layers of a module with torch's default initial values, drawn from a given generator.

    Weights and biases are uniform within ``1 / sqrt(inputs)`` of zero, layer after layer in the order of
    ``module.modules()``. Other layers are left alone.

    Parameters
    ----------
    module
        Changed in place.
    generator
        Source of the random numbers; the global generator is not used.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                for parameter in layer.parameters():
                    drawn = torch.empty(parameter.shape, dtype=torch.float32, device=generator.device)
                    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def linear(n_in: int, n_out: int) -> nn.Linear:
    """Return a float32 linear layer on the CPU with *unset* values, without drawing from the global generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, device="cpu", dtype=torch.float32)
    return layer


class ExpressionField(nn.Module):
    """Coordinates to latent expression: the implicit neural representation that sections share (INST-Align, eq. 2).

    Windowed encoding, then ``depth`` blocks of linear layer, layer normalisation and ReLU, then a linear layer to the
    latent space.

    Parameters
    ----------
    generator
        Source of the initial values.
    n_frequencies, max_log2
        See :class:`~inst_align.core.encoding.WindowedEncoding`.
    width, depth
        Width of the blocks, and how many there are.
    n_latent
        Length of a latent vector.
    n_dims
        Dimensions of the coordinates.

    Examples
    --------
    >>> field = ExpressionField(generator=torch.Generator().manual_seed(0), width=16, n_latent=8)
    >>> field(torch.zeros(5, 2)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        *,
        generator: torch.Generator,
        n_frequencies: int = 6,
        max_log2: float = 5.0,
        width: int = 256,
        depth: int = 4,
        n_latent: int = 64,
        n_dims: int = 2,
    ) -> None:
        super().__init__()
        self.hyper: dict[str, int | float] = {
            "n_frequencies": n_frequencies,
            "max_log2": max_log2,
            "width": width,
            "depth": depth,
            "n_latent": n_latent,
            "n_dims": n_dims,
        }
        self.encoding = WindowedEncoding(n_frequencies, max_log2, n_dims=n_dims)
        blocks: list[nn.Module] = []
        n_in = self.encoding.out_features
        for _ in range(depth):
            blocks += [linear(n_in, width), nn.LayerNorm(width, device="cpu", dtype=torch.float32), nn.ReLU()]
            n_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = linear(n_in, n_latent)
        init_linear(self, generator)

    def forward(self, xy: Tensor, alpha: float | Tensor | None = None) -> Tensor:
        """Evaluate the field.

        Parameters
        ----------
        xy
            Coordinates in the field's own frame, shape ``(n, n_dims)``, axis order (x, y).
        alpha
            How far the encoding's window is open; ``None`` is fully open.

        Returns
        -------
        Latent vectors, shape ``(n, n_latent)``.
        """
        return self.head(self.blocks(self.encoding(xy, alpha)))


class ExpressionDecoder(nn.Module):
    """Latent expression to genes (INST-Align, eq. 3): ``depth`` of linear layer and ReLU, then a linear layer.

    The last layer has no activation, so that small negative predictions are possible.

    Parameters
    ----------
    generator
        Source of the initial values.
    n_genes
        Number of genes.
    n_latent
        Length of a latent vector.
    width, depth
        Width of the hidden layers, and how many there are.

    Examples
    --------
    >>> decoder = ExpressionDecoder(generator=torch.Generator().manual_seed(0), n_genes=30, n_latent=8, width=16)
    >>> decoder(torch.zeros(5, 8)).shape
    torch.Size([5, 30])
    """

    def __init__(
        self, *, generator: torch.Generator, n_genes: int, n_latent: int = 64, width: int = 256, depth: int = 4
    ) -> None:
        super().__init__()
        self.hyper: dict[str, int | float] = {
            "n_genes": n_genes,
            "n_latent": n_latent,
            "width": width,
            "depth": depth,
        }
        layers: list[nn.Module] = []
        n_in = n_latent
        for _ in range(depth):
            layers += [linear(n_in, width), nn.ReLU()]
            n_in = width
        self.layers = nn.Sequential(*layers, linear(n_in, n_genes))
        init_linear(self, generator)

    def forward(self, latent: Tensor) -> Tensor:
        """Return log-normalised expression, shape ``(n, n_genes)``, of latent vectors, shape ``(n, n_latent)``."""
        return self.layers(latent)


_ARCHITECTURES: dict[str, type[ExpressionField] | type[ExpressionDecoder]] = {
    "ExpressionField": ExpressionField,
    "ExpressionDecoder": ExpressionDecoder,
}


def pack_module(module: ExpressionField | ExpressionDecoder) -> dict[str, Any]:
    """Return a network as a plain dictionary that fits into an AnnData's ``uns`` and so into h5ad and zarr files.

    Parameters
    ----------
    module
        The network, on any device.

    Returns
    -------
    ``architecture`` (name of the class), ``version`` of this format, ``hyper`` (arguments of the class) and
    ``weights`` (float32 arrays; names without dots or slashes).

    Examples
    --------
    >>> decoder = ExpressionDecoder(generator=torch.Generator().manual_seed(0), n_genes=3, width=4, depth=1)
    >>> packed = pack_module(decoder)
    >>> sorted(packed["weights"])
    ['layers_0_bias', 'layers_0_weight', 'layers_2_bias', 'layers_2_weight']
    >>> latent = torch.ones(2, 64)
    >>> torch.equal(unpack_module(packed)(latent), decoder(latent))
    True
    """
    weights = {_flat(name): value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}
    return {
        "architecture": type(module).__name__,
        "version": FORMAT_VERSION,
        "hyper": dict(module.hyper),
        "weights": weights,
    }


def unpack_module(packed: Mapping[str, Any]) -> ExpressionField | ExpressionDecoder:
    """Return the network that :func:`pack_module` packed, on the CPU.

    Parameters
    ----------
    packed
        As returned by :func:`pack_module`, also after a round trip through a file.

    Raises
    ------
    ValueError
        If the version, the architecture or the arrays are not those of a network that this version knows.
    """
    version = int(packed["version"])
    if version != FORMAT_VERSION:
        msg = f"`version` of the stored network is {version}, this version reads {FORMAT_VERSION}: fit it again."
        raise ValueError(msg)
    name = str(packed["architecture"])
    if name not in _ARCHITECTURES:
        msg = f"`architecture` of the stored network is {name!r}, known are {sorted(_ARCHITECTURES)}: fit it again."
        raise ValueError(msg)
    hyper = {key: np.asarray(value).item() for key, value in packed["hyper"].items()}
    module = _ARCHITECTURES[name](generator=torch.Generator().manual_seed(0), **hyper)
    _load_weights(module, packed["weights"])
    return module


def _load_weights(module: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    state = module.state_dict()
    expected = {_flat(name): tuple(value.shape) for name, value in state.items()}
    found = {name: np.shape(value) for name, value in weights.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        msg = f"`weights` of the stored network do not fit its `hyper` (at {', '.join(wrong)}): fit it again."
        raise ValueError(msg)
    module.load_state_dict({name: torch.tensor(np.asarray(weights[_flat(name)], np.float32)) for name in state})


def _flat(name: str) -> str:
    """Return a parameter's name without the dots, which some file formats read as levels."""
    return name.replace(".", "_")
