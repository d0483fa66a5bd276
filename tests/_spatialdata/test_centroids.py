from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Labels2DModel

from inst_align._spatialdata.centroids import instances, label_centroids


@pytest.fixture
def labels() -> np.ndarray:
    """Blobs that chunks cut, a large number, and the background."""
    values = np.random.default_rng(0).integers(0, 6, (9, 13)).repeat(7, axis=0).repeat(5, axis=1)
    return np.where(values == 5, 2**40, values)


@pytest.mark.parametrize("chunks", [(63, 65), (10, 11), (63, 4)])
def test_centroids_of_labels_are_those_of_spatialdata_however_they_are_chunked(labels, chunks):
    element = Labels2DModel.parse(da.from_array(labels, chunks=chunks))
    index, xy = label_centroids(element)
    theirs = sd.get_centroids(element).compute()
    np.testing.assert_array_equal(index, theirs.index)
    np.testing.assert_allclose(xy, theirs[["x", "y"]])
    assert 0 not in index


def test_large_blocks_are_split(labels, monkeypatch):
    monkeypatch.setattr("inst_align._spatialdata.centroids._LARGEST_BLOCK", 8)
    seen = []

    def look(block: np.ndarray) -> np.ndarray:
        seen.append(block.shape)
        return block

    element = Labels2DModel.parse(labels)
    expected = label_centroids(element)[1]
    element.data = da.from_array(labels, chunks=8).map_blocks(look, meta=np.empty((0, 0), labels.dtype))
    np.testing.assert_allclose(label_centroids(element)[1], expected)
    assert max(max(shape) for shape in seen) <= 8


def test_the_finest_of_several_scales_is_looked_at(labels):
    single, several = (Labels2DModel.parse(labels, scale_factors=factors) for factors in (None, [2]))
    for one, other in zip(instances(single), instances(several)):
        np.testing.assert_array_equal(one, other)
