"""The report as an object: what it holds, how it reads, and which doubts it raises."""

from __future__ import annotations

import dataclasses
import pickle
import re
from html import escape
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from anndata.io import read_h5ad
from hypothesis import given
from hypothesis import strategies as st

import inst_align as ia
from inst_align._report import NAMES, RunReport
from inst_align._report_findings import findings
from inst_align._report_words import VERDICTS, doubts_about, verdict_in_words

FULL: dict[str, Any] = {
    "verdict": "non-rigid",
    "pose_method": "fft",
    "angle": -30.04,
    "mirrored": False,
    "pose_score": 0.8,
    "pose_runner_up": 0.5,
    "pose_mirrored_score": 0.4,
    "pose_ambiguous": False,
    "pose_mirrored_better": False,
    "heldout_correlation_rigid": 0.5,
    "heldout_correlation_nonrigid": 0.6,
    "heldout_gain": 0.05,
    "heldout_gain_standard_error": 0.01,
    "overlap": 0.5,
    "displacement_median": 1.23,
    "displacement_max": 4.56,
    "area_change_min": 0.8,
    "area_change_max": 1.25,
    "fold_fraction": 0.0,
    "feature_correlation_rigid": 0.5,
    "feature_correlation": 0.75,
    "landmark_error": np.array([1.0, 2.0]),
    "landmark_error_median": 1.5,
    "landmark_error_max": 2.0,
    "spacing_reference": 17.0,
}
"""Of a run that nothing can be said against."""


RELATED = {
    "heldout_correlation_pose": 0.5,
    "heldout_correlation_null": 0.1,
    "heldout_z": 12.3,
    "heldout_shared_signal": 0.9,
}
"""What a run says that asked whether the sections agree at all."""


def report(**changes: Any) -> RunReport:
    return RunReport.from_record({"report": {name: v for name, v in (FULL | changes).items() if v is not None}})


def source(record: dict[str, Any]) -> AnnData:
    adata = AnnData(np.ones((2, 1)))
    adata.uns["inst_align"] = {"spatial_aligned": {"version": 1, "role": "source"} | record}
    return adata


# ---- what it holds


plain_values = st.one_of(st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=5))


@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(min_size=1, max_size=8)), plain_values))
def test_as_a_mapping_it_is_what_is_stored(stored: dict[str, Any]) -> None:
    found = RunReport.from_record({"report": stored})
    assert dict(found) == found.to_dict() == stored
    assert found == stored
    assert len(found) == len(stored)
    assert all(found.get(name) == value for name, value in stored.items())


def test_what_a_run_has_not_found_is_none_as_an_attribute_and_missing_as_a_key() -> None:
    found = ia.get.report(source({"report": {"overlap": 0.9, "new_number": 3.0}}))
    assert (found.overlap, found["overlap"], found.fold_fraction) == (0.9, 0.9, None)
    assert "fold_fraction" not in found
    assert found["new_number"] == found.other["new_number"] == 3.0
    with pytest.raises(KeyError, match="no such number; it has overlap, new_number"):
        found["fold_fraction"]


