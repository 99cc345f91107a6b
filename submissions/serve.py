"""Open a page on this machine on which photographs are graded that are dropped there: no file of theirs stays.

It shows probabilities, the level, what speaks for it, what is doubted; of a folder of patients a table. Of a net that
tells classes or findings their probabilities. Whoever drops photographs is answered by the page itself, pictures and
all: nobody is shown another's, and nothing outside of this machine is asked for. Not a medical device.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr.machine import workers
from dr.tasks.task import Task
from preprocess.command import cli, pipeline, process
from preprocess.disk.errors import InputError
from submissions import grade
from submissions.output import template

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

REQUIREMENTS = Path(__file__).with_name("serve-requirements.txt")
TEMPLATE = Path(__file__).with_name("page.html.jinja")
LOOPBACK = "127.0.0.1"
MOST_FILES, MOST_MB = 1000, 2000  # dropped at once: they lie in a temporary folder while they are graded
# The page may load what stands in it, and send a form to where it came from; nothing else, even if a name is hostile.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


def render(task: Task, content: Mapping[str, Any], nonce: str) -> str:
    """Return the page."""
    fixed = {"notice": pipeline.NOTICE, "most_files": MOST_FILES, "most_mb": MOST_MB, "task": task, "nonce": nonce}
    nothing = {"error": "", "cards": [], "rows": [], "refused": []}
    return template.render(TEMPLATE, fixed | nothing | dict(content))


def make_app(task: Task, answer: Callable[[dict], dict[str, Any]], hosts: Sequence[str]) -> Starlette:
    """Return the page's server: `answer` makes of uploads what the page tells of them, see `submissions.page`.

    It may be asked for by the names of `hosts`: by none that another's name server points at this machine.
    """
    from anyio import CapacityLimiter, to_thread
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    one_at_a_time = CapacityLimiter(1)  # the nets take all cores already

    def respond(content: Mapping[str, Any], status: int = 200) -> Response:
        nonce = secrets.token_urlsafe(16)
        headers = HEADERS | {"Content-Security-Policy": POLICY.format(nonce=nonce)}
        return HTMLResponse(render(task, content, nonce), status, headers)

    async def show_error(_: Request, error: Exception) -> Response:
        told = error.detail if isinstance(error, HTTPException) else str(error)
        return respond({"error": told}, getattr(error, "status_code", 400))

    async def show(request: Request) -> Response:
        if request.method != "POST":
            return respond({})
        size = request.headers.get("content-length")
        if size is None or int(size) > MOST_MB * 10**6:
            async for _ in request.stream():
                pass  # a browser listens when it has sent all
            if size is None:
                raise HTTPException(411, "how much is sent is not told: give a Content-Length")
            raise HTTPException(413, f"more than {MOST_MB} MB at once")
        async with request.form(max_files=MOST_FILES, max_fields=0) as form:
            uploads: dict[str, list] = {}
            for field, upload in form.multi_items():
                if not isinstance(upload, str) and upload.filename:
                    uploads.setdefault(field, []).append((upload.filename, upload.file))
            return respond(await to_thread.run_sync(answer, uploads, limiter=one_at_a_time))

    return Starlette(
        routes=[Route("/", show, methods=["GET", "POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        # Whoever has left hears no answer, and is no error to be logged.
        exception_handlers={HTTPException: show_error, InputError: show_error, ClientDisconnect: show_error},
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises InputError if the port is taken, or the address not this machine's."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}; give another one") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser("submissions.serve", __doc__, "--cache cache")
    grade.add_source_options(parser)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen at; any other lets in whoever reaches this "
                        "machine, with neither password nor encryption")  # fmt: skip
    parser.add_argument("--port", type=cli.whole(0, 65535), default=8000, help="0: any that is free")
    options = parser.parse_args(argv)
    uvicorn, *_ = process.import_libraries(REQUIREMENTS, "uvicorn", "starlette", "python_multipart")
    source = grade.read_source(options)
    workers.let_waiting_threads_sleep()
    with listen(options.host, options.port) as listening, contextlib.suppress(KeyboardInterrupt):
        # Imported late: whoever has mistyped something does not wait for torch.
        from submissions import ensemble, page

        loaded = ensemble.load(source.members, source.blend, source.thresholds, options.device)
        hosts = [LOOPBACK, "localhost"] if options.host == LOOPBACK else ["*"]
        app = make_app(loaded.task, partial(page.answer, loaded, options.strict), hosts)
        print(f"http://{options.host}:{listening.getsockname()[1]} (Ctrl-C ends it)\n{pipeline.NOTICE}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run([listening])


if __name__ == "__main__":
    process.run(main)
