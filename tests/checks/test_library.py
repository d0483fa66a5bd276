"""Labels of sections are found by value and kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from inst_align import _checks as checks


def labelled(column: Any) -> AnnData:
    adata = AnnData(np.ones((len(column), 1)))
    adata.obs["sample"] = pd.Series(column).set_axis(adata.obs_names)
    return adata


COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "words": (["b", "a", "b"], ["b", "a"]),
    "categories": (pd.Categorical(["b", "a", "b"], ["z", "b", "a"]), ["b", "a"]),
    "numbers": ([2, 1, 2], [2, 1]),
    "categories of numbers": (pd.Categorical([2, 1, 2], [1, 2, 7]), [1, 2]),
    "truth values": ([True, False, True], [True, False]),
    "nullable": (pd.array([2, 1, 2], dtype="Int64"), [2, 1]),
    "pandas strings": (pd.array(["b", "a", "b"], dtype="string"), ["b", "a"]),
    "two kinds": (pd.Series([1, "1", True], dtype=object), [1, "1", True]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_labels_and_their_rows_are_found(name: str) -> None:
    column, wanted = COLUMNS[name]
    adata = labelled(column)
    labels = checks.library_labels(adata, "sample")
    assert labels == wanted
    assert [type(label) for label in labels] == [type(label) for label in wanted]
    masks = [checks.rows_with(adata, "sample", label) for label in labels]
    assert all(mask.dtype == bool for mask in masks)
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    for label, mask in zip(labels, masks, strict=True):
        assert {(type(x), x) for x in adata.obs["sample"][mask].tolist()} == {(type(label), label)}


@pytest.mark.parametrize(("asked", "found"), [("1", None), (1, 1), (1.0, 1), (True, None), (np.int64(2), 2), (3, None)])
def test_a_label_of_another_kind_is_another_label(asked: Any, found: Any) -> None:
    if found is None:
        with pytest.raises(
            ValueError, match=r"`source=.*no cell has this label in `obs\['sample'\]`.*; there are 1, 2\."
        ):
            checks.find_label([1, 2], asked, "source", "sample")
    else:
        assert checks.find_label([1, 2], asked, "source", "sample") == found


def test_long_lists_of_labels_are_cut() -> None:
    assert checks.labels_in_words(list(range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
