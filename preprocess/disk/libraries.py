"""Libraries that one command alone needs: imported when they are, with the command that installs them."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from preprocess.disk.errors import InputError


def import_libraries(requirements: Path, *names: str) -> list[ModuleType]:
    """Return libraries that one command alone needs.

    Raises InputError, with the command that installs them, if one cannot be imported.
    """
    try:
        return [importlib.import_module(name) for name in names]
    # The last three: a library that was built for another torch.
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{reason}: {sys.executable} -m pip install -r {requirements}") from None
