"""Write the report of a run, submissions/NAME.html: one file that opens without a network.

It shows the parameters, the gain of each step, where the model errs and where it looks. Figures are
of the test set if its true levels are known, and of the validation fold, where the blend is cross-
fitted. What the cache lacks is named as missing.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dr.tasks.kinds import make_task
from preprocess.cache import manifest
from preprocess.command import cli, pipeline, process, progress, recipe
from preprocess.dataset import readers
from preprocess.disk import files
from preprocess.disk.errors import InputError
from submissions.evaluation.charts import draw_roc
from submissions.output import target, template
from submissions.output.charts import render as render_chart
from submissions.report import charts, evidence, sections
from submissions.report.evidence import Source

VERSION = 6  # raise it when the same inputs give another report
TEMPLATE = Path(__file__).parent / "page.html.jinja"


def render(content: Mapping[str, Any]) -> str:
    """Return the page. Only the charts, drawn here, are let through as they are."""
    from markupsafe import Markup

    drawn: dict[str, tuple[Callable[..., None], Any]] = {
        "kappas": (charts.draw_kappas, content["kappas"]),
        "history": (charts.draw_history, content["histories"]),
        "reliability": (charts.draw_reliability, content["reliability"]),
        "levels": (charts.draw_levels, content["shares"]),
        "roc": (draw_roc, content["roc"]),
    }
    task = content["task"]
    drawn_charts = {
        name: Markup(render_chart(name, draw, of, task)) for name, (draw, of) in drawn.items() if of
    }  # noqa: S704
    return template.render(TEMPLATE, {**content, "charts": drawn_charts})


def write_report(source: Source, name: str, out: Path, others: Sequence[Path]) -> str:
    """Bring the report in the cache up to date and put a copy in its place; return one line on what was done."""
    folder = source.cache / "report"
    parameters = {"version": VERSION, "name": name, "data": source.dataset.folder.resolve().name}
    parameters["compare"] = list(map(str, others))
    inputs = evidence.digest_inputs(source, others)
    inputs |= {"template": files.hash_file(TEMPLATE), "base": template.hash_parts()}
    change = manifest.find_change(folder, parameters, inputs)
    if change is not None:
        with progress.waiting("submissions.report: figures and charts"):
            page = render(sections.collect(source, name, others))
        files.write_bytes(folder / "report.html", page.encode())
        outputs = {"report.html": files.hash_file(folder / "report.html")}
        manifest.write_manifest(folder, "submissions.report", parameters, inputs, outputs)
    content = (folder / "report.html").read_bytes()
    if not out.is_file() or out.read_bytes() != content:
        files.write_bytes(out, content)
    return f"{'cached' if change is None else change} -> {out} ({len(content) / 1e6:.1f} MB)"


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(
        "submissions.report", __doc__, "--data data --cache cache --name first"
    )
    target.add_options(parser, ".html")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="true levels of the test set, a CSV of image,level "
                        "and perhaps Usage (Public, Private), as in Kaggle's retinopathy_solution.csv (default: "
                        "DATA/testLabels.csv, if it exists)")  # fmt: skip
    parser.add_argument("--compare", type=Path, nargs="+", default=[], metavar="CACHE", help="other runs beside "
                        "this one: caches, folders CACHE/dr/runs/NAME, or score tables of the same images")  # fmt: skip
    options = recipe.parse(
        parser, argv, "submissions.report", check=lambda options: target.find(options, ".html")
    )
    dataset = readers.open_dataset(options)
    out = target.find(options, ".html")
    files.check_out(out, options.labels, *options.compare)
    if not options.cache.is_dir():
        raise InputError(
            f"{options.cache}: no such folder; run ./run_all.sh first, or give another --cache"
        )
    with files.locked(options.cache):  # its own time is no part of what it reports on
        source = Source(dataset, make_task(dataset.question), options.cache, options.labels)
        target.claim(options, out)
        summary = write_report(source, options.name, out, options.compare)
    print(
        f"submissions.report: {summary}\n{pipeline.NOTICE}", file=files.summary_stream(options.out)
    )


if __name__ == "__main__":
    process.run(main)
