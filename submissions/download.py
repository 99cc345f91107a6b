"""One photograph from the web, within limits of size and time -> a file."""

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from preprocess.disk.errors import InputError
from preprocess.picture.photograph import MAX_BYTES

TIMEOUT_S = 20  # of the whole download, and of each wait within it
AT_A_TIME = 1 << 16  # bytes
# Nothing that opens files or other protocols: a redirect leads to http or https, or nowhere.
HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.UnknownHandler,
)


def is_url(text: str) -> bool:
    """Return whether a text is an address on the web."""
    return text.lower().startswith(("http://", "https://"))


def fetch(
    url: str, folder: Path, timeout_s: float = TIMEOUT_S, most_bytes: int = MAX_BYTES
) -> Path:
    """Write what lies at an address into the folder, named as there, and return the file.

    Raises InputError, with the reason, if it cannot be had, is too large, or takes too long.
    """
    target = folder / (Path(unquote(urlsplit(url).path)).name or "photograph")
    opener = urllib.request.OpenerDirector()
    end = time.monotonic() + timeout_s
    for handler in HANDLERS:
        opener.add_handler(handler())
    try:
        with opener.open(url, timeout=timeout_s) as response, target.open("wb") as file:
            while file.tell() <= most_bytes and (part := response.read1(AT_A_TIME)):
                file.write(part)
                if time.monotonic() > end:
                    raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        code = ""
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            code = f"{error.code} "
        if isinstance(reason, TimeoutError):
            raise InputError(f"not there after {timeout_s:g} s") from None
        raise InputError(f"cannot be had ({code}{' '.join(str(reason).split())[:100]})") from None
    if target.stat().st_size > most_bytes:
        raise InputError(f"larger than {most_bytes / 1e6:.0f} MB")
    return target
