"""The one place that judges input: each function returns clean arrays, or raises one sentence that says what to do.

A sentence names the argument, the section, what was found, how many, an example, what there is, and the way out.
``KeyError`` for keys, ``ValueError`` for values, ``TypeError`` for containers; ``UserWarning`` where the work goes on.
"""

from inst_align._checks._coordinates import (
    FEW_CELLS,
    FEWEST_CELLS,
    NanPolicy,
    check_area,
    check_enough_cells,
    check_nan_policy,
    coordinates,
    representation,
    warn_of_few_cells,
    warn_of_unknown_places,
)
from inst_align._checks._expression import check_counts, finite_expression, is_lazy, matrix_of, warn_of_negative
from inst_align._checks._library import find_label, labels_in_words, library_labels, rows_with
from inst_align._checks._layout import piece_sizes, stray_cells, warn_of_pieces, warn_of_strays
from inst_align._checks._objects import (
    check_anndata,
    check_copy,
    check_key_added,
    unique_var_names,
    warn_of_repeated_cells,
)
from inst_align._checks._units import Scale, check_factor, check_place, check_scale, check_units, extent
from inst_align._checks._words import ARGUMENTS, Role, listing, warn_user

__all__ = [
    "ARGUMENTS",
    "FEWEST_CELLS",
    "FEW_CELLS",
    "NanPolicy",
    "Role",
    "Scale",
    "check_anndata",
    "check_area",
    "check_copy",
    "check_counts",
    "check_enough_cells",
    "check_factor",
    "check_key_added",
    "check_nan_policy",
    "check_place",
    "check_scale",
    "check_units",
    "coordinates",
    "extent",
    "find_label",
    "finite_expression",
    "is_lazy",
    "labels_in_words",
    "library_labels",
    "listing",
    "matrix_of",
    "piece_sizes",
    "representation",
    "rows_with",
    "stray_cells",
    "unique_var_names",
    "warn_of_few_cells",
    "warn_of_negative",
    "warn_of_pieces",
    "warn_of_repeated_cells",
    "warn_of_strays",
    "warn_of_unknown_places",
    "warn_user",
]
