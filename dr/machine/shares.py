"""A journal that several processes write together: each has a file of its own, and the first one gathers them.

The processes see the same folder. A file that a killed process has left is gathered by the next run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dr.machine import workers
from preprocess.cache.journal import Journal


def open_journal(folder: Path, name: str, parameters: Mapping[str, Any]) -> Journal:
    """Return the journal FOLDER/NAME.jsonl with all that any process has kept, as every process reads it."""
    with workers.first_goes_ahead():
        if workers.rank() == 0:
            return gather(folder, name, parameters)
    return Journal(folder, name, parameters)


def open_share(folder: Path, name: str, parameters: Mapping[str, Any]) -> Journal:
    """Return the journal that this process alone writes: NAME in the first one, NAME.RANK in all others."""
    if workers.rank() == 0:
        return Journal(folder, name, parameters)
    return Journal(folder, f"{name}.{workers.rank()}", parameters)


def gather(folder: Path, name: str, parameters: Mapping[str, Any]) -> Journal:
    """Return the journal of the first process, with what the files of the others hold; these are gone then."""
    journal = Journal(folder, name, parameters)
    for path in sorted(folder.glob(f"{name}.*.jsonl")):
        journal.absorb(Journal(folder, path.stem, parameters))
        path.unlink()
    return journal
