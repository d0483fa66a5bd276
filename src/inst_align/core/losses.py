"""The losses, one formula each. Every function returns a tensor without dimensions and can be differentiated."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SINGULAR_VALUE = 1e-6
"""Singular values below this count as this, so that their logarithm stays finite."""


def masked_mse(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Return the mean squared error over the entries whose target is not zero; zero if there is none.

    .. math:: \frac{1}{|\{g \ne 0\}|} \sum_{g \ne 0} (\hat g - g)^2

    First term of INST-Align, eq. 7, after SUICA (Zhu et al. 2025).

    Parameters
    ----------
    prediction, target
        Expression, shape ``(n, g)``.

    Examples
    --------
    >>> masked_mse(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 0.0]]))
    tensor(4.)
    """
    expressed = target != 0
    return ((prediction - target).square() * expressed).sum() / expressed.sum().clamp(min=1)


def mean_absolute(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Return the mean absolute error over all entries.

    .. math:: \frac{1}{n\,G} \sum |\hat g - g|

    Second term of INST-Align, eq. 7, after SUICA (Zhu et al. 2025).

    Parameters
    ----------
    prediction, target
        Expression, shape ``(n, g)``.

    Examples
    --------
    >>> mean_absolute(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 0.0]]))
    tensor(3.5000)
    """
    return (prediction - target).abs().mean()


def dice_loss(prediction: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    r"""Return the Dice loss between what is predicted and what is found to be expressed.

    .. math:: 1 - \frac{2 \sum b y + \epsilon}{\sum b + \sum y + \epsilon},
        \qquad b = \tanh(\hat g / 2), \quad y = [g > 0]

    Third term of INST-Align, eq. 7, after SUICA (Zhu et al. 2025); the half in ``b`` and ``epsilon = 1`` are those of
    the INST-Align authors' program. A negative prediction makes ``b`` negative and lets the loss leave [0, 1]: pass
    ``torch.relu(prediction)`` where that matters.

    Parameters
    ----------
    prediction, target
        Expression, shape ``(n, g)``.
    smooth
        ``epsilon``, which keeps the ratio finite when nothing is expressed.

    Examples
    --------
    >>> float(dice_loss(torch.zeros(1, 2), torch.tensor([[3.0, 0.0]])))
    0.5
    """
    predicted = torch.tanh(prediction / 2)
    expressed = (target > 0).to(prediction.dtype)
    overlap = (predicted * expressed).sum()
    return 1 - (2 * overlap + smooth) / (predicted.sum() + expressed.sum() + smooth)


def reconstruction_loss(prediction: Tensor, target: Tensor, *, dice_weight: float = 0.01) -> Tensor:
    r"""Return the composite reconstruction loss (INST-Align, eq. 7).

    .. math:: L_{rec} = L_{mse}^{g \ne 0} + L_{1} + w\, L_{dice}

    The sum of :func:`masked_mse`, :func:`mean_absolute` and the weighted :func:`dice_loss`; ``w = 0.01`` is the
    authors' number, the paper gives none.

    Parameters
    ----------
    prediction, target
        Log-normalised expression, shape ``(n, g)``.
    dice_weight
        Weight of the Dice term.
    """
    dice = dice_weight * dice_loss(prediction, target)
    return masked_mse(prediction, target) + mean_absolute(prediction, target) + dice


def mean_square_distance(xy: Tensor, target: Tensor) -> Tensor:
    r"""Return the mean squared distance between points and their targets.

    .. math:: \frac1n \sum_i \|x_i - t_i\|^2

    Both matching losses (INST-Align, section 2.4) and, with the points before and after a deformation, the penalty on
    its magnitude have this form.

    Parameters
    ----------
    xy, target
        Coordinates, shape ``(n, 2)``.

    Examples
    --------
    >>> mean_square_distance(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor(25.)
    """
    return (xy - target).square().sum(dim=1).mean()


def singular_values_2x2(jacobian: Tensor, *, eps: float = 1e-12) -> tuple[Tensor, Tensor]:
    r"""Return the singular values of 2 x 2 matrices in closed form, the second with the determinant's sign.

    .. math::
        \sigma_1 = r + s, \quad \sigma_2 = r - s, \quad r = \sqrt{a^2 + b^2 + \epsilon},
        \quad s = \sqrt{c^2 + d^2 + \epsilon},

    with ``a, c = (J11 +- J22) / 2`` and ``d, b = (J21 +- J12) / 2``. Their product is the determinant. Unlike a
    singular value decomposition this has finite gradients where the two values are equal, that is at the identity,
    where every deformation starts.

    Parameters
    ----------
    jacobian
        Shape ``(n, 2, 2)``.
    eps
        Keeps the roots differentiable at zero.

    Returns
    -------
    The larger value (never negative) and the smaller one (negative where the map folds), shape ``(n,)`` each.

    Examples
    --------
    >>> larger, smaller = singular_values_2x2(torch.tensor([[[0.0, 3.0], [2.0, 0.0]]]))
    >>> float(larger), float(smaller)
    (3.0, -2.0)
    """
    j11, j12, j21, j22 = jacobian.flatten(1).unbind(1)
    turn = (((j11 + j22) / 2).square() + ((j21 - j12) / 2).square() + eps).sqrt()
    stretch = (((j11 - j22) / 2).square() + ((j21 + j12) / 2).square() + eps).sqrt()
    return turn + stretch, turn - stretch


def jacobian_loss(jacobian: Tensor, compression_weight: float = 5.0) -> Tensor:
    r"""Return the asymmetric penalty on local stretching (INST-Align, eq. 5).

    .. math:: \frac1n \sum_x \sum_{k=1,2} w_k (\log \sigma_k)^2, \qquad w_k = 5 \text{ if } \log\sigma_k < 0 \text{, else } 1

    The weight of 5 on compression is the authors' number. Singular values have no sign, so that a fold which keeps
    lengths costs nothing here: see :func:`fold_loss`.

    Parameters
    ----------
    jacobian
        Shape ``(n, 2, 2)``.
    compression_weight
        How much more a compression costs than an expansion by the same factor.

    Examples
    --------
    >>> float(jacobian_loss(torch.tensor([[[1.0, 0.0], [0.0, -1.0]]]))) < 1e-6
    True
    """
    values = torch.stack(singular_values_2x2(jacobian)).abs().clamp(min=SMALLEST_SINGULAR_VALUE)
    log_values = values.log()
    weight = 1 + (compression_weight - 1) * (log_values < 0).to(log_values.dtype)
    return (weight * log_values.square()).sum(dim=0).mean()


def fold_loss(jacobian: Tensor, margin: float = 0.1) -> Tensor:
    r"""Return the penalty on places where a map folds, or nearly so.

    .. math:: \frac1n \sum_x \max(0, m - \det J)^2

    Not part of the paper: :func:`jacobian_loss` cannot tell a fold from no deformation at all.

    Parameters
    ----------
    jacobian
        Shape ``(n, 2, 2)``.
    margin
        Determinants above ``m`` cost nothing.

    Examples
    --------
    >>> float(fold_loss(torch.tensor([[[1.0, 0.0], [0.0, -1.0]]]), margin=0.0))
    1.0
    """
    determinant = jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]
    return (margin - determinant).clamp(min=0).square().mean()
