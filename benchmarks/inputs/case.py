"""One odd or bad input, and what has to happen to it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["handled", "warning", "error"]

USER_ERRORS = (KeyError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An input, what has to happen, and the code that shows it.

    Parameters
    ----------
    row
        Number in the catalogue.
    given
        The input, in a user's words.
    expect
        ``"handled"``: the result is right, and nothing is said; ``"warning"``: it is right, and a warning says what is
        odd; ``"error"``: one sentence, and nothing has changed.
    run
        Does it. Returns what came out, in words, or raises: one of ``USER_ERRORS`` for the user, or AssertionError
        when a result is wrong.
    slow
        Whether it takes more than about two seconds.
    """

    row: int
    given: str
    expect: Kind
    run: Callable[[], str]
    slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened.

    Parameters
    ----------
    kind
        As :attr:`Case.expect`; ``"wrong"`` when a result was wrong, ``"crash"`` for any other error.
    message
        The error's or the warning's text, or what came out.
    """

    kind: Literal["handled", "warning", "error", "wrong", "crash"]
    message: str


def happens(case: Case) -> Outcome:
    """Run a case and tell what happened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            message = case.run()
        except USER_ERRORS as error:
            return Outcome(kind="error", message=str(error.args[0]))
        except AssertionError as error:
            return Outcome(kind="wrong", message=str(error))
        except Exception as error:  # noqa: BLE001 - whatever else comes up is what is looked for here
            return Outcome(kind="crash", message=f"{type(error).__name__}: {error}")
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    return Outcome(kind="warning", message=said[0]) if said else Outcome(kind="handled", message=message)


def is_one_sentence(text: str) -> bool:
    """Whether a message is one sentence on one line."""
    return "\n" not in text and text.endswith(".") and ". " not in text
