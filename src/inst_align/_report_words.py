"""What the numbers of a report mean, as words: the verdict and doubts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from inst_align._calls import AGREES, LITTLE_OVERLAP
from inst_align._landmarks import APART

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inst_align._report import RunReport

Tone = Literal["good", "check", "bad"]

WIDTH = 116
"""Characters in a line of text."""
HARDLY_AGREE = 0.1
"""Correlation of held-out genes that is little for an alignment to stand on."""
NEARLY = 0.95
"""Share of a pose's agreement at which a mirror image is worth a word: another seed may turn them round."""
STRETCHED = 4.0
"""Factor by which hardly any tissue changes its area between sections."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verdict for people.

    Parameters
    ----------
    tone
        Whether the result can be used, has to be looked at, or is not to be used.
    label
        The tone in a word or two.
    title
        The verdict as a sentence without a full stop.
    meaning, advice
        What it says, and what to do next; whole sentences.
    """

    tone: Tone
    label: str
    title: str
    meaning: str
    advice: str


SUPPORTED = "Supported"

NON_RIGID = Verdict(
    tone="good",
    label=SUPPORTED,
    title="Bending the source pays",
    meaning="Genes that the trial fit had not seen agree better after bending the source than after the best rotation and "
    "shift, by clearly more than chance.",
    advice="Look at the overlay and at how the map bends the tissue, then use the coordinates.",
)
CALLED_FOR = replace(
    NON_RIGID,
    title="The landmarks ask for bending",
    meaning="No rotation and shift brings the pairs of landmarks together, so the source was bent, whatever the held-out "
    "genes gain by it.",
)
RIGID_SUFFICIENT = Verdict(
    tone="good",
    label=SUPPORTED,
    title="A rotation and a shift are enough",
    meaning="Bending the source would not have made genes that the trial fit had not seen agree any better, so it was left "
    "unbent.",
    advice="Look at the overlay, then use the coordinates.",
)
NOT_MOVED = replace(
    RIGID_SUFFICIENT,
    title="The sections lie on each other as they are stored",
    meaning="Neither moving nor bending the source would have made genes that the trial fit had not seen agree any better, "
    "so it was left where it is.",
)
AMBIGUOUS = Verdict(
    tone="check",
    label="Check the pose",
    title="More than one pose fits",
    meaning="A distinctly different rotation and shift explains the expression nearly as well, so the source may lie turned "
    "or shifted wrongly as a whole.",
    advice="Compare the overlay with the anatomy you know. To settle it, align again with a few pairs of landmarks or with "
    "a rough pose as `init`.",
)
MIRRORED = replace(
    AMBIGUOUS,
    title="A mirror image fits as well or better",
    meaning="The source, turned over, explains the expression as well as in any pose that was allowed, or better, so it may "
    "lie with the wrong side up.",
    advice="If the section may have been turned over, align again with `allow_reflection=True`; if not, compare the overlay "
    "with the anatomy you know.",
)
POOR = Verdict(
    tone="bad",
    label="Do not use",
    title="The sections do not match",
    meaning="Where the source was laid, it agrees with the reference hardly more than unrelated sections would, or shares "
    "too little with it to be the same tissue: what looks like a fit need not mean anything.",
    advice="Check that both sections are of the same tissue, that genes have the same names in both, and that the rows of "
    "expression and coordinates belong together. If all that is right, align again with landmarks or with a rough pose as "
    "`init`.",
)
RIGID_RUN = Verdict(
    tone="check",
    label="Not judged",
    title="A rotation and a shift",
    meaning="Whether bending the source would pay was not tested.",
    advice="Judge by the overlay and by the score of the best rival pose, or run `ia.tl.align_pair` as it comes, which holds "
    "genes out to judge.",
)
BENT_RUN = Verdict(
    tone="check",
    label="Not judged",
    title="A non-rigid map",
    meaning="The source was bent without a test whether that pays.",
    advice="Judge by the overlay and by how the map bends the tissue, or run `ia.tl.align_pair` as it comes, which holds "
    "genes out to judge.",
)
VERDICTS = {"non-rigid": NON_RIGID, "rigid sufficient": RIGID_SUFFICIENT, "ambiguous pose": AMBIGUOUS, "poor": POOR}
"""Those that say something; "untested", or none, leaves it open."""


