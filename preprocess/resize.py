"""Cut out every eye: photographs + CACHE/crop -> CACHE/resize/{train,test}/IMAGE.png and a histogram of its pixels.

The eye fills a square that is black outside the disc; the histogram counts the pixels inside.
"""

from typing import Any

from preprocess import photographs
from preprocess.cache import rejected, stage
from preprocess.command import cli, parallel, process, recipe
from preprocess.dataset import readers

# Of the option that says how large the squares are: as large as the pipeline can work with.
SIZE: dict[str, Any] = {"type": cli.whole(32, 4096), "help": "side of the squares in pixels"}


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_parser(
        "preprocess.resize", __doc__, "--data data --cache cache --size-px 512 --jobs 4"
    )
    parser.add_argument("--size-px", **SIZE)
    parallel.add_options(parser)
    cli.add_rejected_option(parser)
    options = recipe.parse(parser, argv, "preprocess.resize")
    dataset = readers.open_dataset(options)
    with stage.working(options.cache, "preprocess.resize"):
        reasons = photographs.update(
            dataset, options.cache, options.dask or options.jobs, size_px=options.size_px
        )
    rejected.check_rejected(options.cache, reasons, options.allow_rejected)


if __name__ == "__main__":
    process.run(main)