def test_it_cannot_be_changed_and_goes_through_pickle() -> None:
    found = report(new=np.arange(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.overlap = 1.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(found)) == found
    assert found != report(new=np.arange(4))
    assert found != report()


@pytest.mark.usefixtures("coarse_search")
@pytest.mark.parametrize("given", [True, False])
def test_every_key_of_a_real_run_has_an_attribute(
    pair: tuple[AnnData, AnnData], tiny: Any, true_pose: np.ndarray, tmp_path: Any, given: bool
) -> None:
    ref, src = pair
    if given:
        marks = {"landmarks_ref": src.obsm["spatial_true"][:4], "landmarks_src": src.obsm["spatial"][:4]}
        start = {"init": true_pose}
    else:
        marks, start = {}, {"scale": 1.0}
    ia.tl.align_pair(ref, src, config=tiny, field=False, rng=0, progress=False, **marks, **start)
    found = ia.get.report(src)
    assert not found.other
    assert set(found) == set(src.uns["inst_align"]["spatial_aligned"]["report"])
    src.write_h5ad(tmp_path / "src.h5ad")
    back = ia.get.report(read_h5ad(tmp_path / "src.h5ad"))
    assert back == found
    assert back.convergence == found.convergence


def test_how_a_fit_ended_is_told_stage_by_stage_also_as_files_nest_it() -> None:
    flat = {"phase1.data": np.array([3.0, 2.0]), "phase1.smooth": np.array([1.0, 0.5]), "phase2.data": np.array([1.0])}
    nested = {"phase1": {"data": flat["phase1.data"], "smooth": flat["phase1.smooth"]}, "phase2.data": np.array([1.0])}
    backwards = dict(reversed(flat.items()))
    for history in (flat, nested, backwards):
        ends = ia.get.report(source({"report": {"overlap": 1.0}, "history": history})).convergence
        assert [(name, stage.steps) for name, stage in ends.items()] == [("phase1", 2), ("phase2", 1)]
        assert ends["phase1"].last == {"data": 2.0, "smooth": 0.5}


# ---- how it reads


def test_on_screen_the_verdict_comes_first_and_the_columns_are_aligned() -> None:
    lines = repr(report()).splitlines()
    assert lines[0].startswith("Verdict")
    assert "non-rigid: bending the source pays (supported)" in lines[0]
    column = lines[0].index("non-rigid")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    "words",
    [
        "turned by -30.0 degrees, not mirrored, found by a global search",
        "0.80; next best pose 0.50; mirror image 0.40",
        "50.0% of the source's cells lie on the reference",
        "0.500 after the pose, 0.600 after bending",
        "5.0% +- 1.0%",
        "1.2 nd at the median, 4.6 nd at most",
        "0.80 to 1.25 times",
        "2 pairs end 1.5 nd apart at the median, 2.0 nd at most",
        "median neighbour distance of the reference, 17 in its unit",
    ],
)
def test_on_screen_numbers_come_with_their_units(words: str) -> None:
    assert words in " ".join(str(report()).split())
    assert escape(words) in report()._repr_html_()


@pytest.mark.parametrize("name", NAMES)
def test_any_number_can_be_there_alone(name: str) -> None:
    kind = next(each.type for each in dataclasses.fields(RunReport) if each.name == name)
    value = {"str": "fft", "bool": True, "float": 0.5, "np.ndarray": np.array([0.5])}[str(kind).split(" |")[0]]
    found = RunReport.from_record({"report": {name: value}})
    assert str(found).startswith("Verdict")
    assert found._repr_html_().count("<tr>") >= 1
    assert verdict_in_words(found, []).tone == "check"


def test_numbers_that_this_version_does_not_know_are_shown_too() -> None:
    text = str(report(new_number=0.123456, words="yes", many=np.arange(9)))
    assert "new_number 0.1235, words yes, many" in " ".join(text.split())


def test_the_distance_between_neighbours_is_explained_only_where_it_is_used() -> None:
    assert "nd" in dict(findings(report()))
    assert "nd" not in dict(findings(RunReport(overlap=0.5, spacing_reference=3.0)))


def test_in_a_notebook_nothing_from_the_data_is_taken_for_markup() -> None:
    html = report(verdict="<b>bold</b>", pose_method="<i>", **{"<script>": "</td>"})._repr_html_()
    assert not re.search(r"<(b|i|script)>", html)
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "&lt;script&gt; &lt;/td&gt;" in html


# ---- the verdict and doubts


def said_of(found: RunReport) -> Any:
    return verdict_in_words(found, doubts_about(found))


def test_each_verdict_has_words_of_its_own_and_only_two_say_that_the_result_is_supported() -> None:
    said = {name: said_of(report(verdict=name, displacement_max=0.0)) for name in (*VERDICTS, "untested")}
    assert len({(each.title, each.meaning, each.advice) for each in said.values()}) == len(said)
    assert {name for name, each in said.items() if each.tone == "good"} == {"non-rigid", "rigid sufficient"}
    assert {name for name, each in said.items() if each.tone == "bad"} == {"poor"}


@pytest.mark.parametrize("verdict", [None, "untested"])
def test_a_run_that_held_nothing_out_is_never_called_supported(verdict: str | None) -> None:
    rigid, bent = (RunReport(verdict=verdict, displacement_max=moved) for moved in (None, 2.0))
    assert said_of(rigid).title != said_of(bent).title
    assert said_of(rigid).label == said_of(bent).label == "Not judged"
    assert "Nothing independent says" in said_of(bent).meaning
    assert str(rigid).splitlines()[0].endswith("otation and a shift (not judged)")
    related = said_of(RunReport(verdict=verdict, **RELATED))
    assert (related.label, related.tone) == ("Partly judged", "check")
    assert "more than unrelated ones would" in related.meaning


