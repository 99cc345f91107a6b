"""What can be known before the first photograph is read is told before it, by run_all.sh and by each stage alone."""

import shutil
import socket

import pytest
import torch

from dr import train
from dr.nets import catalog
from preprocess import __main__ as preprocess
from preprocess import crop
from preprocess.command import check
from preprocess.command.run import plan_run
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture.photograph import Photograph
from tests.tiny import TRAIN_OPTIONS

NET = "test_resnet"  # of timm, the smallest


@pytest.fixture
def check_run(data, cache):
    """Check the options of a run over the data folder as run_all.sh does, before its first stage."""

    def check_options(*words):
        plan = plan_run(
            [f"--data={data}", f"--cache={cache}", "--size-px=64", "--device=cpu", *words]
        )
        check.check_options(plan.commands)
        assert not cache.exists()

    return check_options


@pytest.fixture
def labels(data):
    """The table of training labels, as lines."""
    path = data / "trainLabels.csv"
    return path, path.read_text().splitlines()


def test_a_sound_folder_passes(check_run):
    check_run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [], r"trainLabels\.csv: no such file: dr\.train learns from it"),
        (
            lambda lines: lines[:-2],
            r"trainLabels\.csv: no level of 2 of 8 training photographs: .*--known-only",
        ),
        (
            lambda lines: [*lines[:-1], "99_left,7"],
            r"trainLabels\.csv, row 9: level is 7, not 0, 1, 2, 3 or 4",
        ),
        (
            lambda lines: [*lines[:-1], lines[-1][:-1]],
            r"trainLabels\.csv, row 9: level is '', .*--known-only",
        ),
        (
            lambda lines: [*lines, "99_left,0"],
            r"1 of 13 photographs is missing, .*: 99_left, .*--allow-rejected",
        ),
    ],
)
def test_labels_that_are_missing_wrong_or_of_other_images(check_run, labels, change, message):
    path, lines = labels
    lines = change(lines)
    if lines:
        path.write_text("\n".join(lines) + "\n")
    else:
        path.unlink()
    with pytest.raises(InputError, match=message):
        check_run()


def test_the_way_on_that_is_named_is_one(check_run, labels):
    path, lines = labels
    path.write_text("\n".join([*lines[:-2], f"{lines[-2].partition(',')[0]},"]) + "\n")
    check_run("dr.train", "--known-only")
    path.write_text("\n".join([*lines, "99_left,0"]) + "\n")
    check_run("--allow-rejected")


def test_a_sample_submission_and_the_test_folder_have_the_same_images(check_run, data):
    sample = data / "sampleSubmission.csv"
    lines = sample.read_text().splitlines()
    sample.write_text("\n".join(lines[:-1]) + "\n")
    lacking = lines[-1].partition(",")[0]
    with pytest.raises(
        InputError, match=f"1 images of the test photographs of .* are not in .*csv: {lacking}"
    ):
        check_run()
    sample.write_text("\n".join([*lines, "99_left,0"]) + "\n")
    with pytest.raises(
        InputError, match="1 of 13 photographs is missing, which the tables name: 99_left"
    ):
        check_run()
    sample.write_text("\n".join(lines) + "\n")
    shutil.rmtree(data / "test")
    with pytest.raises(
        InputError, match=r"names 4 test images, such as \S+, but .*test holds no photograph"
    ):
        check_run()


def test_labels_of_the_test_set_that_no_report_could_use(check_run, data):
    path = data / "testLabels.csv"
    path.write_text(path.read_text().replace("_left,", "_left,9"))
    with pytest.raises(InputError, match=r"testLabels\.csv, row 2: level is 9\d, not"):
        check_run()
    path.write_text("image,level\n99_left,0\n")
    with pytest.raises(
        InputError, match=r"testLabels\.csv: names none of the test photographs of .*, but 99_left"
    ):
        check_run()


def test_a_device_without_a_driver(check_run, monkeypatch):
    monkeypatch.setattr(
        torch, "zeros", lambda *_, device: (_ for _ in ()).throw(RuntimeError("no driver\nmore"))
    )
    with pytest.raises(InputError, match=r"^--device cuda:7: no driver$"):
        check_run("--device=cuda:7")


