"""Open a page on this machine that grades the photographs dropped on it; none of them is kept.

It shows probabilities, the level, the heat behind it and warnings; for a folder of patients a
table. For classes or findings it shows their probabilities. The page needs nothing from outside
this machine, and nobody sees another's photographs. Not a medical device.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dr.machine import workers
from dr.tasks.task import Task
from preprocess.cache import manifest
from preprocess.command import cli, pipeline, process
from preprocess.disk import files
from preprocess.disk.errors import InputError
from submissions import grade
from submissions.guard import LOOPBACK, PROGRESS, Guard, Queue, Tracker, list_hosts, make_protocol
from submissions.output import model, template
from submissions.output.model import Known

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

REQUIREMENTS = Path(__file__).with_name("serve-requirements.txt")
TEMPLATE = Path(__file__).with_name("page.html.jinja")
UNPROCESSABLE = 422  # the status where every photograph is refused
MOST_FILES, MOST_MB = (
    1000,
    2000,
)  # dropped at once: they lie in a temporary folder while they are graded
# The page may load what stands in it, and send a form to where it came from; nothing else, even if a name is hostile.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; form-action 'self'; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Of a form of this page a browser tells the origin only under this policy; other sites are told nothing by it.
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def render(task: Task, content: Mapping[str, Any], nonce: str, known: Known | None = None) -> str:
    """Return the page; `known` is what the run is worth."""
    fixed = {
        "known": known,
        "points": model.describe_points(known) if known else "",
        "notice": pipeline.NOTICE,
        "most_files": MOST_FILES,
        "most_mb": MOST_MB,
        "task": task,
        "nonce": nonce,
    }
    nothing = {"error": "", "cards": [], "rows": [], "refused": [], "heat_colors": []}
    return template.render(TEMPLATE, fixed | nothing | dict(content))


def make_app(
    task: Task,
    answer: Callable[[dict], dict[str, Any]],
    hosts: Sequence[str],
    answer_json: Callable[[dict], dict[str, Any]] | None = None,
    health: Mapping[str, Any] | None = None,
    is_logging: bool = False,
    tracker: Tracker | None = None,
    known: Known | None = None,
) -> Starlette:
    """Return the page's server: `answer` makes of uploads what the page tells of them, see `submissions.page`.

    `tracker` is what `answer` notes its progress in, `known` what the page says of the run.
    `answer_json` makes of them what programs are told by POST /api/grade, `health` is what GET /health tells. The
    server may be asked for by the names of `hosts`: by none that another's name server points at this machine.
    """
    from anyio import CapacityLimiter, to_thread
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Route

    one_at_a_time = CapacityLimiter(1)  # the nets take all cores already
    queue = Queue()
    tracker = tracker or Tracker()

    def respond(
        content: Mapping[str, Any], status: int = 200, more: Mapping[str, str] | None = None
    ) -> Response:
        nonce = secrets.token_urlsafe(16)
        headers = (
            HEADERS | {"Content-Security-Policy": POLICY.format(nonce=nonce)} | dict(more or {})
        )
        return HTMLResponse(render(task, content, nonce, known), status, headers)

    async def show_error(request: Request, error: Exception) -> Response:
        message = error.detail if isinstance(error, HTTPException) else str(error)
        status = getattr(error, "status_code", 400)
        more = getattr(error, "headers", None)
        if request.url.path == "/":
            return respond({"error": message}, status, more)
        content = {"notice": pipeline.NOTICE, "error": message}
        return JSONResponse(content, status, HEADERS | dict(more or {}))

    async def grade_form(
        request: Request, work: Callable[[dict], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what `work` makes of the uploads of a form, when all before it are graded."""
        await check_size(request)
        async with queue.entered(), request.form(max_files=MOST_FILES, max_fields=0) as form:
            uploads = collect_uploads(form)

            def work_timed() -> dict[str, Any]:
                began_s = time.monotonic()
                tracker.begin(request.query_params.get("job", ""))
                content = work(uploads)
                queue.note(time.monotonic() - began_s)
                return content

            return await to_thread.run_sync(work_timed, limiter=one_at_a_time)

    async def show(request: Request) -> Response:
        if request.method != "POST":
            return respond({})
        content = await grade_form(request, answer)
        is_refused = bool(content["refused"]) and not content["rows"]
        return respond(content, UNPROCESSABLE if is_refused else 200)

    async def tell(request: Request) -> Response:
        assert answer_json is not None
        content = await grade_form(request, answer_json)
        is_refused = bool(content["refused"]) and not content["eyes" if task.has_eyes else "images"]
        return JSONResponse(content, UNPROCESSABLE if is_refused else 200, HEADERS)

    async def tell_health(_: Request) -> Response:
        return JSONResponse(
            {"status": "ok", "waiting": queue.n_waiting, **(health or {})}, 200, HEADERS
        )

    async def tell_progress(request: Request) -> Response:
        progress = tracker.describe(request.query_params.get("job", ""))
        return JSONResponse(progress, 200, HEADERS)

    routes = [
        Route("/", show, methods=["GET", "POST"]),
        Route("/health", tell_health),
        Route(PROGRESS, tell_progress),
    ]
    if answer_json is not None:
        routes.append(Route("/api/grade", tell, methods=["POST"]))
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts, is_logging=is_logging)],
        # Whoever has left hears no answer, and is no error to be logged.
        exception_handlers={
            HTTPException: show_error,
            InputError: show_error,
            ClientDisconnect: show_error,
        },
    )


