"""Hold a cache for a whole script: lock CACHE/.lock, which the script has open and so keeps, or say who holds it.

python -m preprocess.lock --cache DIR --descriptor N --pid PID
"""

from __future__ import annotations

from preprocess import stage


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "preprocess.lock",
        "Lock CACHE/.lock, which the calling script has open under a number. The lock is the script's: it lasts until "
        "the script and all that it started have ended, in whatever way.",
        "--cache cache --descriptor 9 --pid $$",
    )
    parser.add_argument("--descriptor", type=int, required=True, help="the number")
    parser.add_argument("--pid", type=int, required=True, help="process id of the script, told to whoever comes second")
    options = parser.parse_args(argv)
    stage.take_lock(options.descriptor, options.cache, options.pid)


if __name__ == "__main__":
    stage.run(main)
