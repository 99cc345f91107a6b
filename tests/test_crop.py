"""The crop stage: its table, corrections, rejected photographs and what is redone when."""

import os
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from preprocess import crop, photographs
from preprocess.__main__ import main as preprocess
from preprocess.cache import manifest, rejected
from preprocess.dataset import kaggle
from preprocess.disk.errors import InputError
from preprocess.picture import outline, sheet
from preprocess.picture.photograph import Photograph


def run(data, cache, *options):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1", *options])
    return pd.read_csv(cache / "crop" / "train.csv", index_col="image")


def correct(cache, *rows):
    (cache / "crop").mkdir(parents=True, exist_ok=True)
    lines = ["image,center_x,center_y,semi_axis_x,semi_axis_y", *rows, ""]
    (cache / "crop" / "corrections.csv").write_text("\n".join(lines))


def test_table_holds_the_true_discs_in_pixels_of_the_photograph(drawn_folder, cache):
    table = run(drawn_folder, cache)
    discs = pd.read_csv(drawn_folder / "discs.csv", index_col="image").loc[table.index]
    assert list(table.index) == list(kaggle.list_folder(drawn_folder / "train").paths)
    assert (table[["width", "height"]] == discs[["width", "height"]]).all(axis=None)
    for column, truth in (
        ("center_x", "center_x"),
        ("center_y", "center_y"),
        ("semi_axis_x", "radius"),
    ):
        assert (table[column] - discs[truth]).abs().max() < 0.02 * discs["radius"].min()
    assert table["confidence"].between(0, 1).all()


def test_whole_takes_a_picture_as_it_is_from_its_header_and_the_sheet_shows_its_box(tmp_path):
    path = tmp_path / "1_left.png"
    cv2.imwrite(str(path), np.zeros((300, 400, 3), np.uint8))
    row = outline.measure(Photograph(path), "whole")
    assert [row[name] for name in outline.COLUMNS[1:]] == [400, 300, 199.5, 149.5, 200, 150, 1]
    box, ellipse = (
        sheet.draw_tile(path, row, "", shape, None) == sheet.LINE_RGB
        for shape in ("box", "ellipse")
    )
    assert box[0].all() and box[:119, [0, -1]].all()  # its whole border
    assert not ellipse[0, [0, -1]].all(axis=-1).any()


def test_only_the_replaced_the_new_and_the_removed_photograph_change(data, cache, capsys):
    first = run(data, cache)
    replaced, removed, *kept = first.index
    shutil.copy(data / "train" / f"{kept[0]}.jpeg", data / "train" / f"{replaced}.jpeg")
    os.remove(data / "train" / f"{removed}.jpeg")
    shutil.copy(data / "train" / f"{kept[1]}.jpeg", data / "train" / "999_left.jpeg")
    kaggle.read_labels(data / "trainLabels.csv").drop(removed).to_csv(data / "trainLabels.csv")
    second = run(data, cache)
    assert "crop: train: 2 of 8 images are due" in capsys.readouterr().out
    assert list(second.index) == [replaced, *kept, "999_left"]
    assert second.loc[kept].equals(first.loc[kept])
    assert second.loc[replaced].equals(second.loc[kept[0]].rename(replaced))
    box = run(data, cache, "--method=box")
    assert "8 of 8 images are due (method changed from adaptive to box)" in capsys.readouterr().out
    assert not box.equals(second)


def test_a_correction_wins_and_redoes_only_its_image(data, cache, capsys):
    first = run(data, cache)
    image = first.index[2]
    correct(cache, f"{image},100,90.5,80,79")
    second = run(data, cache)
    assert "crop: train: 1 of 8 images are due" in capsys.readouterr().out
    assert second.loc[image, list(outline.ELLIPSE)].tolist() == [100, 90.5, 80, 79]
    (cache / "crop" / "corrections.csv").unlink()
    assert run(data, cache).equals(first)