@pytest.mark.parametrize(("name", "genes"), [("heldout", "held-out genes"), ("feature", "all genes")])
def test_agreement_is_told_next_to_that_of_unrelated_sections(name: str, genes: str) -> None:
    numbers = {key.replace("heldout", name): value for key, value in RELATED.items()}
    text = dict(findings(report(**numbers)))["Agreement"]
    assert f"{genes} correlate by 0.500; those of unrelated sections would by 0.100 (12.3 standard" in text
    assert "90% of the spatial signal" in text
    nowhere = {key: float("nan") for key in numbers}
    assert dict(findings(report(**nowhere)))["Agreement"] == "hardly a cell lies on tissue of the other section"
    assert "Agreement" not in dict(findings(report()))


def test_a_source_that_may_lie_wrong_side_up_is_told_from_one_that_may_lie_turned() -> None:
    mirrored = said_of(report(verdict="ambiguous pose", pose_mirrored_better=True))
    turned = said_of(report(verdict="ambiguous pose", pose_mirrored_better=True, pose_ambiguous=True))
    assert "mirror image" in mirrored.title
    assert "More than one pose" in turned.title
    assert (
        "mirror image"
        in doubts_about(report(verdict="ambiguous pose", pose_mirrored_better=True, pose_ambiguous=True))[0]
    )


def test_a_verdict_of_a_later_version_is_shown_and_not_trusted() -> None:
    said = said_of(report(verdict="excellent"))
    assert "excellent" in said.title
    assert said.tone == "check"


def test_bending_that_landmarks_asked_for_is_not_put_down_to_genes() -> None:
    said = said_of(report(landmarks_ask_for_bending=True, heldout_gain=0.0))
    assert "landmarks" in said.title
    assert "agree better" not in said.meaning


def test_sections_that_lie_right_as_stored_are_said_to_have_stayed() -> None:
    said = said_of(report(verdict="rigid sufficient", pose_method="stored", displacement_max=0.0))
    assert "as they are stored" in said.title


def test_without_cause_there_is_no_doubt() -> None:
    assert doubts_about(report()) == []
    assert doubts_about(RunReport()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pose_ambiguous": True, "pose_runner_up": 0.78}, "different pose scores 0.78 against 0.80"),
        ({"pose_mirrored_better": True, "pose_mirrored_score": 0.9}, "mirror image scores 0.90"),
        ({"pose_mirrored_score": 0.81}, "mirror image scores 0.81"),
        ({"pose_mirrored_better": True, "pose_mirrored_rivalry": 0.99}, "mirror image reaches 99% of the agreement"),
        ({"pose_mirrored_better": False, "pose_mirrored_rivalry": 0.96}, "mirror image reaches 96% of the agreement"),
        ({"overlap": 0.12}, "Only 12.0% of the source's cells"),
        ({"heldout_correlation_nonrigid": 0.04}, "correlate by only 0.04"),
        ({"heldout_correlation_nonrigid": float("nan")}, "correlate by only nan"),
        ({"fold_fraction": 0.015}, "folds at 1.50% of the source's cells"),
        ({"feature_correlation": 0.4}, "agrees less after the whole map (0.400)"),
        ({"area_change_max": 6.0}, "0.80 to 6.00 times"),
        ({"area_change_min": 0.1}, "0.10 to 1.25 times"),
        ({"landmark_error": np.array([1.0, 9.0])}, "1 of 2 pairs of landmarks"),
        (
            {"stopped_early": "registration: loss not finite at step 7"},
            "stopped early (registration: loss not finite at step 7)",
        ),
    ],
)
def test_a_doubt_is_spelled_out_and_takes_the_support_away(changes: dict[str, Any], words: str) -> None:
    found = report(**changes)
    (doubt,) = doubts_about(found)
    assert words in doubt
    assert said_of(found).tone == "check"
    assert said_of(found).title == said_of(report()).title
    assert doubt.split(":")[0] in " ".join(str(found).split())


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "ambiguous pose", "pose_ambiguous": True},
        {"mirrored": True, "pose_mirrored_better": True, "pose_mirrored_score": 0.9},
        {"pose_mirrored_score": 0.79},
        {"pose_mirrored_score": 0.81, "pose_mirrored_rivalry": 0.94},
        {"heldout_correlation_nonrigid": 0.04, **RELATED},
        {"verdict": "ambiguous pose", "pose_mirrored_better": True, "pose_mirrored_score": 0.9},
        {"verdict": "untested", "displacement_max": None, "landmark_error": np.array([9.0])},
        {"verdict": None, "displacement_max": None, "landmark_error": np.array([9.0])},
    ],
)
def test_what_the_verdict_covers_or_cannot_be_otherwise_is_no_doubt(changes: dict[str, Any]) -> None:
    assert doubts_about(report(**changes)) == []
