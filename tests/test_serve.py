"""submissions.serve: the grades of the command line, words for what is refused, no file left."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import quote

import numpy as np
import psutil
import pytest

from dr import explain, out_of_distribution
from dr.nets import heat
from dr.training import runs
from preprocess.disk.errors import InputError
from submissions import ensemble, grade, guard, page, serve
from submissions.output import model
from tests.hostile import CONTENTS
from tests.tasks import TASK
from tests.test_report import open_page

testclient = pytest.importorskip("starlette.testclient")
KINDS = ("HTML", "bomb", "cut at 50 %", "black", "progressive, 500 scans")


@pytest.fixture(scope="module")
def seated(finished_cache):
    """The nets and the blend of the finished run."""
    return ensemble.load(
        runs.read_members(finished_cache / "dr", None, None),
        finished_cache / "blend/train/model.pt",
        None,
        "cpu",
    )


@pytest.fixture
def client(seated, finished_cache, tmp_path, monkeypatch):
    """A browser's stand-in; whatever is left of a request lies in tmp_path / "left"."""
    (tmp_path / "left").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "left"))
    members = runs.read_members(finished_cache / "dr", None, None)
    known = model.read_known(finished_cache, None, members)
    source = grade.Source(members, finished_cache / "blend/train/model.pt", None, known)
    app = serve.make_app(
        TASK,
        partial(page.answer, seated, False),
        [serve.LOOPBACK],
        answer_json=partial(page.answer_json, seated, False, source),
        health=serve.describe_health(source, "cpu"),
    )
    with testclient.TestClient(app, base_url=f"http://{serve.LOOPBACK}") as client:
        yield client
    assert not list((tmp_path / "left").iterdir())


def drop(client, *files):
    """Send (field, name, content) as a browser does; return the status and the page."""
    part = '--x\r\nContent-Disposition: form-data; name="{}"; filename="{}"\r\n\r\n'
    body = (
        b"".join(part.format(*names).encode() + content + b"\r\n" for *names, content in files)
        + b"--x--\r\n"
    )
    shown = client.post(
        "/", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert shown.headers["cache-control"] == "no-store" and "not a medical device" in shown.text
    return shown.status_code, shown.text


def test_a_pair_has_the_grades_of_the_command_line(finished_cache, seated, pair, capsys):
    grade.main([*map(str, pair), f"--cache={finished_cache}", "--device=cpu", "--json"])
    eyes = json.loads(capsys.readouterr().out)["eyes"]
    left, right = (io.BytesIO(path.read_bytes()) for path in pair)
    told = page.answer(
        seated, False, {"left": [("any.jpeg", left)], "right": [("any.jpeg", right)]}
    )
    for card, row, eye in zip(told["cards"], told["rows"], eyes, strict=True):
        of = card["grade"]
        assert (row["side"], row["level"], of.output) == (eye["side"], eye["level"], eye["level"])
        assert card["verdict"] == f"level {eye['level']}, {TASK.names[eye['level']]}"
        assert (of.expected, of.eye.disc.confidence) == pytest.approx(
            (eye["expected_level"], eye["crop"]["confidence"])
        )
        np.testing.assert_allclose(
            [*card["scores"].values()], [eye["scores"], eye["blended"]], atol=1e-6
        )


def test_its_heat_is_that_of_explain(finished_cache, seated, pair, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(heat, "blend_heat", lambda rgb, places: seen.append(places) or rgb)
    monkeypatch.setattr(page, "SHOWN_PX", 400)  # as wide as the photograph is
    for level in range(5):
        explain.main(
            [
                str(pair[0]),
                f"--cache={finished_cache}",
                f"--level={level}",
                f"--out={tmp_path}",
                "--device=cpu",
            ]
        )
    np.testing.assert_allclose(page.draw(seated, pair[0])[1], np.stack(seen), atol=1e-5)


def test_a_page_shows_one_eye_or_two_and_what_is_doubted(client, pair):
    left, right = (path.read_bytes() for path in pair)
    status, shown = drop(client, ("left", "a.jpeg", left), ("right", "a.jpeg", right))
    assert status == 200 and shown.count('class="card"') == shown.count('class="picture"') == 2
    assert shown.count("Left eye: level") == shown.count("Right eye: level") == 1
    assert shown.count("Doubt: ") == shown.count(f"Doubt: {out_of_distribution.UNKNOWN}.") == 2
    assert shown.count(quote(out_of_distribution.UNKNOWN)) == 2  # in the table, too
    status, shown = drop(client, ("left", "", b""), ("right", "a.jpeg", right))
    assert (
        status == 200
        and shown.count('class="card"') == 1
        and "no fellow: blended with itself" in shown
    )
    assert client.get("/").text.count('class="card"') == 0


def test_two_people_at_once_are_shown_their_own(client, pair):
    files = [("left", f"{number}.jpeg", path.read_bytes()) for number, path in enumerate(pair)]
    with ThreadPoolExecutor(2) as people:
        together = list(people.map(lambda file: drop(client, file), files))
    for file, (status, shown) in zip(files, together, strict=True):
        assert status == 200 and {*re.findall(r"\d\.jpeg", shown)} == {file[1]}
        picture = re.search(r'<img src="(.*?)"', shown)[1]
        assert picture == re.search(r'<img src="(.*?)"', drop(client, file)[1])[1]


def test_a_folder_becomes_a_table_whose_misnamed_and_broken_files_are_named(client, pair):
    files = [
        ("folder", f"eyes/{number}_left.jpeg", pair[0].read_bytes())
        for number in range(page.MOST_DRAWN + 1)
    ]
    status, shown = drop(
        client, *files, ("folder", "eyes/odd.jpeg", b"x"), ("folder", "eyes/8_left.png", b"x")
    )
    assert status == 200 and shown.count("<tr>") == 1 + len(files) and 'class="card"' not in shown
    assert "<b>odd.jpeg</b> is refused: neither a JPEG" in shown
    assert "<b>8_left.png</b> is refused: neither a JPEG nor a PNG image, nor" in shown
    assert (
        'download="grades.csv" href="data:text/csv;charset=utf-8,photograph%2Cpatient%2Cside%2Clevel'
        in shown
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_is_refused_with_the_reason_and_its_fellow_graded(client, pair, kind):
    content = CONTENTS[kind].make(pair[0].read_bytes())
    name = "<img src=x onerror=alert(1)>.jpeg"
    status, shown = drop(
        client, ("left", f"../../{name}", content), ("right", "b.jpeg", pair[1].read_bytes())
    )
    assert status == 200 and shown.count('class="card"') == 1 and "<img src=x" not in shown
    told = re.search(
        r"<b>&lt;img src=x onerror=alert\(1\)&gt;.jpeg</b> is refused: (.*?)</li>", shown
    )[1]
    assert re.search(CONTENTS[kind].outcome, told)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("left", "", b"")], "no photographs: give some"),
        (
            [("left", "7_right.jpeg", b"x")],
            "7_right.jpeg: the right eye by its name, given as the left one",
        ),
        (
            [("left", "7_left.jpeg", b"x"), ("right", "8_right.jpeg", b"x")],
            "of two patients, 7 and 8",
        ),
        ([("folder", "eyes/notes.txt", b"x")], "folder: holds no photographs"),
        ([("images", "a.png", b"x")], "no photographs"),
        ([("left", "a.jpeg", b"x")] * 4, "Too many files"),
    ],
)
def test_what_is_unclear_is_one_line_without_a_trace_of_folders(
    client, monkeypatch, files, message
):
    monkeypatch.setattr(serve, "MOST_FILES", 3)
    status, shown = drop(client, *files)
    assert (
        status == 400 and message in shown and "/tmp" not in shown and tempfile.tempdir not in shown
    )