def test_corrections_without_size_and_of_unknown_images_are_refused_before_anything_is_done(
    data, cache
):
    correct(cache, "1_left,1,1,0,9")
    with pytest.raises(InputError, match=r"corrections\.csv, row 2: a semi-axis is not positive"):
        run(data, cache)
    assert not (cache / "crop" / "train.csv").exists()
    image = kaggle.list_folder(data / "test").paths.popitem()[0]
    correct(cache, f"{image},100,90,80,80")
    run(data, cache)
    before = (cache / "crop" / "test.csv").read_bytes()
    shutil.rmtree(data / "test")
    run(data, cache)  # of a split that is gone, but was cropped once, and keeps its table
    assert (cache / "crop" / "test.csv").read_bytes() == before
    assert manifest.has_output(cache / "crop", "test")
    correct(cache, "99_left,100,90,80,80")
    for main in (crop.main, preprocess):
        with pytest.raises(
            InputError, match=r"corrections\.csv: no photograph in .* is image 99_left"
        ):
            main([f"--data={data}", f"--cache={cache}", "--jobs=1"])


def test_bad_photographs_are_listed_and_the_others_done(data, cache, capsys):
    """And see tests.hostile."""
    good = run(data, cache)
    empty, missing, *_ = (data / "train" / f"{image}.jpeg" for image in good.index)
    empty.write_bytes(b"")
    missing.rename(data / "train" / "holiday.jpeg")
    with pytest.raises(InputError, match=r"1 of 12 photographs is missing.*--allow-rejected"):
        run(data, cache)
    run(data, cache, "--allow-rejected")
    reasons = rejected.read_reasons(cache, "train")
    assert list(reasons) == [
        good.index[0],
        "holiday.jpeg",
        good.index[1],
    ]  # what is missing stands last
    assert "empty" in reasons[empty.stem] and "no such file" in reasons[missing.stem]
    capsys.readouterr()
    assert run(data, cache, "--allow-rejected").equals(good.iloc[2:])
    assert "all 8 images are cached" in capsys.readouterr().out


def test_sheet_shows_every_cropped_photograph_least_sure_first(data, cache, tmp_path, monkeypatch):
    image, path = next(iter(kaggle.list_folder(data / "train").paths.items()))
    path.write_bytes(path.read_bytes()[:4000])  # no pixels, but a correction
    correct(cache, f"{image},100,90,80,80")
    drawn, draw_tile = [], sheet.draw_tile
    monkeypatch.setattr(
        sheet, "draw_tile", lambda *arguments: drawn.append(arguments[1]) or draw_tile(*arguments)
    )
    run(data, cache, f"--sheet={tmp_path / 'sheet.png'}")
    confidences = [row["confidence"] for row in drawn]
    assert len(confidences) == 12
    assert confidences == sorted(confidences)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (sheet.TILE_PX, 12 * sheet.TILE_PX, 3)
    tile = draw_tile(path, photographs.read_crops(cache, "train")[image], image, "ellipse", None)
    assert not tile[: sheet.TILE_PX // 2].any()
    assert tile.any()
    monkeypatch.setattr(sheet, "PER_PAGE", 5)
    drawn.clear()
    run(data, cache, f"--sheet={tmp_path / 'page.png'}", "--sheet-part=train")
    assert len(drawn) == 8
    assert cv2.imread(str(tmp_path / "page.png")).shape[1] == 5 * sheet.TILE_PX
    assert cv2.imread(str(tmp_path / "page-2.png")).shape[1] == 3 * sheet.TILE_PX
    run(data, cache, f"--sheet={tmp_path / 'one.png'}", "--sheet-image=18_left")
    assert max(cv2.imread(str(tmp_path / "one.png")).shape) == sheet.LARGE_PX
    for options, message in (
        ([f"--sheet={tmp_path / 'one.png'}", "--sheet-image=gone"], "gone: no photograph of this"),
        (["--sheet-part=test"], "need --sheet FILE.png"),
    ):
        with pytest.raises(InputError, match=message):
            run(data, cache, *options)
    with pytest.raises(InputError, match="no photographs in train/ or test/"):
        crop.main([f"--data={tmp_path}", f"--cache={tmp_path / 'other'}"])
