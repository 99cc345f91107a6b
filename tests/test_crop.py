"""The crop stage: its table, corrections, rejected photographs and what is redone when."""

import os
import shutil

import cv2
import pandas as pd
import pytest

from preprocess import crop, eyes, sheet, stage
from preprocess.__main__ import main as preprocess


def run(data, cache, *options):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1", *options])
    return pd.read_csv(cache / "crop" / "train.csv", index_col="image")


def test_table_holds_the_true_discs_in_pixels_of_the_photograph(drawn_folder, cache):
    table = run(drawn_folder, cache)
    discs = pd.read_csv(drawn_folder / "discs.csv", index_col="image").loc[table.index]
    assert list(table.index) == list(eyes.list_images(drawn_folder, "train")[0])
    assert (table[["width", "height"]] == discs[["width", "height"]]).all(axis=None)
    for column, truth in (("center_x", "center_x"), ("center_y", "center_y"), ("semi_axis_x", "radius")):
        assert (table[column] - discs[truth]).abs().max() < 0.02 * discs["radius"].min()
    assert table["confidence"].between(0, 1).all()


def test_number_of_processes_does_not_show_in_the_bytes(drawn_folder, cache, tmp_path):
    run(drawn_folder, cache)
    run(drawn_folder, tmp_path / "other", "--jobs=2")
    for name in ("train.csv", "test.csv", "train.jsonl", "manifest.json"):
        assert (cache / "crop" / name).read_bytes() == (tmp_path / "other" / "crop" / name).read_bytes()


def test_a_second_run_reads_no_photograph(data, cache, capsys, monkeypatch):
    first = run(data, cache)
    monkeypatch.setattr(crop, "measure", None)
    assert run(data, cache).equals(first)
    assert "crop: train: all 8 images are cached" in capsys.readouterr().out


def test_only_the_replaced_the_new_and_the_removed_photograph_change(data, cache, capsys):
    first = run(data, cache)
    replaced, removed, *_ = first.index
    kept = [image for image in first.index if image not in (replaced, removed)]
    shutil.copy(data / "train" / f"{kept[0]}.jpeg", data / "train" / f"{replaced}.jpeg")
    os.remove(data / "train" / f"{removed}.jpeg")
    shutil.copy(data / "train" / f"{kept[1]}.jpeg", data / "train" / "999_left.jpeg")
    labels = eyes.read_labels(data / "trainLabels.csv").drop(removed)
    labels.to_csv(data / "trainLabels.csv")
    second = run(data, cache)
    assert "crop: train: 2 of 8 images are due" in capsys.readouterr().out
    assert list(second.index) == [replaced, *kept, "999_left"]
    assert second.loc[kept].equals(first.loc[kept])
    assert second.loc[replaced].equals(second.loc[kept[0]].rename(replaced))


def test_another_method_redoes_all_and_says_why(data, cache, capsys):
    adaptive = run(data, cache)
    box = run(data, cache, "--method=box")
    assert "8 of 8 images are due (method changed from adaptive to box)" in capsys.readouterr().out
    assert not box.equals(adaptive)


def test_a_correction_wins_and_redoes_only_its_image(data, cache, capsys):
    first = run(data, cache)
    image = first.index[2]
    corrections = cache / "crop" / "corrections.csv"
    corrections.write_text(f"image,center_x,center_y,semi_axis_x,semi_axis_y\n{image},100,90.5,80,79\n")
    second = run(data, cache)
    assert "crop: train: 1 of 8 images are due" in capsys.readouterr().out
    assert second.loc[image, list(crop.ELLIPSE)].tolist() == [100, 90.5, 80, 79]
    corrections.unlink()
    assert run(data, cache).equals(first)


def test_a_correction_without_size_is_refused(data, cache):
    (cache / "crop").mkdir(parents=True)
    (cache / "crop" / "corrections.csv").write_text("image,center_x,center_y,semi_axis_x,semi_axis_y\n1_left,1,1,0,9\n")
    with pytest.raises(stage.InputError, match=r"corrections\.csv, row 2: a semi-axis is not positive"):
        run(data, cache)