def verdict_in_words(report: RunReport, doubts: Sequence[str]) -> Verdict:
    """Return what to think of a result. Doubts take the "supported" from a verdict."""
    if report.verdict in (None, "untested"):
        return _open(report)
    if report.verdict not in VERDICTS:
        return replace(
            RIGID_RUN,
            title=f"The verdict is {report.verdict!r}",
            meaning="This version of inst-align does not know that verdict.",
            advice="Judge by the overlay and the numbers.",
        )
    said = VERDICTS[report.verdict]
    if said is NON_RIGID and report.landmarks_ask_for_bending:
        said = CALLED_FOR
    if said is RIGID_SUFFICIENT and report.pose_method in ("stored", "identical"):
        said = NOT_MOVED
    if said is AMBIGUOUS and report.pose_mirrored_better and not report.pose_ambiguous:
        said = MIRRORED
    if said.tone == "good" and doubts:
        return replace(said, tone="check", label="Check by eye", advice=f"See to the doubts first. {said.advice}")
    return said


def _open(report: RunReport) -> Verdict:
    """Return what to say where nothing was held out. That the sections agree at all may have been asked."""
    said = BENT_RUN if report.displacement_max else RIGID_RUN
    found = report.agreement
    if found is None:
        return replace(said, meaning=f"Nothing independent says whether the sections agree. {said.meaning}")
    return replace(
        said,
        label="Partly judged",
        meaning=f"At the pose, the sections agree by clearly more than unrelated ones would. {said.meaning}",
    )


def doubts_about(report: RunReport) -> list[str]:
    """Return reasons not to trust a result yet, one sentence each."""
    return [*_of_pose(report), *_of_agreement(report), *_of_map(report), *_of_landmarks(report)]


def _of_pose(report: RunReport) -> Iterator[str]:
    score = number(report.pose_score)
    settled = report.verdict == "ambiguous pose"
    if report.pose_ambiguous and not settled:
        yield (
            f"A distinctly different pose scores {number(report.pose_runner_up)} against {score}: the tissue may be "
            f"symmetric, or too little of it overlaps."
        )
    if _mirror_fits(report) and not (settled and not report.pose_ambiguous):
        found = (
            f"scores {number(report.pose_mirrored_score)} against {score}"
            if report.pose_mirrored_rivalry is None
            else f"reaches {report.pose_mirrored_rivalry:.0%} of the agreement"
        )
        yield (
            f"A mirror image {found}: if the source may have been turned over, align again with `allow_reflection=True`."
        )
    if report.overlap is not None and report.overlap < LITTLE_OVERLAP:
        yield f"Only {report.overlap:.1%} of the source's cells lie on the reference; the others cannot be judged."


def _mirror_fits(report: RunReport) -> bool:
    """Whether turning the source over fits nearly as well; by the scores, better, where the cells were not asked."""
    score, mirrored, rivalry = report.pose_score, report.pose_mirrored_score, report.pose_mirrored_rivalry
    better = score is not None and mirrored is not None and mirrored > score if rivalry is None else rivalry >= NEARLY
    return not report.mirrored and (bool(report.pose_mirrored_better) or better)


def _of_agreement(report: RunReport) -> Iterator[str]:
    bent = report.verdict == "non-rigid"
    heldout = report.heldout_correlation_nonrigid if bent else report.heldout_correlation_rigid
    if report.agreement is None and heldout is not None and not heldout >= HARDLY_AGREE:
        yield f"Held-out genes correlate by only {heldout:.2f} between the sections: that is little to stand on."
    rigid, moved = report.feature_correlation_rigid, report.feature_correlation
    if rigid is not None and moved is not None and not moved >= rigid - AGREES:
        yield f"The expression agrees less after the whole map ({moved:.3f}) than after the pose alone ({rigid:.3f})."


def _of_map(report: RunReport) -> Iterator[str]:
    if report.stopped_early:
        yield f"A part of the fit stopped early ({report.stopped_early}), and what it had last found to be fine was kept."
    if report.fold_fraction:
        yield f"The map folds at {report.fold_fraction:.2%} of the source's cells: there, it has no inverse."
    low, high = report.area_change_min, report.area_change_max
    if low is not None and high is not None and (0 < low < 1 / STRETCHED or high > STRETCHED):
        yield f"Areas change to {low:.2f} to {high:.2f} times what they were, more than tissue is likely to."


def _of_landmarks(report: RunReport) -> Iterator[str]:
    """A rigid run is not expected to bring pairs together that lie on bent tissue."""
    judged_or_bent = report.verdict not in (None, "untested") or bool(report.displacement_max)
    if report.landmark_error is None or not judged_or_bent:
        return
    far = int((report.landmark_error > APART).sum())
    if far:
        yield f"{far} of {len(report.landmark_error)} pairs of landmarks end more than {APART:.0f} nd apart."


def number(value: float | None, digits: int = 2) -> str:
    """Return a number as text, "?" for None."""
    return "?" if value is None else f"{value:.{digits}f}"
