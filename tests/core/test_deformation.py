from __future__ import annotations

import pytest
import torch

from inst_align.core.deformation import DeformationNetwork, jacobian
from inst_align.core.losses import jacobian_loss


def random_points(n: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_network(spread: float = 0.0) -> DeformationNetwork:
    """A network that is away from the identity by about ``spread``."""
    generator = torch.Generator().manual_seed(0)
    network = DeformationNetwork(generator=generator, n_frequencies=3, max_log2=2.0, width=16, depth=2, head_width=8)
    if spread:
        with torch.no_grad():
            last = network.head[-1]
            last.weight.copy_(spread * torch.randn(last.weight.shape, generator=generator))
    return network


def test_default_sizes_are_those_of_the_paper():
    network = DeformationNetwork(generator=torch.Generator().manual_seed(0))
    linears = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert linears == [(26, 128), *[(128, 128)] * 5, (128, 64), (64, 2)]


def test_untrained_network_is_the_identity():
    network = DeformationNetwork(generator=torch.Generator().manual_seed(0))
    xy = random_points(500)
    for alpha in (0.0, 3.5, None):
        torch.testing.assert_close(network(xy, alpha), xy, atol=1e-3, rtol=0)
        torch.testing.assert_close(jacobian(network, xy, alpha), torch.eye(2).expand(500, 2, 2), atol=2e-2, rtol=0)


def test_last_layer_starts_within_its_bound():
    network = DeformationNetwork(generator=torch.Generator().manual_seed(0))
    last = network.head[-1]
    assert 0 < last.weight.abs().max() <= 1e-4
    assert (last.bias == 0).all()


def test_forward_adds_the_displacement():
    network, xy = small_network(spread=0.5), random_points(9)
    torch.testing.assert_close(network(xy, 1.5), xy + network.displacement(xy, 1.5))


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    small_network()
    assert torch.equal(torch.get_rng_state(), before)


def test_jacobian_of_a_linear_map_is_its_matrix():
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = jacobian(lambda xy, _: xy @ matrix.T, random_points(4))
    torch.testing.assert_close(found, matrix.expand(4, 2, 2))


@pytest.mark.parametrize("alpha", [None, 1.5])
def test_jacobian_equals_finite_differences(alpha):
    network = small_network(spread=0.5).double()
    xy = random_points(20, dtype=torch.float64)
    step = 1e-6
    columns = [
        (network(xy + shift, alpha) - network(xy - shift, alpha)) / (2 * step)
        for shift in step * torch.eye(2, dtype=torch.float64)
    ]
    torch.testing.assert_close(jacobian(network, xy, alpha), torch.stack(columns, dim=2), atol=1e-5, rtol=1e-5)


def test_jacobian_can_be_differentiated_by_parameters():
    network = small_network(spread=0.5).double()
    xy = random_points(20, dtype=torch.float64)
    weight = network.head[-1].weight
    (gradient,) = torch.autograd.grad(jacobian_loss(jacobian(network, xy)), weight)
    step, differences = 1e-6, torch.zeros_like(weight)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight[i, j] += sign * step
                    values.append(jacobian_loss(jacobian(network, xy)))
                    weight[i, j] -= sign * step
            differences[i, j] = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(gradient, differences, atol=1e-6, rtol=1e-4)


def test_jacobian_can_be_differentiated_by_points():
    xy = random_points(4, dtype=torch.float64).requires_grad_()
    jacobian(lambda points, _: points**3, xy).sum().backward()
    torch.testing.assert_close(xy.grad, 6 * xy.detach())


def test_jacobian_is_constant_where_gradients_are_off():
    xy = random_points(4)
    with torch.no_grad():
        assert not jacobian(small_network(), xy).requires_grad
    assert not xy.requires_grad
