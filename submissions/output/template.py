"""Pages from templates of this folder: content in, HTML out; whatever comes from files is escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]
BASE = Path(__file__).with_name("base.html.jinja")  # what all pages look like


def render(template: Path, content: Mapping[str, Any]) -> str:
    """Return a page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(str(template.relative_to(FOLDER))).render(content)
