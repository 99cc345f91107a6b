"""The service as it runs: clients that stall, many at once, its log and its container."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from submissions import guard
from tests.tiny import ROOT

pytest.importorskip("uvicorn")
DOCKERFILE = ROOT / "submissions" / "Dockerfile"
# The command, with a patience that a test has.
SERVE = """
from submissions import guard, serve
guard.HEADERS_S = 1
guard.STALL_S = 1
serve.main()
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """What the server prints."""
    return tmp_path_factory.mktemp("service") / "log"


@pytest.fixture(scope="module")
def server(finished_cache, log):
    """The running server: its process; its port is told in the log."""
    options = [f"--cache={finished_cache}", "--port=0", "--device=cpu", "--views=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *options], stdout=out, stderr=out, env=environment
        )
        while "http://" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def address(server, log):
    return re.search(r"http://\S+", log.read_text())[0]


def connect(address):
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20)


def read_all(connection):
    """Return what a server sends until it hangs up."""
    content = b""
    while part := connection.recv(65536):
        content += part
    return content


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_half_sent_headers_are_hung_up_on(address, sent):
    with connect(address) as connection:
        connection.sendall(sent)
        began_s = time.monotonic()
        assert b"200" not in read_all(connection)
        assert time.monotonic() - began_s < guard.HEADERS_S  # the test's own patience is shorter


def test_a_stalled_upload_times_out_and_the_next_is_graded(address, pair):
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9999"
    with connect(address) as connection:
        connection.sendall(f"{head}\r\n\r\n--x\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 408"
    assert grade(address, pair[0])["eyes"]


def grade(address, path, name="1_left.jpeg"):
    """Send one photograph as a program does, again where the server is busy; return the answer."""
    part = f'--x\r\nContent-Disposition: form-data; name="left"; filename="{name}"\r\n\r\n'.encode()
    body = part + Path(path).read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    while True:
        request = urllib.request.Request(f"{address}/api/grade", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code == 503 and int(error.headers["Retry-After"]) >= 1
            time.sleep(0.2)  # a test is in a hurry


def test_many_clients_at_once_are_told_of_their_own_and_the_memory_stays(
    address, server, pair, drawn_folder
):
    paths = sorted((drawn_folder / "train").iterdir())[:4]
    expected = [grade(address, path)["eyes"][0]["scores"] for path in paths]
    process = psutil.Process(server.pid)

    def ask(number):
        told = grade(address, paths[number % 4], f"{number}_left.jpeg")["eyes"][0]
        return told["photograph"] == f"{number}_left.jpeg" and told["scores"] == pytest.approx(
            expected[number % 4]
        )

    with ThreadPoolExecutor(50) as clients:
        assert all(clients.map(ask, range(50)))
        before = process.memory_info().rss
        assert all(clients.map(ask, range(50)))
    assert process.memory_info().rss < before + 50 * 2**20


def test_the_log_has_a_line_per_request_and_no_name_of_a_patient(address, log, pair):
    grade(address, pair[0], "Secret_left.jpeg")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/Secret?name=Secret")
    lines = log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\S+ POST /api/grade 200 \d+\.\d\d s", lines[-2])
    assert re.search(r" GET \(other\) 404 ", lines[-1])
    assert "Secret" not in log.read_text() and "127.0.0.1 " not in lines[-1]


# --- the container ----------------------------------------------------------------------------------------------------


def read_steps():
    """Return the instructions of the Dockerfile, each as its name and the rest."""
    steps = []
    for line in DOCKERFILE.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            steps.append((name, rest))
    return steps


@pytest.fixture
def image(tmp_path):
    """A folder with all that the Dockerfile copies, in the place of its /app."""
    folder = tmp_path / "app"
    folder.mkdir()
    for name, rest in read_steps():
        if name == "COPY":
            source, target = shlex.split(rest)
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source,
                    folder / target,
                    dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"),
                )
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, folder / target)
    return folder


def test_its_steps_follow_each_other(image):
    """Those that need the network, pip's, are tried as far as their files go."""
    steps = read_steps()
    assert steps[0] == ("FROM", "python:3.12-slim")
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    copied = []
    for name, rest in steps:
        words = shlex.split(rest)
        if name == "COPY":
            copied.append(words[0])
        if name == "RUN":
            assert words[:2] == ["pip", "install"]
            for option, value in zip(words, words[1:], strict=False):
                if option in ("-r", "-c"):
                    assert (image / value).is_file()
                if option == "-r":  # or the step would fail: its file is copied by a later one
                    assert value in copied or str(Path(value).parent) in copied
    for source in copied:  # what is ignored would be missing where docker builds
        assert f"!{source}" in ignored or source.endswith("requirements.txt")
    assert dict(steps)["USER"] == "65534:65534"


def test_its_command_grades_and_writes_nothing_beside_its_temporary_folder(
    image, finished_cache, pair, tmp_path
):
    """ENV, WORKDIR, ENTRYPOINT and CMD as docker would take them, but for where /app, /cache and the port are."""
    steps = dict(read_steps())
    assert steps["WORKDIR"] == "/app"
    places = {
        "python": sys.executable,
        "--port=8000": "--port=0",
        "--cache=/cache": f"--cache={finished_cache}",
    }
    command = [
        places.get(word, word) for name in ("ENTRYPOINT", "CMD") for word in json.loads(steps[name])
    ]
    environment = {"PATH": os.environ["PATH"]}
    for setting in steps["ENV"].split():
        name, _, value = setting.partition("=")
        environment[name] = str(image) if value == "/app" else value
    assert environment["HOME"] == "/tmp"
    environment["HOME"] = environment["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    before = [sorted(folder.rglob("*")) for folder in (image, finished_cache)]
    log = tmp_path / "log"
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=image, env=environment, stdout=out, stderr=out)
    try:
        while "http://" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        port = re.search(r"http://0\.0\.0\.0:(\d+)", log.read_text())[1]
        assert grade(f"http://localhost:{port}", pair[0])["eyes"]
        refused = urllib.request.Request(
            f"http://localhost:{port}/health", headers={"Host": "elsewhere"}
        )
        with pytest.raises(urllib.error.HTTPError, match="400|403|421"):
            urllib.request.urlopen(refused)
    finally:
        process.send_signal(signal.SIGTERM)  # as docker stop sends
        status = process.wait(20)
    assert status in (0, -signal.SIGTERM)
    assert [sorted(folder.rglob("*")) for folder in (image, finished_cache)] == before


def test_its_health_check_passes_where_the_service_answers_and_fails_elsewhere(address):
    step = dict(read_steps())["HEALTHCHECK"]
    command = json.loads(step[step.index("[") :])
    command[0] = sys.executable
    port = address.rpartition(":")[2]
    assert subprocess.run(command, env=os.environ | {"PORT": port}, check=False).returncode == 0
    failed = subprocess.run(
        command, env=os.environ | {"PORT": "1"}, stderr=subprocess.DEVNULL, check=False
    )
    assert failed.returncode == 1
