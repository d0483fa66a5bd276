"""Time and peak memory of moving a large image, large labels and many points of a zarr-backed SpatialData object.

    PYTHONPATH=src python benchmarks/spatialdata_scale.py --store DIR

Makes a store in DIR once (2 GB by default), whose image is a known function of the place. Then, for each run in a
process of its own: read the store, move elements by a rotation and a warp, write the new ones to the store, read them
back, and compare them with the truth at random places. One line of JSON per run: seconds, peak memory, and the error:
grey levels (of up to 112 per pixel), the share of labels that are wrong, or micrometres.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Identity, Scale, Sequence, Translation

import inst_align as ia

UNIT = 0.5  # micrometres per pixel
CORNER = (300.0, -100.0)
CELL = 24  # pixels from cell to cell
PER_PARTITION = 1_000_000
RUNS = ("image", "pyramid", "labels", "points", "image+points")


def brightness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What the image shows at a place, in micrometres."""
    return 20_000 + 9_000 * (np.sin(x / 40) + np.cos(y / 55))


def make_map(extent: float) -> ia.transforms.Compose:
    """Return a rotation by 20 degrees and a smooth warp by up to 3 % of the extent, on 120 x 120 nodes."""
    turn = ia.transforms.Affine.from_rigid(np.deg2rad(20), (0.1 * extent, -0.2 * extent))
    y, x = np.mgrid[-0.1:1.1:120j, -0.1:1.1:120j]
    vectors = 0.03 * extent * np.stack([np.sin(5 * y) * np.cos(4 * x), np.cos(6 * x) * np.sin(3 * y + 1)])
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * extent + CORNER
    origin = turn(corners).min(axis=0) - 0.1 * extent
    return ia.transforms.Displacement(vectors, origin, 1.6 * extent / 119) @ turn


