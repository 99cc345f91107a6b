"""Pages from templates of this folder: content in, HTML out; whatever comes from files is escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dr.metrics import bootstrap
from preprocess.disk import files

FOLDER = Path(__file__).parents[1]


def hash_parts() -> str:
    """Return the digest of the templates that pages share, for a manifest."""
    paths = sorted(Path(__file__).parent.glob("*.jinja"))
    return files.hash_text("".join(files.hash_file(path) for path in paths))


def render(template: Path, content: Mapping[str, Any]) -> str:
    """Return a page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["describe_interval"] = bootstrap.describe_interval
    return environment.get_template(str(template.relative_to(FOLDER))).render(content)
