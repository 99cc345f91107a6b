"""What goes wrong by what the user gave: one line that names file, row, what is wrong, and what to do."""

import difflib
from collections.abc import Iterable, Mapping

SHOWN_CHARACTERS = 100  # of a file's content in a message: a hostile table may have a million columns


class InputError(ValueError):
    """What the user gave cannot be used; the message is the one line that the user reads."""


class Unusable(ValueError):
    """A file that no square can be made of; the message is the reason, for people, without the file's name."""


def shorten(text: str) -> str:
    """Return a text from a file as a message may show it: one line, printable, not too long."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}…"


def suggest(word: str, words: Iterable[str]) -> str:
    """Return a remark on a word that is none of some: the one it is near to, else all of them."""
    words = sorted(words)
    near = difflib.get_close_matches(word, words, n=1)
    return f" (near: {near[0]})" if near else f" ({', '.join(words)})"


def check_refused(reasons: Mapping[str, str], n_done: int) -> None:
    """Raise InputError if photographs were refused, name -> reason; all others, so many, have been dealt with."""
    if not reasons:
        return
    name, reason = next(iter(reasons.items()))
    verb = "photographs are" if len(reasons) > 1 else "photograph is"
    rest = f"; {n_done} done" if n_done else ""
    raise InputError(f"{len(reasons)} {verb} refused ({name}: {reason}){rest}")
