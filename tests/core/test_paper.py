from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.paper import PaperConfig, PaperFit, fit_paper
from inst_align.core.training import BestWeights

if TYPE_CHECKING:
    from inst_align.core.alignment import Step

TINY = PaperConfig(
    phase1_epochs=6,
    phase2_epochs=6,
    batch_size=50,
    jacobian_points=16,
    n_neighbours=8,
    n_latent=6,
    field_width=16,
    field_depth=2,
    decoder_width=16,
    decoder_depth=1,
    deformation_width=16,
    deformation_depth=2,
    deformation_head=8,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layers(xy: np.ndarray, rng: np.random.Generator, n_genes: int = 20) -> np.ndarray:
    """Log counts of genes that follow waves across the tissue."""
    waves = np.random.default_rng(3).normal(size=(2, n_genes))
    return np.log1p(rng.poisson(np.exp(1.5 * np.sin(2 * xy @ waves)))).astype(np.float32)


def make_pair(n: int = 120, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    true_ref, true_src = rng.uniform(-1, 1, (n, 2)), rng.uniform(-1, 1, (n - 20, 2))
    expression = [layers(xy, rng) for xy in (true_ref, true_src)]
    both = np.concatenate(expression) - np.concatenate(expression).mean(axis=0)
    components = both @ np.linalg.svd(both, full_matrices=False)[2][:5].T
    warped = true_src + 0.1 * np.sin(3 * true_src[:, ::-1])
    return {
        "xy_ref": scale * true_ref,
        "xy_src": scale * warped,
        "expression_ref": expression[0],
        "expression_src": expression[1],
        "pca_ref": components[:n],
        "pca_src": components[n:],
    }


def fit(config: PaperConfig = TINY, seed: int = 0, **changes: object) -> PaperFit:
    pair = {**make_pair(), **changes}
    return fit_paper(**pair, config=config, generator=torch.Generator().manual_seed(seed), device="cpu")


def test_fit_gives_finite_numbers_of_the_right_shape():
    pair, result = make_pair(), fit()
    moved = result.displace(pair["xy_src"])
    assert moved.shape == (100, 2)
    assert moved.dtype == np.float64
    assert np.isfinite(moved).all()
    latent = result.embed(moved)
    assert latent.shape == (100, 6)
    assert latent.dtype == np.float32
    assert not np.array_equal(moved, pair["xy_src"])


def test_history_has_one_finite_value_per_epoch():
    history = fit(dataclasses.replace(TINY, phase2_epochs=4)).history
    assert {"phase1.reconstruction", "phase1.matching", "phase2.matching", "phase2.jacobian"} <= history.keys()
    for name, values in history.items():
        assert values.shape == ((6,) if name.startswith("phase1") else (4,))
        assert np.isfinite(values).all()


def test_history_holds_every_term_of_the_total():
    history = fit().history
    total = (
        history["phase2.matching"]
        + 0.1 * history["phase2.reconstruction"]
        + 0.01 * history["phase2.jacobian"]
        + 0.05 * history["phase2.magnitude"]
    )
    np.testing.assert_allclose(history["phase2.total"], total, rtol=1e-5)


def test_same_seed_gives_the_same_bits():
    xy = make_pair()["xy_src"]
    first, second, other = fit(), fit(), fit(seed=1)
    assert np.array_equal(first.displace(xy), second.displace(xy))
    assert np.array_equal(first.embed(xy), second.embed(xy))
    assert all(np.array_equal(first.history[name], second.history[name]) for name in first.history)
    assert not np.array_equal(first.displace(xy), other.displace(xy))


def test_sparse_and_dense_expression_give_the_same_bits():
    pair = make_pair()
    stored = {name: sparse.csr_matrix(pair[name]) for name in ("expression_ref", "expression_src")}
    assert np.array_equal(fit().displace(pair["xy_src"]), fit(**stored).displace(pair["xy_src"]))


def test_fit_leaves_global_state_and_input_alone():
    pair = make_pair()
    copies = {name: value.copy() for name, value in pair.items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(**pair)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert all(np.array_equal(pair[name], copies[name]) for name in pair)


def test_units_and_places_of_the_input_do_not_matter():
    pair, far = make_pair(), make_pair(scale=1000.0)
    moved = fit().displace(pair["xy_src"])
    result = fit(xy_ref=far["xy_ref"] + 7e4, xy_src=far["xy_src"] + 7e4)
    np.testing.assert_allclose(result.displace(far["xy_src"] + 7e4), 1000 * moved + 7e4, atol=1e-1)


def test_callback_counts_the_epochs_of_both_phases():
    steps: list[Step] = []
    fit_paper(**make_pair(), config=TINY, generator=torch.Generator(), device="cpu", callback=steps.append)
    assert [step.done for step in steps] == list(range(1, 13))
    assert {step.total for step in steps} == {12}
    assert [step.stage for step in steps] == ["phase1"] * 6 + ["phase2"] * 6


def test_a_phase_can_be_left_out():
    xy = make_pair()["xy_src"]
    neither = fit(dataclasses.replace(TINY, phase1_epochs=0, phase2_epochs=0))
    np.testing.assert_allclose(neither.displace(xy), xy, atol=1e-3)
    assert neither.history == {}
    assert all(name.startswith("phase1") for name in fit(dataclasses.replace(TINY, phase2_epochs=0)).history)


def test_training_reconstructs_and_brings_the_sections_together():
    config = dataclasses.replace(
        TINY, phase1_epochs=60, phase2_epochs=20, batch_size=200, field_width=48, decoder_width=48, n_neighbours=16
    )
    history = fit(config).history
    assert history["phase1.reconstruction"][-1] < 0.6 * history["phase1.reconstruction"][0]
    assert history["phase1.matching"][-1] < 0.9 * history["phase1.matching"][0]
    assert history["phase2.reconstruction"][-1] < 0.6 * history["phase1.reconstruction"][0]


def test_matching_moves_the_source_towards_the_reference():
    pair = make_pair()
    pair["xy_src"] = pair["xy_src"] + 0.3
    result = fit(dataclasses.replace(TINY, phase1_epochs=0, phase2_epochs=60, lambda_magnitude=0.0), **pair)
    gap = np.linalg.norm(pair["xy_src"].mean(axis=0) - pair["xy_ref"].mean(axis=0))
    gap_after = np.linalg.norm(result.displace(pair["xy_src"]).mean(axis=0) - pair["xy_ref"].mean(axis=0))
    assert gap_after < 0.5 * gap


def test_checkpoint_keeps_the_weights_of_the_lowest_loss():
    layer = torch.nn.Linear(1, 1, bias=False)
    best = BestWeights(layer)
    for value, loss in ((1.0, 3.0), (2.0, 1.0), (3.0, 2.0)):
        torch.nn.init.constant_(layer.weight, value)
        best.offer(loss)
    best.restore()
    assert layer.weight.item() == 2.0


def test_generator_must_be_on_the_cpu():
    class Elsewhere:
        device = torch.device("cuda")

    with pytest.raises(ValueError, match="`generator` must be on the CPU, found one on cuda"):
        fit_paper(**make_pair(), config=TINY, generator=Elsewhere(), device="cpu")


@pytest.mark.gpu
def test_fit_runs_on_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pair = make_pair()
    result = fit_paper(**pair, config=TINY, generator=torch.Generator().manual_seed(0), device="cuda")
    np.testing.assert_allclose(result.displace(pair["xy_src"]), fit().displace(pair["xy_src"]), atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "`batch_size` .* at least 1, found 0"),
        ({"phase1_epochs": -1}, "`phase1_epochs` .* at least 0, found -1"),
        ({"lambda_recon": -0.1}, "`lambda_recon` .* at least 0, found -0.1"),
        ({"learning_rate": float("nan")}, "`learning_rate` .* at least 0, found nan"),
        ({"gradient_clip": 0.0}, "`gradient_clip` .* above 0"),
        ({"ema_decay": 1.0}, "`ema_decay` .* below 1, found 1.0"),
        ({"temperature_start": 2.0}, "must ascend, found 0.01, 2.0, 1.0"),
    ],
)
def test_impossible_constants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PaperConfig(**change)


def test_defaults_are_the_published_numbers():
    config = PaperConfig()
    assert (config.phase1_epochs, config.phase2_epochs, config.lambda_recon) == (300, 400, 0.1)
    assert (config.lambda_jacobian, config.lambda_magnitude, config.feature_weight) == (0.01, 0.05, 1.0)
