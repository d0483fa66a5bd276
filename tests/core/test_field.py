from __future__ import annotations

import anndata
import numpy as np
import pytest
import torch

from inst_align.core.field import ExpressionDecoder, ExpressionField, init_linear, linear, pack_module, unpack_module


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_field() -> ExpressionField:
    return ExpressionField(generator=generator(), n_frequencies=3, max_log2=2.0, width=8, depth=2, n_latent=4)


def small_decoder() -> ExpressionDecoder:
    return ExpressionDecoder(generator=generator(), n_genes=5, n_latent=4, width=8, depth=1)


def test_default_sizes_are_those_of_the_paper():
    field = ExpressionField(generator=generator())
    decoder = ExpressionDecoder(generator=generator(), n_genes=2000)
    linears = [(m.in_features, m.out_features) for m in field.modules() if isinstance(m, torch.nn.Linear)]
    assert linears == [(26, 256), (256, 256), (256, 256), (256, 256), (256, 64)]
    assert sum(isinstance(m, torch.nn.LayerNorm) for m in field.modules()) == 4
    linears = [(m.in_features, m.out_features) for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
    assert linears == [(64, 256), (256, 256), (256, 256), (256, 256), (256, 2000)]


def test_decoder_has_no_final_activation():
    decoder = small_decoder()
    latent = torch.randn(200, 4, generator=generator(1))
    assert decoder(latent).min() < 0


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    small_field()
    small_decoder()
    assert torch.equal(torch.get_rng_state(), before)


def test_building_ignores_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        field = small_field()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in field.parameters()} == {torch.float32}


def test_same_seed_same_weights():
    xy = torch.randn(6, 2, generator=generator(2))
    assert torch.equal(small_field()(xy), small_field()(xy))
    other = ExpressionField(generator=generator(9), n_frequencies=3, max_log2=2.0, width=8, depth=2, n_latent=4)
    assert not torch.equal(small_field()(xy), other(xy))


def test_init_has_the_spread_of_torch_default():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.nn.Linear(100, 400)
    layer = linear(100, 400)
    init_linear(layer, generator())
    for ours, torchs in zip(layer.parameters(), expected.parameters()):
        assert ours.abs().max() <= 0.1
        torch.testing.assert_close(ours.std(), torchs.std(), rtol=0.1, atol=0)


@pytest.mark.parametrize("build", [small_field, small_decoder])
def test_packing_round_trips(build):
    module = build()
    inputs = torch.randn(10, 2 if isinstance(module, ExpressionField) else 4, generator=generator(1))
    packed = pack_module(module)
    assert all(value.dtype == np.float32 and not set(name) & set("./") for name, value in packed["weights"].items())
    assert torch.equal(unpack_module(packed)(inputs), module(inputs))


def test_packed_arrays_are_copies():
    module = small_decoder()
    packed = pack_module(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(np.abs(value).max() > 0 for value in packed["weights"].values())


def test_packed_field_survives_a_file(tmp_path):
    adata = anndata.AnnData(np.zeros((2, 2), np.float32), uns={"field": pack_module(small_field())})
    adata.write_h5ad(tmp_path / "field.h5ad")
    stored = anndata.read_h5ad(tmp_path / "field.h5ad").uns["field"]
    xy = torch.randn(10, 2, generator=generator(1))
    assert torch.equal(unpack_module(stored)(xy), small_field()(xy))


def test_unpacking_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    unpack_module(pack_module(small_field()))
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_version_is_refused():
    with pytest.raises(ValueError, match="`version` of the stored network is 99"):
        unpack_module({**pack_module(small_field()), "version": 99})


def test_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="'Siren'"):
        unpack_module({**pack_module(small_field()), "architecture": "Siren"})


def test_weights_of_another_size_are_refused():
    packed = pack_module(small_field())
    packed["hyper"]["n_latent"] = 3
    with pytest.raises(ValueError, match="head_bias, head_weight"):
        unpack_module(packed)
