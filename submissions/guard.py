"""Who may ask the service, for how long, and how many at a time; and its access log, which names nobody."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = (LOOPBACK, "localhost", "::1")
ANY = "*"
HEADERS_S = 10  # from the first byte of a request to the end of its headers
STALL_S = 30  # between two parts of an upload
UPLOAD_S = 900  # of an upload
MOST_WAITING = 16  # gradings at work or waiting: more are asked to come back
FIRST_GUESS_S = 5.0  # how long a grading takes, before one was measured
KNOWN_PATHS = ("/", "/api/grade", "/health")
PROGRESS = "/progress"  # asked for every second while photographs are graded, and not logged


def list_hosts(host: str, names: Sequence[str]) -> list[str]:
    """Return the names that the service may be asked for by: all of the loopback, where it listens there alone.

    Elsewhere these are `names`, or any. A browser that another's name server points at this machine has another name.
    """
    if is_loopback(host):
        return [*LOOPBACK_NAMES, host, *names]
    if names:
        return [*LOOPBACK_NAMES, host, *names]
    return [ANY]


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine's for itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Middleware: refuses other names of the machine and requests from other sites, ends uploads that stall, logs.

    The log has a line per request, without the names of files and without addresses.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], is_logging: bool):
        self.app = app
        self.hosts = hosts
        self.is_logging = is_logging

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        began_s = time.monotonic()
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        refusal = self._find_refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            code, reason = refusal
            await PlainTextResponse(reason, code)(scope, receive, note_status)
        else:
            await self.app(scope, _limit_waiting(receive, began_s), note_status)
        if self.is_logging and scope["path"] != PROGRESS:
            path = scope["path"] if scope["path"] in KNOWN_PATHS else "(other)"
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            took_s = time.monotonic() - began_s
            print(f"{now} {scope['method']} {path} {status or 'left'} {took_s:.2f} s", flush=True)

    def _find_refusal(self, method: str, headers: Any) -> tuple[int, str] | None:
        """Return the status and the reason of a refusal; None if there is nothing against a request."""
        asked = headers.get("host", "")
        name = urlsplit(f"//{asked}").hostname or ""
        if ANY not in self.hosts and name not in self.hosts:
            return 400, "not a name of this service"
        if method in ("GET", "HEAD"):
            return None
        site = headers.get("sec-fetch-site")
        if site is not None:
            is_own = site in ("same-origin", "none")
        else:
            origin = headers.get("origin")  # programs send none
            is_own = origin is None or urlsplit(origin).netloc == asked
        if not is_own:
            return 403, "a form of another site may not use this service"
        return None


def _limit_waiting(receive: Receive, began_s: float) -> Receive:
    """Return a `receive` that waits for the next part of an upload STALL_S at most, and UPLOAD_S for all of them."""
    is_whole = False

    async def receive_in_time() -> Message:
        nonlocal is_whole
        if is_whole:  # what comes now is only the news that the client has left
            return await receive()
        left_s = began_s + UPLOAD_S - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, min(STALL_S, left_s)))
        except TimeoutError:
            from starlette.exceptions import HTTPException

            raise HTTPException(408, "the upload has stalled; send it again") from None
        is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_in_time


class Queue:
    """Gradings at work or waiting, of which there are MOST_WAITING at most."""

    def __init__(self) -> None:
        self.n_waiting = 0
        self.grading_s = FIRST_GUESS_S  # of late

    def check(self) -> None:
        """Raise HTTPException 503, with the seconds after which to come back, if there is no room."""
        if self.n_waiting < MOST_WAITING:
            return
        from starlette.exceptions import HTTPException

        seconds = max(1, round(self.n_waiting * self.grading_s))
        message = f"busy: {self.n_waiting} gradings wait; come back in {seconds} s"
        raise HTTPException(503, message, headers={"Retry-After": str(seconds)})

    @contextlib.asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Count a grading as waiting or at work. Raises HTTPException if there is no room."""
        self.check()
        self.n_waiting += 1
        try:
            yield
        finally:
            self.n_waiting -= 1

    def note(self, elapsed_s: float) -> None:
        """Remember how long a grading took, most of all the last ones."""
        self.grading_s = 0.8 * self.grading_s + 0.2 * elapsed_s


class Tracker:
    """How far the grading at work has come, for the browser that sent it: no other knows its job."""

    def __init__(self) -> None:
        self.job = ""  # a word that the browser has drawn
        self.n_done = 0
        self.n_photographs = 0

    def begin(self, job: str) -> None:
        """Begin with the photographs of a job."""
        self.job = job
        self.n_done = 0
        self.n_photographs = 0

    def note(self, n_done: int, n_photographs: int) -> None:
        """Remember how many photographs are at work or done, and of how many."""
        self.n_done = n_done
        self.n_photographs = n_photographs

    def describe(self, job: str) -> dict[str, int]:
        """Return how far a job has come; nothing of one that is not at work."""
        if not job or job != self.job:
            return {}
        return {"done": self.n_done, "of": self.n_photographs}


def make_protocol(base: type) -> type:
    """Return a protocol of uvicorn that hangs up where the headers of a request are not sent within HEADERS_S."""

    class TimedProtocol(base):
        """As its base, with a timer that runs while headers are half-sent."""

        waiting: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._follow()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._follow()

        def connection_lost(self, exc: Exception | None) -> None:
            if self.waiting is not None:
                self.waiting.cancel()
            super().connection_lost(exc)

        def _has_request(self) -> bool:
            cycle = self.cycle
            return cycle is not None and not cycle.response_complete

        def _follow(self) -> None:
            """Start the timer while no request is whole, and stop it when one is."""
            if self._has_request():
                if self.waiting is not None:
                    self.waiting.cancel()
                    self.waiting = None
            elif self.waiting is None:
                self.waiting = self.loop.call_later(HEADERS_S, self._hang_up)

        def _hang_up(self) -> None:
            self.waiting = None
            if not self._has_request() and not self.transport.is_closing():
                self.transport.close()

    return TimedProtocol
