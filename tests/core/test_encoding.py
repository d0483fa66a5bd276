from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inst_align.core.encoding import WindowedEncoding, window_weights
from inst_align.core.schedule import WindowSchedule


def test_window_equals_formula():
    for alpha in np.linspace(-0.5, 6.5, 29):
        expected = [(1 - math.cos(math.pi * min(max(alpha - k, 0), 1))) / 2 for k in range(6)]
        np.testing.assert_allclose(window_weights(float(alpha), 6), expected, atol=1e-6)


@given(st.floats(0, 6), st.floats(0, 6))
def test_window_never_closes_as_alpha_grows(first, second):
    low, high = sorted((first, second))
    assert (window_weights(high, 6) >= window_weights(low, 6)).all()


def test_window_of_a_band_starts_at_its_number_and_ends_one_later():
    for band in range(6):
        assert window_weights(float(band), 6)[band] == 0
        assert window_weights(band + 1.0, 6)[band] == 1


def test_window_takes_a_tensor():
    assert torch.equal(window_weights(torch.tensor(2.5), 6), window_weights(2.5, 6))


def test_encoding_equals_formula():
    xy = torch.tensor([[0.3, -1.2], [0.0, 0.7]])
    frequency = [2 ** (k * 3.0 / 3) for k in range(4)]
    expected = [
        [*point]
        + [math.sin(math.pi * s * value) for value in point for s in frequency]
        + [math.cos(math.pi * s * value) for value in point for s in frequency]
        for point in xy.tolist()
    ]
    np.testing.assert_allclose(WindowedEncoding(4, 3.0)(xy), expected, atol=1e-5)


def test_frequencies_are_evenly_spaced_in_their_logarithm():
    encoding = WindowedEncoding(n_frequencies=4, max_log2=6.0)
    np.testing.assert_allclose(encoding.frequencies / math.pi, [1, 4, 16, 64], rtol=1e-6)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_closed_window_passes_coordinates_only(n_dims):
    encoding = WindowedEncoding(6, 5.0, n_dims=n_dims)
    points = torch.randn(7, n_dims, generator=torch.Generator().manual_seed(0))
    encoded = encoding(points, alpha=0.0)
    assert encoded.shape == (7, encoding.out_features)
    assert torch.equal(encoded[:, :n_dims], points)
    assert (encoded[:, n_dims:] == 0).all()


def test_no_alpha_is_fully_open():
    encoding = WindowedEncoding()
    xy = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoding(xy), encoding(xy, alpha=6.0))


def test_encoding_has_nothing_to_train_or_store():
    encoding = WindowedEncoding()
    assert not list(encoding.parameters())
    assert not encoding.state_dict()


def test_schedule_opens_linearly_and_stays_open():
    window = WindowSchedule(n_frequencies=6, n_epochs=400, fraction=0.2)
    alphas = [window.alpha(epoch) for epoch in range(400)]
    np.testing.assert_allclose(alphas[:81], np.arange(81) * 6 / 80)
    assert set(alphas[80:]) == {6.0}
    assert [window.is_open(epoch) for epoch in (0, 79, 80, 399)] == [False, False, True, True]


def test_schedule_without_opening_is_open_at_once():
    window = WindowSchedule(n_frequencies=6, n_epochs=10, fraction=0.0)
    assert window.alpha(0) == 6.0
    assert window.is_open(0)