def test_names_that_no_folder_takes_are_refused(tmp_path):
    given = [
        ("a\0.png", b""),
        ("x" * 300, b""),
        ("..", b""),
        ("a.png", b"1"),
        ("b/a.png", b"2"),
        ("a.png", b"3"),
    ]
    refused = page.keep(
        {"images": [(name, io.BytesIO(content)) for name, content in given], "../x": []}, tmp_path
    )
    assert all(reason.startswith("cannot be kept: ") for _, reason in refused[:3])
    assert refused[3:] == [
        (name, "another file of this name was sent, too; rename one")
        for name in ("b/a.png", "a.png")
    ]
    assert (tmp_path / "images" / "a.png").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.png"]


def test_too_much_at_once_and_other_names_of_the_machine_are_refused(client, monkeypatch):
    monkeypatch.setattr(serve, "MOST_MB", 0)
    assert drop(client, ("left", "a.jpeg", b"x"))[0] == 413
    chunked = client.post("/", content=iter([b"x"]))
    assert chunked.status_code == 411 and "how much is sent is not told" in chunked.text
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"Origin": f"http://{serve.LOOPBACK}"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{serve.LOOPBACK}"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/grade"])
def test_forms_of_other_sites_are_refused(client, pair, headers, status, path):
    files = {"left": ("a.jpeg", pair[0].read_bytes())}
    assert client.post(path, files=files, headers=headers).status_code == status


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
@pytest.mark.parametrize("listening", ["localhost", "127.0.0.1", "::1"])
def test_every_name_of_the_loopback_is_one_and_no_other(seated, host, listening):
    app = serve.make_app(TASK, partial(page.answer, seated, False), guard.list_hosts(listening, []))
    with testclient.TestClient(app) as client:
        assert client.get("/", headers={"Host": host}).status_code == 200
        assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    assert guard.list_hosts("0.0.0.0", []) == ["*"]
    assert "elsewhere.example" not in guard.list_hosts("0.0.0.0", ["here.example"])


def test_a_program_is_told_what_grade_prints(client, finished_cache, pair, capsys):
    grade.main([*map(str, pair), f"--cache={finished_cache}", "--device=cpu", "--json"])
    printed = json.loads(capsys.readouterr().out)
    files = [
        (side, (path.name, path.read_bytes()))
        for side, path in zip(("left", "right"), pair, strict=True)
    ]
    answered = client.post("/api/grade", files=files)
    told = answered.json()
    assert answered.status_code == 200
    for content in (told, printed):
        for eye in content["eyes"]:
            eye["photograph"] = eye["photograph"].rpartition("/")[2]
            for name in ("scores", "blended", "expected_level", "unlikeness"):
                eye[name] = np.round(eye[name] or [0], 4).tolist()
    assert told == printed


