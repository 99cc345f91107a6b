"""Errors in what the user gave: one line that names the file, the row, the fault and what to do."""

import difflib
from collections.abc import Iterable, Mapping

SHOWN_CHARACTERS = (
    100  # of a file's content in a message: a hostile table may have a million columns
)


class InputError(ValueError):
    """An input cannot be used; the message is the one line that the user reads."""


class Unusable(ValueError):
    """No square can be made of a file; the message is the reason, for people, without its name."""


def shorten(text: str) -> str:
    """Return a text from a file as a message may show it: one line, printable, not too long."""
    if not text.isprintable():
        text = ascii(text)[1:-1]
    if len(text) > SHOWN_CHARACTERS:
        return f"{text[:SHOWN_CHARACTERS]}…"
    return text


def suggest(word: str, words: Iterable[str]) -> str:
    """Return a remark on an unknown word: the known one that it is near to, else all of them."""
    words = sorted(words)
    return suggest_near(word, words, most=1) or f" ({', '.join(words)})"


def suggest_near(word: str, words: Iterable[str], most: int) -> str:
    """Return a remark on an unknown word: at most so many known ones that it is near to, or ""."""
    near = difflib.get_close_matches(word, words, n=most)
    if not near:
        return ""
    return f" (near: {', '.join(near)})"


def check_refused(reasons: Mapping[str, str], n_done: int) -> None:
    """Raise InputError if photographs were refused, name -> reason; all others, so many, have been dealt with."""
    if not reasons:
        return
    name, reason = next(iter(reasons.items()))
    verb = "photographs are" if len(reasons) > 1 else "photograph is"
    rest = f"; {n_done} done" if n_done else ""
    raise InputError(f"{len(reasons)} {verb} refused ({name}: {reason}){rest}")