async def check_size(request: Request) -> None:
    """Raise HTTPException for an upload that is too large, or whose size is not told."""
    from starlette.exceptions import HTTPException

    size = request.headers.get("content-length")
    if size is not None and int(size) <= MOST_MB * 10**6:
        return
    async for _ in request.stream():
        pass  # a browser listens when it has sent all
    if size is None:
        raise HTTPException(411, "how much is sent is not told: give a Content-Length")
    raise HTTPException(413, f"more than {MOST_MB} MB at once")


def collect_uploads(form: FormData) -> dict[str, list[tuple[str, BinaryIO]]]:
    """Return the name and content of each file of a form, by field."""
    uploads: dict[str, list[tuple[str, BinaryIO]]] = {}
    for field, upload in form.multi_items():
        if not isinstance(upload, str) and upload.filename:
            uploads.setdefault(field, []).append((upload.filename, upload.file))
    return uploads


def describe_health(source: grade.Source, device: str) -> dict[str, Any]:
    """Return which nets answer, by their digests, what they tell, where they run, and the versions."""
    task = source.members[0].checkpoint.task
    return {
        "notice": pipeline.NOTICE,
        "version": pipeline.VERSION,
        "nets": [member.digest for member in source.members],
        "blend": files.hash_file(source.blend) if source.blend else None,
        "task": task.describe(),
        "device": device,
        "libraries": manifest.list_versions(),
    }


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises InputError if the port is taken, or the address not this machine's."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: {error.strerror}; give another one"
        ) from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser("submissions.serve", __doc__, "--cache cache")
    grade.add_source_options(parser)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen at; any other lets in whoever reaches this "
                        "machine, with neither password nor encryption")  # fmt: skip
    parser.add_argument(
        "--port", type=cli.whole(0, 65535), default=8000, help="0: any that is free"
    )
    parser.add_argument("--name", action="append", default=[], metavar="HOST", help="a name by which this machine may "
                        "be asked for, beside those of the loopback; may be repeated (default: with another --host "
                        "any)")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print no line per request")
    options = parser.parse_args(argv)
    uvicorn, auto, *_ = process.import_libraries(
        REQUIREMENTS, "uvicorn", "uvicorn.protocols.http.auto", "starlette", "python_multipart"
    )
    source = grade.read_source(options)
    workers.let_waiting_threads_sleep()
    with listen(options.host, options.port) as listening, contextlib.suppress(KeyboardInterrupt):
        # Imported late: whoever has mistyped something does not wait for torch.
        from submissions import ensemble, page

        tracker = Tracker()
        loaded = ensemble.load(source.members, source.blend, source.thresholds, options.device)
        app = make_app(
            loaded.task,
            partial(page.answer, loaded, options.strict, note=tracker.note, known=source.known),
            hosts=list_hosts(options.host, options.name),
            answer_json=partial(page.answer_json, loaded, options.strict, source),
            health=describe_health(source, str(next(loaded.nets[0].parameters()).device)),
            is_logging=not options.quiet,
            tracker=tracker,
            known=source.known,
        )
        print(
            f"http://{options.host}:{listening.getsockname()[1]} (Ctrl-C ends it)\n{pipeline.NOTICE}",
            flush=True,
        )
        protocol = make_protocol(auto.AutoHTTPProtocol)
        config = uvicorn.Config(app, http=protocol, log_level="warning", access_log=False)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    process.run(main)
