"""A photograph from an address: what is taken, and what is refused; the server is on the loopback address."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from preprocess.dataset import kaggle
from preprocess.disk.errors import InputError
from submissions import download, grade


@pytest.fixture
def address(drawn_folder):
    """The address of a server that has a photograph, a page, a redirect to a file, and paths that do not end."""
    jpeg = next(iter(kaggle.list_folder(drawn_folder / "test").paths.values())).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802  the library's name
            if self.path == "/hangs":
                time.sleep(2)
                return
            answer = {
                "/drips": b"x",
                "/a_left.jpeg": jpeg,
                "/page": b"<html>",
                "/large": bytes(5000),
            }.get(self.path)
            self.send_response(302 if self.path == "/file" else 200 if answer else 404)
            if self.path == "/file":
                self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            for _ in range(
                20 * (self.path == "/drips")
            ):  # always a byte in time, and never the last
                self.wfile.write(b"x")
                time.sleep(0.1)
            self.wfile.write(answer or b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "cannot be had .*Not Found"),
        ("file", "cannot be had .*file"),
        ("large", "larger than 0 MB"),
        ("hangs", "not there after 0.5 s"),
        ("drips", "not there after 0.5 s"),
    ],
)
def test_what_cannot_be_had_is_one_line(address, name, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        download.fetch(f"{address}/{name}", tmp_path, timeout_s=0.5, most_bytes=4000)
    assert "\n" not in str(caught.value)


def test_addresses_are_graded_like_files_and_named(address, finished_cache, capsys):
    epoch = finished_cache / "dr" / "epochs" / "0002.pt"
    good = f"{address}/a_left.jpeg"
    capsys.readouterr()
    with pytest.raises(
        InputError, match=rf"1 photograph is refused \({address}/missing: cannot .*; 1 done"
    ):
        grade.main(
            [
                good,
                f"{address}/missing",
                f"--checkpoint={epoch}",
                "--views=1",
                "--device=cpu",
                "--json",
            ]
        )
    told = json.loads(capsys.readouterr().out)
    assert [eye["photograph"] for eye in told["eyes"]] == [good] and told["eyes"][0][
        "patient"
    ] == "a"
    with pytest.raises(InputError, match="page: neither a JPEG nor a PNG"):
        grade.main([f"{address}/page", f"--checkpoint={epoch}", "--device=cpu"])
