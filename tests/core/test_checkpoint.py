"""State on disk comes back as it was, for the fit that wrote it only, and a file that is not whole is told of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from inst_align.core.checkpoint import MANIFEST, NOTHING, FolderCheckpoint, kept_seed
from inst_align.core.state import decode, encode
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from pathlib import Path


def opened(folder: Path, **changes: Any) -> FolderCheckpoint:
    known: dict[str, Any] = {"version": "1.0", "data": {"cells": "abc"}, "parameters": {"rng": 0, "accept": "auto"}}
    return FolderCheckpoint(folder, **(known | changes))


def trained(steps: int, state: dict[str, Any] | None = None) -> tuple[torch.nn.Linear, torch.optim.Adam, Any]:
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.zero_()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    if state is not None:
        layer.load_state_dict(state["layer"])
        optimiser.load_state_dict(state["optimiser"])
        rates.load_state_dict(state["rates"])
    for _ in range(steps):
        optimiser.zero_grad()
        layer(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
        optimiser.step()
        rates.step()
    return layer, optimiser, rates


def test_state_comes_back_with_its_types(tmp_path: Path) -> None:
    state = {
        "none": None,
        "flags": [True, 3, 0.1, float("inf"), "word"],
        "pair": (np.float32(0.5), np.bool_(False)),
        7: {
            "array": np.arange(6).reshape(2, 3),
            "scalar": torch.tensor(2.5),
            "empty": {},
            "bytes": np.array([1], "u1"),
        },
        "pose": Affine.from_rigid(0.3, (1.0, -2.0)),
    }
    opened(tmp_path).save("stage", lambda: state)
    found = opened(tmp_path).load("stage")
    assert found.keys() == state.keys()
    assert found["none"] is None
    assert found["flags"] == state["flags"]
    assert [type(value) for value in found["flags"]] == [bool, int, float, float, str]
    assert found["pair"] == (0.5, False)
    np.testing.assert_array_equal(found[7]["array"], state[7]["array"])
    assert found[7]["scalar"].shape == () and found[7]["scalar"].dtype == torch.float32
    assert found[7]["bytes"].dtype == np.uint8
    assert found["pose"] == state["pose"]


def test_an_optimiser_goes_on_from_its_state_as_if_nothing_had_happened(tmp_path: Path) -> None:
    layer, optimiser, rates = trained(3)
    parts = {"layer": layer, "optimiser": optimiser, "rates": rates}
    opened(tmp_path).save("stage", lambda: {name: part.state_dict() for name, part in parts.items()})
    resumed, _, _ = trained(4, opened(tmp_path).load("stage"))
    straight, _, _ = trained(7)
    assert torch.equal(resumed.weight, straight.weight)
    assert torch.equal(resumed.bias, straight.bias)


@pytest.mark.parametrize("value", [object(), {1.5: 0}, {"deep": [lambda: 0]}])
def test_what_json_and_arrays_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="The state of a fit cannot"):
        encode(value)


def test_a_tree_of_words_only_needs_no_arrays() -> None:
    tree, arrays = encode({"a": ["b", 1]})
    assert arrays == []
    assert decode(json.loads(json.dumps(tree)), arrays) == {"a": ["b", 1]}


def test_without_a_folder_nothing_is_kept_or_even_made() -> None:
    def fail() -> None:
        raise AssertionError

    NOTHING.save("stage", fail)
    assert NOTHING.load("stage") is None
    assert not any(NOTHING.due(step, 10) for step in range(10))


@pytest.mark.parametrize(("n_steps", "times"), [(400, 10), (17, 9), (10, 10), (7, 7), (1, 1)])
def test_state_is_due_at_most_ten_times_and_at_the_end(tmp_path: Path, n_steps: int, times: int) -> None:
    checkpoint = opened(tmp_path)
    due = [step for step in range(n_steps) if checkpoint.due(step, n_steps)]
    assert len(due) == times
    assert due[-1] == n_steps - 1


def test_a_stage_that_was_kept_is_not_computed_again_and_randomness_goes_on_after_it(tmp_path: Path) -> None:
    def compute() -> tuple[Affine, float]:
        calls.append(1)
        stops.append("pose: loss not finite at step 3")
        return Affine(np.eye(3)), float(torch.rand((), generator=generator))

    calls: list[int] = []
    found = []
    for _ in range(2):
        generator, stops = torch.Generator().manual_seed(4), list[str]()
        result = opened(tmp_path).once("pose", compute, generator=generator, stops=stops)
        found.append((result, float(torch.rand((), generator=generator)), stops))
    assert len(calls) == 1
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "1.1"}, r"is that of a fit by inst-align 1\.0 \(format 2\), and this is 1\.1 \(format 2\)"),
        ({"data": {"cells": "abd"}}, r"is that of a fit of other data \(cells\)"),
        ({"data": {"cells": "abc", "landmarks": "e"}}, r"is that of a fit of other data \(landmarks\)"),
        ({"parameters": {"rng": 1, "accept": "rigid"}}, r"is that of a fit with other parameters \(rng, accept\)"),
        ({"parameters": {"rng": 0}}, r"is that of a fit with other parameters \(accept\)"),
    ],
)
def test_the_state_of_another_fit_is_refused_until_that_has_ended(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    first = opened(tmp_path)
    first.save("pose", lambda: 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message) as caught:
        opened(tmp_path, **changes)
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith("delete this one to start anew.")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    first.finish()
    assert opened(tmp_path).load("pose") == 1
    assert opened(tmp_path, **changes).load("pose") is None


@pytest.mark.parametrize("name", ["pose.npz", MANIFEST])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"{}" * 50])
def test_a_damaged_file_is_told_of_in_one_sentence(tmp_path: Path, name: str, damage: Any) -> None:
    opened(tmp_path).save("pose", lambda: {"values": np.arange(1000.0)})
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        opened(tmp_path).load("pose")
    wanted = f"`checkpoint={str(tmp_path)!r}`: {name!r} is damaged and cannot be read; delete the folder to start anew."
    assert str(caught.value) == wanted


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    opened(tmp_path).save("pose", lambda: {"values": np.zeros(1000)})
    path = tmp_path / "pose.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="'pose.npz' is damaged"):
        opened(tmp_path).load("pose")


def test_a_file_from_another_folder_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "a").save("pose", lambda: 1)
    other = opened(tmp_path / "b", parameters={})
    (tmp_path / "b" / "pose.npz").write_bytes((tmp_path / "a" / "pose.npz").read_bytes())
    with pytest.raises(ValueError, match=r"'pose.npz' belongs to another fit than 'inst-align-checkpoint.json'"):
        other.load("pose")


def test_a_write_that_breaks_off_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = opened(tmp_path)
    checkpoint.save("field", lambda: 1)

    def interrupted(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("numpy.savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save("field", lambda: 2)
    assert {path.name for path in tmp_path.iterdir()} == {"field.npz", MANIFEST}
    assert opened(tmp_path).load("field") == 1


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / ".field.npz.123.partial").touch()
    assert opened(tmp_path).load("field") is None
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST}


def test_folders_with_other_things_in_them_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.npz").write_text("important")
    with pytest.raises(
        ValueError, match=r"has 1 files and folders in it, 'thesis.npz' for one, and no 'inst-align-checkpoint.json'"
    ):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"is a file; give the name of a folder\."):
        opened(tmp_path / "thesis.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.npz"]


def test_a_seed_that_was_drawn_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    assert kept_seed(tmp_path) is None
    opened(tmp_path, seed=2**64 - 1)
    assert kept_seed(tmp_path) == 2**64 - 1