def make_store(path: Path, n_pixels: int, n_points: int) -> None:
    """Write a section with one image, the same image with several scales, labels, and points."""
    place = Sequence([Scale([UNIT, UNIT], axes=("x", "y")), Translation(list(CORNER), axes=("x", "y"))])
    chunks = ((1024,) * (n_pixels // 1024) + ((n_pixels % 1024,) if n_pixels % 1024 else ()),) * 2

    def pixels(block_info: dict | None = None) -> np.ndarray:
        (top, bottom), (left, right) = block_info[None]["array-location"]
        x, y = (UNIT * (np.arange(a, b) + 0.5) + c for a, b, c in zip((left, top), (right, bottom), CORNER))
        return np.rint(brightness(x, y[:, None])).astype(np.uint16)

    def cells(block_info: dict | None = None) -> np.ndarray:
        (top, bottom), (left, right) = block_info[None]["array-location"]
        column, row = np.arange(left, right) // CELL, np.arange(top, bottom)[:, None] // CELL
        return (1 + row * (n_pixels // CELL + 1) + column).astype(np.int32)

    def transcripts(part: int) -> pd.DataFrame:
        rng = np.random.default_rng(part)
        xy = rng.uniform(0, UNIT * n_pixels, (PER_PARTITION, 2)) + CORNER
        gene = pd.Categorical.from_codes(rng.integers(300, size=len(xy)), [f"gene{i}" for i in range(300)])
        index = pd.RangeIndex(part * len(xy), (part + 1) * len(xy))
        return pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "gene": gene, "quality": rng.uniform(size=len(xy))}, index)

    image = da.map_blocks(pixels, chunks=chunks, dtype=np.uint16, meta=np.empty((0, 0), np.uint16))[None]
    labels = da.map_blocks(cells, chunks=chunks, dtype=np.int32, meta=np.empty((0, 0), np.int32))
    parts = max(1, n_points // PER_PARTITION)
    points = dd.from_map(transcripts, range(parts), meta=transcripts(0).iloc[:0])
    section = sd.SpatialData(
        images={
            "image": Image2DModel.parse(image, transformations={"global": place}),
            "pyramid": Image2DModel.parse(
                image, scale_factors=[2, 2, 2], chunks={"c": 1, "y": 1024, "x": 1024}, transformations={"global": place}
            ),
        },
        labels={"labels": Labels2DModel.parse(labels, transformations={"global": place})},
        points={
            "points": PointsModel.parse(points, feature_key="gene", transformations={"global": Identity()}, sort=True)
        },
    )
    section.write(path)


def finest(raster: object) -> object:
    return raster["scale0"]["image"] if "scale0" in getattr(raster, "children", {}) else raster


def raster_error(element: object, kind: str, transform: ia.transforms.Compose, n_pixels: int) -> float:
    """Return the largest error of an image in grey levels, or the share of labels that are wrong, at random places."""
    raster = finest(element)
    matrix = sd.transformations.get_transformation(element, "aligned").to_affine_matrix(("x", "y"), ("x", "y"))
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(20):
        top, left = (int(rng.integers(0, raster.sizes[axis] - 64)) for axis in ("y", "x"))
        window = raster.data[..., top : top + 64, left : left + 64].compute().reshape(64, 64)
        x, y = np.meshgrid(left + 0.5 + np.arange(64), top + 0.5 + np.arange(64))
        there = np.column_stack([x.ravel(), y.ravel()]) @ matrix[:2, :2].T + matrix[:2, 2]
        here = transform.inverse()(there)
        pixel = (here - CORNER) / UNIT
        inside = np.all((pixel > 1) & (pixel < n_pixels - 1), axis=1)
        if kind == "labels":
            column, row = (pixel // CELL).astype(int).T
            errors.append((window.ravel() != 1 + row * (n_pixels // CELL + 1) + column)[inside])
        else:
            errors.append(np.abs(window.ravel() - brightness(*here.T))[inside])
    found = np.concatenate(errors)
    return float(found.mean() if kind == "labels" else found.max())


def points_error(points: dd.DataFrame, before: dd.DataFrame, transform: ia.transforms.Compose) -> float:
    """Return the largest distance from the true place in one partition."""
    moved, old = (frame.partitions[-1].compute()[["x", "y"]].to_numpy() for frame in (points, before))
    return float(np.hypot(*(moved - transform(old)).T).max())


def peak_gib() -> float:
    """Return the largest memory that this process has had so far (kibibytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2)


def move(path: Path, names: list[str], n_pixels: int) -> dict[str, object]:
    """Move elements of the store, write them there, and return what that took; the store is left as it was."""
    start = time.perf_counter()
    section = sd.read_zarr(path)
    transform = make_map(UNIT * n_pixels)
    before, opened = peak_gib(), time.perf_counter()
    ia.tl.move_elements(section, transform, elements=names)
    called = time.perf_counter()
    new = [f"{name}_aligned" for name in names]
    section.write_element(new)
    written, peak = time.perf_counter(), peak_gib()
    again = sd.read_zarr(path)
    sizes, errors = {}, {}
    for name, moved in zip(names, new):
        if name == "points":
            sizes[name] = f"{len(again[moved])}"
            errors[name] = round(points_error(again[moved], again[name], transform), 6)
        else:
            sizes[name] = "x".join(str(finest(again[moved]).sizes[axis]) for axis in ("x", "y"))
            errors[name] = round(raster_error(again[moved], name, transform, n_pixels), 4)
    section.delete_element_from_disk(new)
    return {
        "moved": "+".join(names),
        "result": sizes,
        "seconds_to_open": round(opened - start, 1),
        "seconds_of_call": round(called - opened, 1),
        "seconds_to_write": round(written - called, 1),
        "gib_before": before,
        "gib_peak": peak,
        "error": errors,
    }


def main() -> None:
    """Read the command line, make the store if there is none, and run each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="folder for the store")
    parser.add_argument("--pixels", type=int, default=20_000, help="rows and columns of the image")
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--move", nargs="+", default=RUNS, metavar="NAMES", help="elements; joined by + move together")
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.store / f"section_{options.pixels}_{options.points}.zarr"
    if options.here == "make":
        make_store(path, options.pixels, options.points)
    elif options.here:
        with dask.config.set(scheduler="threads", num_workers=options.workers):
            print(json.dumps(move(path, options.here.split("+"), options.pixels)))
    else:
        options.store.mkdir(parents=True, exist_ok=True)
        for run in (*(() if path.exists() else ("make",)), *options.move):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--here", run], check=True)


if __name__ == "__main__":
    main()
