"""Two sections of one or two SpatialData objects: what belongs to each, and how an alignment is written to both."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Affine as SpatialDataAffine
from spatialdata.transformations import Sequence

from inst_align._checks import listing
from inst_align._keys import SPATIALDATA, UNS, cell_columns
from inst_align._record import plain
from inst_align._spatialdata.elements import add, elements_in, matrix_to, new_names, register, transformations
from inst_align._spatialdata.move import check_movable
from inst_align._spatialdata.tables import Cells, read_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

    from inst_align._checks import Role
    from inst_align._spatialdata.elements import Element
    from inst_align.core.transforms import Affine

logger = logging.getLogger("inst_align")


@dataclass(frozen=True, kw_only=True, eq=False)
class SpatialSection:
    """One section: all elements that live in a coordinate system, and the cells among them.

    Parameters
    ----------
    sdata
        The object.
    system
        The coordinate system.
    cells
        The rows of its table that lie there.
    elements
        Everything that lives there, by name.
    """

    sdata: SpatialData
    system: str
    cells: Cells
    elements: dict[str, Element]


def read_sections(
    sdatas: tuple[SpatialData, SpatialData], tables: tuple[str, str], systems: tuple[str, str]
) -> tuple[SpatialSection, SpatialSection]:
    """Return the reference and the source.

    Raises
    ------
    KeyError, ValueError
        As :func:`inst_align._spatialdata.tables.read_cells`, or the sections are not two.
    """
    one = sdatas[0] is sdatas[1]
    if one and systems[0] == systems[1]:
        raise ValueError(
            f"`coordinate_system={systems[0]!r}` is both sections of one object; pass the coordinate systems of both, "
            "(reference, source)."
        )
    roles: tuple[Role, Role] = ("reference", "source")
    sections = []
    for sdata, table, system, role in zip(sdatas, tables, systems, roles):
        cells = read_cells(sdata, table, system, role)
        elements = elements_in(sdata, system, None, argument=f"sdata_{role[:3]}")
        sections.append(SpatialSection(sdata=sdata, system=system, cells=cells, elements=elements))
    if one and (both := sorted(sections[0].elements.keys() & sections[1].elements.keys())):
        raise ValueError(
            f"`coordinate_system={systems!r}`: {listing(both)} live in both, so that the sections share them; remove one of "
            "their transformations."
        )
    return sections[0], sections[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What an alignment of two sections is going to write, checked before anything is computed.

    Parameters
    ----------
    ref
        The section that stays; its elements are registered to ``to`` and ``affine_to`` as they are.
    src
        The section that moves; its elements are registered to ``affine_to``.
    key
        Of the result in the tables.
    to
        The coordinate system of the new elements.
    affine_to
        The coordinate system of the affine part.
    names
        Names of new elements by the names of those that they are made of.
    before
        Names that an earlier run under the same key wrote: of elements that it registered, and of those that it made.
    """

    ref: SpatialSection
    src: SpatialSection
    key: str
    to: str
    affine_to: str
    names: dict[str, str]
    before: dict[str, set[str]]

    def write(self, affine: Affine, new: Mapping[str, Element], results: tuple[AnnData, AnnData]) -> None:
        """Write transformations, new elements (by the names of the old), coordinates and records; nothing computes."""
        for element in self.ref.elements.values():
            for system in {self.to, self.affine_to} - transformations(element).keys():
                register(element, system, transformations(element)[self.ref.system])
        step = SpatialDataAffine(affine.matrix, input_axes=("x", "y"), output_axes=("x", "y"))
        for element in self.src.elements.values():
            register(element, self.affine_to, Sequence([transformations(element)[self.src.system], step]))
        add(self.src.sdata, {self.names[name]: element for name, element in new.items()})
        record = results[1].uns[UNS][self.key]
        written = {"registered": set(self.src.elements), "made": set(self.names.values())}
        record[SPATIALDATA] = plain(
            {
                "coordinate_system": self.src.system,
                "to": self.to,
                "affine_to": self.affine_to,
                **{kind: sorted(names | self.before[kind]) for kind, names in written.items()},
            }
        )
        _write_tables(self.ref.cells, self.src.cells, self.key, results)


def make_plan(
    ref: SpatialSection,
    src: SpatialSection,
    *,
    key: str,
    to: str,
    affine_to: str,
    elements: Iterable[str] | None,
    suffix: str,
) -> Plan:
    """Check that everything that is going to be written can be.

    Raises
    ------
    KeyError, ValueError
        An element to be moved is not there or not in the source, a new name is taken, or a transformation to ``to`` or
        ``affine_to`` would have to be replaced.
    """
    _check_systems(to, affine_to, (ref.system, src.system))
    chosen = elements_in(src.sdata, src.system, elements, argument="sdata_src")
    check_movable(chosen)
    before = _written_before(src.cells, key)
    names = new_names(src.sdata, chosen, suffix, ours=before["made"])
    for name, element in src.elements.items():
        if affine_to in transformations(element) and name not in before["registered"]:
            raise ValueError(_taken(name, affine_to, "affine_to", "source"))
    for name, element in ref.elements.items():
        for system, argument in ((to, "to"), (affine_to, "affine_to")):
            if system in transformations(element) and not np.allclose(
                matrix_to(element, system), matrix_to(element, ref.system)
            ):
                raise ValueError(_taken(name, system, argument, "reference"))
    return Plan(ref=ref, src=src, key=key, to=to, affine_to=affine_to, names=names, before=before)


def _check_systems(to: str, affine_to: str, taken: tuple[str, str]) -> None:
    for argument, system in (("to", to), ("affine_to", affine_to)):
        if system in taken:
            raise ValueError(f"`{argument}={system!r}` is the coordinate system of a section; pass another name.")
    if to == affine_to:
        raise ValueError(f"`to` and `affine_to` are both {to!r}; pass two names.")


def _taken(name: str, system: str, argument: str, role: str) -> str:
    return (
        f"`{argument}={system!r}`: element {name!r} of the {role} has a transformation to it already, which is never "
        f"overwritten; pass another `{argument}`, or remove it."
    )


def _written_before(cells: Cells, key: str) -> dict[str, set[str]]:
    """Return what an earlier run under the same key wrote to the source's elements, which may be written again."""
    entry = cells.sdata.tables[cells.name].uns.get(UNS, {}).get(key, {}).get(SPATIALDATA, {})
    return {kind: set(np.asarray(entry.get(kind, []), dtype=object).tolist()) for kind in ("registered", "made")}


def _write_tables(ref: Cells, src: Cells, key: str, results: tuple[AnnData, AnnData]) -> None:
    ref.write(key, results[0])
    reference_rows = ref.sdata.tables[ref.name].obsm[key][ref.rows]
    src.write(key, results[1])
    table = src.sdata.tables[src.name]
    if ref.sdata is src.sdata and ref.name == src.name:  # one table for both sections: the record is the source's
        table.obsm[key][ref.rows] = reference_rows
        for column in set(cell_columns(key)) & set(results[0].obs):
            values = table.obs[column].to_numpy(copy=True)
            values[ref.rows] = results[0].obs[column]
            table.obs[column] = values