def test_a_correction_of_an_unknown_image_is_refused_before_anything_is_done(data, cache):
    run(data, cache)
    image = eyes.list_images(data, "test")[0].popitem()[0]
    text = "image,center_x,center_y,semi_axis_x,semi_axis_y\n{},100,90,80,80\n"
    corrections = cache / "crop" / "corrections.csv"
    corrections.write_text(text.format(image))
    shutil.rmtree(data / "test")
    run(data, cache)  # of a split that is gone, but was cropped once
    corrections.write_text(text.format("99_left"))
    for main in (crop.main, preprocess):
        with pytest.raises(stage.InputError, match=r"corrections\.csv: no photograph in .* is image 99_left"):
            main([f"--data={data}", f"--cache={cache}", "--jobs=1"])


def test_the_sheet_shows_a_corrected_photograph_that_cannot_be_read_by_name_alone(data, cache, tmp_path):
    image, path = next(iter(eyes.list_images(data, "train")[0].items()))
    path.write_bytes(path.read_bytes()[:4000])
    (cache / "crop").mkdir(parents=True)
    columns = "image,center_x,center_y,semi_axis_x,semi_axis_y"
    (cache / "crop" / "corrections.csv").write_text(f"{columns}\n{image},100,90,80,80\n")
    run(data, cache, f"--sheet={tmp_path / 'sheet.png'}")
    tile = sheet.draw_tile(path, crop.read_crops(cache, "train")[image], image)
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    assert not tile[: sheet.TILE_PX // 2].any()
    assert tile.any()


def test_bad_photographs_are_listed_and_the_others_done(data, cache, capsys):
    good = run(data, cache)
    paths = [data / "train" / f"{image}.jpeg" for image in good.index]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:4000])
    paths[2].write_text("<html>")
    paths[3].unlink()
    (data / "train" / "holiday.jpeg").write_bytes(paths[4].read_bytes())
    with pytest.raises(stage.InputError, match=r"5 photographs are rejected.*--allow-rejected"):
        run(data, cache)
    rejected = stage.read_rejected(cache).set_index("image")["reason"]
    assert set(rejected.index) == {*good.index[:4], "holiday.jpeg"}
    assert "empty" in rejected[good.index[0]]
    assert "truncated" in rejected[good.index[1]]
    assert "no such file" in rejected[good.index[3]]
    capsys.readouterr()
    assert run(data, cache, "--allow-rejected").equals(good.iloc[4:])
    assert "all 8 images are cached" in capsys.readouterr().out


def test_a_missing_split_is_no_error_and_a_vanished_one_keeps_its_table(data, cache):
    run(data, cache)
    before = (cache / "crop" / "test.csv").read_bytes()
    shutil.rmtree(data / "test")
    run(data, cache)
    assert (cache / "crop" / "test.csv").read_bytes() == before
    assert stage.has_output(cache / "crop", "test")


def test_sheet_shows_every_cropped_photograph_least_sure_first(drawn_folder, cache, tmp_path, monkeypatch):
    drawn = []
    draw_tile = sheet.draw_tile
    monkeypatch.setattr(sheet, "draw_tile", lambda *arguments: drawn.append(arguments[1]) or draw_tile(*arguments))
    run(drawn_folder, cache, f"--sheet={tmp_path / 'sheet.png'}")
    confidences = [row["confidence"] for row in drawn]
    assert len(confidences) == 12
    assert confidences == sorted(confidences)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (sheet.TILE_PX, 12 * sheet.TILE_PX, 3)


def test_a_folder_without_photographs_is_refused(tmp_path, cache):
    with pytest.raises(stage.InputError, match="no photographs in train/ or test/"):
        crop.main([f"--data={tmp_path}", f"--cache={cache}"])