def test_weights_of_another_net(check_run, tmp_path):
    pytest.importorskip("timm")
    torch.save({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: .*(not weights of this net|conv1)"):
        check_run("dr.train", "--net", NET, "--crop-px=64", f"--weights={tmp_path / 'other.pth'}")
    fitting = catalog.create(NET, 64, 0.0).state_dict()
    torch.save(fitting, tmp_path / "own.pth")
    check_run("dr.train", "--net", NET, "--crop-px=64", f"--weights={tmp_path / 'own.pth'}")


def test_weights_out_of_reach_are_one_question_and_one_line(check_run, monkeypatch):
    pytest.importorskip("timm")
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(catalog, "find_kept", lambda _: None)
    with pytest.raises(
        InputError,
        match=r"--weights imagenet: out of reach \(.*no route.*\); fetch https://\S+ and",
    ):
        check_run("dr.train", "--net", NET, "--weights=imagenet")
    assert len(asked) == 1


def test_a_disk_that_is_too_small_is_told_by_a_sample_of_the_photographs(
    check_run, data, cache, monkeypatch
):
    free = []
    monkeypatch.setattr(files, "measure_free_space", lambda folder: free[-1])
    free.append(10**5)
    with pytest.raises(InputError) as told:
        check_run()
    message = str(told.value)
    assert message.startswith(f"{cache}: about ")
    assert (
        "squares 1 MB" in message
        and "checkpoints 89 MB" in message
        and message.count("1 MB free") == 1
    )
    free.append(10**12)
    check_run()


def test_the_estimate_of_the_squares_is_near_what_they_take(data, cache):
    from preprocess import photographs
    from preprocess.dataset import readers

    dataset = readers.read_dataset(data)
    estimate = photographs.estimate_squares(dataset, cache, "adaptive", 64)
    preprocess.main([f"--data={data}", f"--cache={cache}", "--size-px=64", "--jobs=1"])
    taken = sum(path.stat().st_size for path in (cache / "resize").rglob("*.png"))
    assert estimate == pytest.approx(taken, rel=0.1)
    assert photographs.estimate_squares(dataset, cache, "adaptive", 64) == 0


@pytest.mark.parametrize("main", [preprocess.main, crop.main])
def test_a_stage_alone_tells_it_before_it_reads_a_photograph(data, cache, main, monkeypatch):
    monkeypatch.setattr(Photograph, "__init__", lambda *_: pytest.fail("a photograph was read"))
    with open(data / "trainLabels.csv", "a") as table:
        table.write("99_left,0\n")
    with pytest.raises(InputError, match="1 of 13 photographs is missing"):
        main([f"--data={data}", f"--cache={cache}", "--jobs=1"])


def test_known_only_learns_from_the_others_and_the_later_stages_go_on(run, places, capsys):
    from dr import predict
    from dr.scores import read_scores
    from tests.tasks import TASK

    data, cache = (place.partition("=")[2] for place in places)
    table = files.Path(data) / "trainLabels.csv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([lines[0], lines[1].partition(",")[0] + ",", *lines[3:]]) + "\n"
    )  # one empty, one gone
    with pytest.raises(
        InputError, match="row 2: level is '', not known; --known-only leaves such images out"
    ):
        run("--epochs=1")
    run("--epochs=1", "--known-only")
    predict.main([*places, "--views=1", "--epochs-averaged=last:1", "--device=cpu"])
    assert len(read_scores(files.Path(cache) / "dr" / "scores_valid.csv", TASK)) in range(2, 8)


def test_each_stage_names_the_one_that_is_really_missing(data, cache):
    with pytest.raises(InputError, match="run python -m preprocess first"):
        train.main([f"--data={data}", f"--cache={cache}", *TRAIN_OPTIONS])
    from kappa import assign

    with pytest.raises(
        InputError, match=r"scores_test\.csv: no such file; run python -m preprocess first"
    ):
        assign.main([f"--data={data}", f"--cache={cache}"])