def test_photographs_that_are_all_refused_answer_4xx(client, pair):
    for path in ("/", "/api/grade"):
        assert client.post(path, files={"left": ("a.jpeg", b"no picture")}).status_code == 422
        assert client.post(path, files={"other": ("a.jpeg", b"no picture")}).status_code == 400
    content = client.post("/api/grade", files={"left": ("a.jpeg", b"no picture")}).json()
    assert (
        content["refused"] == [{"photograph": "a.jpeg", "reason": "neither a JPEG nor a PNG image"}]
        or content["refused"]
    )


def test_health_tells_the_nets_and_what_they_run_on(client, finished_cache):
    told = client.get("/health").json()
    kept = json.loads((finished_cache / "dr/epochs/manifest.json").read_text())["outputs"]
    assert told["status"] == "ok" and set(told["nets"]) <= set(kept.values())
    assert (
        told["task"]["kind"] == "levels"
        and told["device"] == "cpu"
        and "torch" in told["libraries"]
    )


def test_a_full_queue_says_when_to_come_back_and_empties(seated, pair, monkeypatch):
    monkeypatch.setattr(guard, "MOST_WAITING", 2)
    is_free = threading.Event()

    def work(_):
        is_free.wait(20)
        return {"rows": [], "refused": [], "cards": [], "csv": ""}

    app = serve.make_app(TASK, work, [serve.LOOPBACK])
    files = {"left": ("a.jpeg", b"x")}
    with (
        testclient.TestClient(app, base_url=f"http://{serve.LOOPBACK}") as client,
        ThreadPoolExecutor(2) as people,
    ):
        waiting = [people.submit(client.post, "/", files=files) for _ in range(2)]
        while client.get("/health").json()["waiting"] < 2:
            time.sleep(0.01)
        busy = client.post("/", files=files)
        is_free.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert (
            busy.status_code == 503
            and int(busy.headers["Retry-After"]) >= 1
            and "busy" in busy.text
        )
        assert client.post("/", files=files).status_code == 200


@pytest.mark.parametrize("size", [b"9", b"99999999999"])
def test_who_leaves_during_an_upload_is_no_error(client, size):
    async def leave():
        return {"type": "http.disconnect"}

    async def ignore(_):
        pass

    sent = {
        "host": serve.LOOPBACK.encode(),
        "content-length": size,
        "content-type": b"multipart/form-data; boundary=x",
    }
    headers = [(name.encode(), value) for name, value in sent.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    client.portal.call(client.app, scope, leave, ignore)


def test_without_its_library_the_line_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(InputError, match=r"pip install -r .*serve-requirements\.txt"):
        serve.main([])


@pytest.fixture(scope="module")
def address(finished_cache):
    """Where the command itself answers, on a port of its own; it ends on Ctrl-C, without an error."""
    command = [
        sys.executable,
        "-m",
        "submissions.serve",
        f"--cache={finished_cache}",
        "--port=0",
        "--device=cpu",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        told = server.stdout.readline()
        listening = {of.laddr.ip for of in psutil.Process(server.pid).net_connections()}
        yield told.split(" ")[0]
        server.send_signal(signal.SIGINT)
        assert (server.wait(20), server.stderr.read(), listening) == (0, "", {serve.LOOPBACK})


def test_it_listens_on_the_loopback_alone_and_says_where(address):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
    with pytest.raises(InputError, match="--port .*: Address already in use"):
        serve.listen(serve.LOOPBACK, int(address.rsplit(":", 1)[1]))


def test_in_a_browser_two_files_are_graded_and_a_broken_one_is_refused(
    address, pair, finished_cache, capsys, tmp_path
):
    grade.main([*map(str, pair), f"--cache={finished_cache}", "--device=cpu", "--json"])
    levels = [eye["level"] for eye in json.loads(capsys.readouterr().out)["eyes"]]
    broken = shutil.copy(__file__, tmp_path / "1_left.jpeg")
    with open_page(address, n_refused=1) as shown:
        for side, path in zip(("left", "right"), pair, strict=True):
            shown.set_input_files(f"[name={side}]", path)
        shown.get_by_role("button", name="Grade", exact=True).click()
        shown.wait_for_selector(".card")
        assert [
            int(title.split("level ")[1][0]) for title in shown.locator("h2").all_inner_texts()
        ] == levels
        card = shown.locator(".card").first
        card.get_by_role("radio").nth(3).check()
        card.get_by_role("slider").fill("20")
        assert card.locator(".heat:visible").evaluate_all(
            "all => all.map(one => [one.dataset.output, one.style.opacity])"
        ) == [["3", "0.2"]]
        shown.set_input_files("[name=left]", broken)
        shown.get_by_role("button", name="Grade", exact=True).click()
        shown.get_by_text("1_left.jpeg is refused: neither a JPEG nor a PNG image").wait_for()
