"""The field's data sets as they are downloaded, and declarations of others: what is read, and faults."""

import shutil
import unicodedata

import numpy as np
import pytest

from preprocess import describe, split
from preprocess.dataset import listing, readers, recognise
from preprocess.dataset.layouts import declaration
from preprocess.disk.errors import InputError
from tests import layouts
from tests.layouts import put, write

RETINOPATHY = 'kind = "levels"\nnames = ["no", "mild", "moderate", "severe", "proliferative"]\n'
TABLE = '[train]\ntable = "labels.csv"\nimages = "pictures"\n'
# Layout -> images, patients, left, right, unknown of train (and valid), and images of test.
EXPECTED = {
    "aptos": (10, 10, 0, 0, 0, 4),
    "aptos-224": (10, 10, 0, 0, 0, 0),
    "idrid": (6, 6, 0, 0, 0, 3),
    "messidor2": (4, 4, 0, 0, 1, 0),
    "ddr": (10, 10, 0, 0, 2, 3),
    "eyepacs-resized": (6, 3, 3, 3, 0, 0),
    "levels-in-folders": (14, 7, 7, 7, 0, 2),
    "odir": (6, 3, 3, 3, 0, 0),
    "rfmid": (6, 6, 0, 0, 0, 2),
    "brset": (6, 3, 3, 3, 0, 0),
    "deepdrid": (16, 4, 8, 8, 8, 0),
    "chexpert": (4, 4, 0, 0, 0, 0),
}


def describe_folder(capsys, *options):
    capsys.readouterr()
    describe.main(list(map(str, options)))
    return capsys.readouterr().out


def declare(folder, keys, rows="a,0\nb,1\n", names="ab"):
    """Make a folder of a table and photographs, and the declaration of it."""
    write(folder / "labels.csv", f"image,grade\n{rows}")
    for name in names:
        put(folder / "pictures" / f"{name}.png")
    write(folder / "data.toml", keys)
    return folder


@pytest.mark.parametrize("name", layouts.DRAWN)
def test_a_set_as_it_is_downloaded_is_recognised_and_read_alike_by_name(tmp_path, name):
    layouts.DRAWN[name](tmp_path)
    dataset = readers.read_dataset(tmp_path)
    assert dataset.notes[0].startswith(f"recognised as layout {name}: ")
    named = readers.read_dataset(tmp_path, name)
    assert dataset.samples.equals(named.samples) and dataset.question == named.question
    learned = dataset.get_part("train")
    n_unknown = int(learned[dataset.question.columns].isna().all(axis=1).sum())
    sides = list(learned["side"])
    counted = (
        len(learned),
        learned["patient"].nunique(),
        sides.count("left"),
        sides.count("right"),
        n_unknown,
    )
    assert (*counted, len(dataset.get_part("test"))) == EXPECTED[name]
    assert len(dataset.list_paths("train")) == len(learned)  # each has a photograph, which is there
    assert all(path.is_file() for path in dataset.list_paths("train").values())


def test_every_shipped_layout_is_drawn_here_and_names_its_source():
    assert set(declaration.list_shipped()) == {*layouts.DRAWN, "odir-patients"}
    for name in declaration.list_shipped():
        text = (declaration.FOLDER / f"{name}.toml").read_text()
        assert text.startswith("# ") and "http" in text.partition("\nkind")[0]


def test_colliding_ids_are_prefixed_by_part_and_each_has_its_own_picture(tmp_path):
    layouts.draw_idrid(tmp_path)
    dataset = readers.read_dataset(tmp_path)
    paths = dataset.list_paths("train") | dataset.list_paths("test")
    assert paths["train/IDRiD_001"].parent.name == "a. Training Set"
    assert paths["test/IDRiD_001"].parent.name == "b. Testing Set"
    assert dataset.get_targets("train")["train/IDRiD_004"] == 4
    assert "Risk of macular edema" in dataset.samples
    alone = tmp_path / "alone"
    layouts.draw_idrid(alone, "a")
    assert list(readers.read_dataset(alone).list_paths("train"))[0] == "IDRiD_001"


def test_traps_of_single_sets(tmp_path):
    deepdrid, chexpert, odir, brset = (
        tmp_path / name for name in ("deepdrid", "chexpert", "odir", "brset")
    )
    layouts.draw_deepdrid(deepdrid)
    targets = readers.read_dataset(deepdrid).get_targets("train")
    assert (
        targets["1_l1"] == targets["1_l2"] == 1 and "1_r1" not in targets
    )  # 5 is not to be graded
    layouts.draw_chexpert(chexpert)
    rows = readers.read_dataset(chexpert).samples.set_index("patient")
    assert rows.loc["patient00001", "Fracture"] == 0  # no finding: what is not mentioned is absent
    assert rows.loc["patient00002", "Cardiomegaly"] == 1 and rows.loc["patient00002", "Edema"] == 0
    assert np.isnan(rows.loc["patient00002", "Lung Opacity"])  # uncertain
    assert np.isnan(rows.loc["patient00002", "Fracture"])
    layouts.draw_odir(odir)
    assert any("the labels are the patient's" in note for note in readers.read_dataset(odir).notes)
    layouts.draw_brset(brset)
    found = readers.read_dataset(brset).find_subject("img00001")
    assert found == ("1", "right")


def test_a_row_per_patient_names_both_eyes_in_a_sheet(tmp_path):
    pytest.importorskip("openpyxl")
    layouts.draw_odir_patients(tmp_path)
    dataset = readers.read_dataset(tmp_path)
    assert dataset.find_subject("7_right") == ("7", "right")
    assert dataset.samples["diabetes"].tolist() == [1, 1, 0, 0] and set(
        dataset.samples["Patient Age"]
    ) == {"61", "60"}


@pytest.mark.parametrize("how", ["tabs", "semicolons", "gzip", "cp1252", "utf-16", "no header"])
def test_tables_of_any_writing_are_one(tmp_path, how):
    text = "image;patient;grade\nIM 1.JPG;Zoë;mild\nIM 2;Zoë;no\nIM 3;Max;n/a\n"
    keys = (
        RETINOPATHY + 'image = "image"\ntarget = "grade"\npatient = "patient"\nunknown = ["n/a"]\n'
    )
    for number in (1, 2, 3):
        put(tmp_path / "pictures" / "clinic" / f"IM {number}.jpg")
    path = write(
        tmp_path / "labels.csv",
        text.replace("\n", "\r\n"),
        how if how in ("cp1252", "utf-16") else "utf-8",
    )
    if how == "tabs":
        write(path, "\ufeff" + text.replace(";", "\t"))
    elif how == "gzip":
        layouts.compress(path)
    elif how == "no header":
        write(path, "IM 1.jpg Zoë mild\nIM 2.jpg Zoë no\n\nIM 3.jpg Max n/a\n")
        keys += 'columns = ["image", "patient", "grade"]\n'
    write(tmp_path / "data.toml", keys + TABLE)
    dataset = readers.read_dataset(tmp_path)
    assert dataset.get_targets("train").to_dict() == {"IM 1": 1, "IM 2": 0}
    assert dataset.get_patients(["IM 1", "IM 3"]) == ["Zoë", "Max"]


def test_patient_and_side_come_from_the_path_and_decomposed_names_are_one_id(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Zoë")
    put(tmp_path / "pictures" / decomposed / f"{decomposed}-OD.png")
    put(tmp_path / "pictures" / "Max" / "MAX-OS.png")
    write(tmp_path / "labels.csv", "image,grade\nZoë-OD,1\nMAX-OS,0\n")
    patterns = "patient_from = 'pictures/([^/]+)/'\nside_from = '-(O[DS])'\n"
    write(
        tmp_path / "data.toml",
        RETINOPATHY + 'image = "image"\ntarget = "grade"\n' + patterns + TABLE,
    )
    dataset = readers.read_dataset(tmp_path)
    assert dataset.find_subject("Zoë-OD") == ("Zoë", "right")
    assert dataset.find_subject("MAX-OS") == ("Max", "left")
    assert dataset.normalize_id(f"{decomposed}-OD.png") == "Zoë-OD"


def test_binary_by_values_keep_and_any_number_of_levels_survive_the_table_of_samples(tmp_path):
    values = (
        'names = ["not referable", "referable"]\nvalues = { 0 = 0, 1 = 0, 2 = 1, 3 = 1, 4 = 1 }\n'
    )
    keys = 'kind = "levels"\nimage = "image"\ntarget = "grade"\nunknown = ["9"]\n' + values + TABLE
    folder = declare(tmp_path, keys, "a,0\nb,3\nc,1.0\nd,9\n", "abcd")
    dataset = readers.read_dataset(folder)
    assert dataset.get_targets("train").to_dict() == {"a": 0, "b": 1, "c": 0}
    describe.main([f"--data={folder}", f"--out={folder / 'samples.csv'}"])
    again = readers.read_dataset(folder)
    assert again.question == dataset.question and again.get_targets("train").equals(
        dataset.get_targets("train")
    )
    write(folder / "data.toml", keys.replace(TABLE, "keep = { grade = [0, 3] }\n") + TABLE)
    (folder / "samples.csv").unlink()
    kept = readers.read_dataset(folder)
    assert list(kept.list_paths("train")) == ["a", "b"]
    assert "train: 2 images left out by keep (grade)" in kept.notes


def test_joined_findings_of_several_rows_are_one_image(tmp_path):
    keys = (
        'kind = "findings"\nimage = "image"\ntarget = "grade"\njoined = "|"\nnames = ["Mass", "Nodule"]\n'
        + TABLE
    )
    folder = declare(tmp_path, keys, "a,Mass\na,nodule\nb,No Finding\nc,\n", "abc")
    rows = readers.read_dataset(folder).samples.set_index("image")
    assert rows.loc["a", ["Mass", "Nodule"]].tolist() == [1, 1] and rows.loc[
        "b", ["Mass", "Nodule"]
    ].tolist() == [0, 0]
    assert rows.loc["c", ["Mass", "Nodule"]].isna().all()


COLUMNS = 'image = "image"\ntarget = "grade"\n'


@pytest.mark.parametrize(
    ("keys", "rows", "message"),
    [
        ('knd = "levels"\n' + TABLE, "a,0\n", r"data\.toml: knd: no such key \(near: kind\)"),
        (
            'kind = "stages"\n' + TABLE,
            "a,0\n",
            "kind: 'stages' is none of levels, classes, findings",
        ),
        (
            RETINOPATHY + 'image = "imgae"\ntarget = "grade"\n' + TABLE,
            "a,0\n",
            r"image: .*no column 'imgae' \(near: image\)",
        ),
        (
            RETINOPATHY + 'image = "image"\ntarget = "grades"\n' + TABLE,
            "a,0\n",
            r"target: .*'grades' \(near: grade\)",
        ),
        (
            RETINOPATHY + COLUMNS + TABLE,
            "a,0\nb,7\n",
            r"labels\.csv, row 3: grade is '7', not a level from 0 to 4",
        ),
        (
            RETINOPATHY + COLUMNS + TABLE,
            "a,0\nb,midl\n",
            r"row 3: grade is 'midl', not a level .*\(near: mild\)",
        ),
        (
            RETINOPATHY + COLUMNS + TABLE,
            "a,0\na,1\n",
            r"row 3: a is 0 and 1; .*row 2 says the first",
        ),
        (RETINOPATHY + COLUMNS + TABLE, "z,0\n", r"row 2: no photograph below .*pictures is z"),
        (
            RETINOPATHY + COLUMNS + TABLE.replace("pictures", "picture"),
            "a,0\n",
            r"\[train\] images: .* \(near: pictures\)",
        ),
        (
            RETINOPATHY + COLUMNS + TABLE.replace("labels", "label"),
            "a,0\n",
            r"\[train\] table: .*\(near: labels\.csv\)",
        ),
        (
            RETINOPATHY + COLUMNS + "side_from = 'left|right'\n" + TABLE,
            "a,0\n",
            "side_from: .* has 0 groups",
        ),
        (
            RETINOPATHY + COLUMNS + 'side = "grade"\n' + TABLE,
            "a,0\n",
            r"row 2: side is '0'.*sides = ",
        ),
        (
            COLUMNS + 'kind = "levels"\n' + TABLE,
            "a,mild\nb,0\n",
            "names is missing: 'mild' is a level",
        ),
        (
            RETINOPATHY + COLUMNS + "[train]\ntabel = 'labels.csv'\n",
            "a,0\n",
            r"\[train\] tabel: no key of a part",
        ),
        (
            RETINOPATHY + COLUMNS + 'separator = "tab"\n' + TABLE,
            "a,0\n",
            r"no column 'image' \(near: image,grade",
        ),
    ],
)
def test_a_fault_of_a_declaration_is_one_line_with_file_key_and_what_would_be_right(
    tmp_path, keys, rows, message
):
    folder = declare(tmp_path, keys, rows)
    with pytest.raises(InputError, match=message) as caught:
        readers.read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_layout_and_two_that_fit_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"--layout aptso: no such layout \(near: aptos"):
        readers.read_dataset(tmp_path, "aptso")
    layouts.draw_aptos(tmp_path)
    layouts.draw_aptos_224(tmp_path)
    with pytest.raises(InputError, match="say which by --layout aptos or aptos-224"):
        readers.read_dataset(tmp_path)


def test_no_file_of_a_named_folder_is_passed_over_in_silence(tmp_path):
    layouts.draw_aptos(tmp_path)
    put(tmp_path / "train_images" / "stray.tif")
    write(tmp_path / "train_images" / "readme.txt", "of others")
    write(tmp_path / "train_images" / "Thumbs.db", "")
    (note,) = [note for note in readers.read_dataset(tmp_path).notes if "not read" in note]
    assert note.startswith("train_images: 3 files not read: ")
    assert (
        "1 .tif (no row of the table names it)" in note
        and "1 .txt (no photograph)" in note
        and "1 .db" in note
    )


def test_one_picture_in_two_parts_and_two_pictures_of_one_name_are_errors(tmp_path):
    keys = RETINOPATHY + COLUMNS + TABLE + TABLE.replace("train", "test")
    with pytest.raises(InputError, match="a.png is in .test. and, .*in .train."):
        readers.read_dataset(declare(tmp_path, keys))
    other = declare(tmp_path / "other", RETINOPATHY + COLUMNS + TABLE)
    put(other / "pictures" / "deep" / "a.png")
    with pytest.raises(InputError, match=r"row 2: 'a' is pictures/a.png or pictures/deep/a.png"):
        readers.read_dataset(other)


# Three layouts that nobody has declared: a person changes the lines of the draft that are given.
def draw_semicolons(folder):
    lines = ["Bild;Befund;Patient;Auge"]
    for n, word in enumerate(("keine", "leicht", "schwer", "keine", "leicht", "nicht beurteilbar")):
        put(folder / "bilder" / f"ward {n % 2}" / f"B{n}.tif")
        lines.append(f"B{n}.tif;{word};P{n // 2};{'RL'[n % 2]}")
    write(folder / "befunde.csv", "\r\n".join(lines), "cp1252")
    return {
        "names = ": 'names = ["keine", "leicht", "schwer"]',
        "# values": 'unknown = ["nicht beurteilbar"]',
    }


def draw_nested_folders(folder):
    for n, word in enumerate(("healthy", "severe", "mild", "healthy")):
        put(folder / "set" / word / f"patient{n // 2}" / f"{n}.bmp")
    return {
        "names = ": 'names = ["healthy", "mild", "severe"]',
        "# patient_from": "patient_from = '(patient\\d+)/'",
    }


def draw_path_column(folder):
    lines = ["study\tfile\tDR grade"]
    for n in range(6):
        lines.append(f"{n}\tsite{n % 2}/s{n // 2}/eye{n}.webp\t{n % 3}")
        put(folder / "pool" / f"site{n % 2}" / f"s{n // 2}" / f"eye{n}.webp")
    write(folder / "all.tsv", "\n".join(lines) + "\n")
    return {"# patient = ": "patient_from = '/(s\\d+)/'"}


@pytest.mark.parametrize("draw", [draw_semicolons, draw_nested_folders, draw_path_column])
def test_an_invented_layout_needs_only_a_draft_and_an_editor(tmp_path, capsys, draw):
    edits = draw(tmp_path)
    shown = describe_folder(capsys, f"--data={tmp_path}")
    assert "fits no layout" in shown and "a data.toml to finish" in shown
    describe_folder(capsys, f"--data={tmp_path}", "--draft")
    path = tmp_path / "data.toml"
    lines = []
    for line in path.read_text().splitlines():
        start = next((start for start in edits if line.startswith(start)), None)
        lines.append(edits[start] if start else line)
    path.write_text("\n".join(lines) + "\n")
    dataset = readers.read_dataset(tmp_path)
    assert dataset.question.kind == "levels" and len(dataset.question.names) == 3
    assert set(dataset.get_targets("train")) == {0, 1, 2}
    assert dataset.get_part("train")["patient"].nunique() in (2, 3)
    with pytest.raises(InputError, match="is there already"):
        describe.main([f"--data={tmp_path}", "--draft"])


def test_a_wide_table_of_two_eyes_is_drafted_with_both_columns_and_their_sides(tmp_path):
    lines = ["Fall;Alter;OD Bild;OS Bild;OD Befund;OS Befund"]
    words = ["keine", "milde", "schwere"]
    for n in range(6):
        pair = f"Fall-{n}/od;Fall-{n}/os.tif"
        lines.append(f"Fall-{n};5{n},5;{pair};{words[n % 3]};{words[(n + 1) % 3]}")
        put(tmp_path / "fotos" / f"Fall-{n}" / "od.tif")
        put(tmp_path / "fotos" / f"Fall-{n}" / "os.tif")
    write(tmp_path / "tabelle.csv", "\r\n".join(lines))
    describe.main([f"--data={tmp_path}", "--draft"])
    dataset = readers.read_dataset(tmp_path)
    assert dataset.find_subject("Fall-1/od").side == "right"
    assert dataset.get_targets("train")[["Fall-1/od", "Fall-1/os"]].tolist() == [1, 2]
    assert all(f"{image}.tif" in str(path) for image, path in dataset.list_paths("train").items())
    text = (tmp_path / "data.toml").read_text()
    write(tmp_path / "data.toml", text.replace('"fotos"', '"fotos/Fall-5"'))
    with pytest.raises(InputError, match="Fall-1/od is .*od.tif, which is Fall-0/od in .*row 2"):
        readers.read_dataset(tmp_path)


def test_a_sheet_behind_a_remark_is_read_and_graders_who_differ_are_named(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["graded by two"])
    sheet = book.create_sheet("grades")
    sheet.append(["photo", "grader", "grade"])
    for n in range(4):
        put(tmp_path / "img" / f"ph{n}.png")
        for grader in "AB":
            sheet.append([f"ph{n}", grader, n % 2 if grader == "A" else 0])
    book.save(tmp_path / "grades.xlsx")
    describe.main([f"--data={tmp_path}", "--draft"])
    path = tmp_path / "data.toml"
    assert 'target = "grade"' in path.read_text()
    with pytest.raises(InputError, match="ph1 is 1 and 0.*keep = .* one grader's rows"):
        readers.read_dataset(tmp_path)
    write(path, path.read_text().replace("\n[train]", "keep = { grader = ['A'] }\n\n[train]"))
    assert readers.read_dataset(tmp_path).get_targets("train").tolist() == [0, 1, 0, 1]


def test_a_draft_of_a_known_layout_is_that_layout(tmp_path, capsys):
    layouts.draw_aptos(tmp_path)
    describe_folder(capsys, f"--data={tmp_path}", "--draft", tmp_path / "mine.toml")
    assert declaration.read(tmp_path / "mine.toml").targets == ("diagnosis",)
    assert recognise.find_fits(listing.walk(tmp_path))[0].name == "aptos"


@pytest.mark.parametrize("how", split.HOW)
def test_any_set_is_divided_by_patient_into_its_table_of_samples(tmp_path, capsys, how):
    write(
        tmp_path / "labels.csv",
        "image_id,patient_id,exam_eye,DR_ICDR\n"
        + "".join(f"img{n:05},{n // 2},{1 + n % 2},{n % 5}\n" for n in range(40)),
    )
    for n in range(40):
        put(tmp_path / f"img{n:05}.jpg")
    options = [f"--data={tmp_path}", "--layout=brset", f"--how={how}"]
    if how != split.HOW[0]:
        with pytest.raises(InputError, match="no test images; --how sorted-70-10-20 makes some"):
            split.main(options)
        options = [f"--data={tmp_path}", f"--how={how}", "--overwrite"]
        split.main([f"--data={tmp_path}", "--layout=brset"])
    split.main(options)
    samples = readers.read_dataset(tmp_path).samples
    assert samples["split"].value_counts().to_dict() == {"train": 28, "valid": 4, "test": 8}
    assert samples.groupby("patient")["split"].nunique().max() == 1
    assert "preprocess.split: valid: 4 images of 2 patients" in capsys.readouterr().out
    with pytest.raises(InputError, match="is there already; --overwrite replaces it"):
        split.main([f"--data={tmp_path}"])


def test_no_table_that_was_read_is_overwritten_by_out(tmp_path, drawn_scans):
    scans = shutil.copytree(drawn_scans, tmp_path / "scans")
    image = next(iter(readers.read_dataset(scans).list_paths("train")))
    write(scans / "groups.csv", f"image,group\n{image},Eve\n")
    layouts.draw_aptos(tmp_path / "aptos")
    keys = RETINOPATHY + COLUMNS + TABLE
    declare(tmp_path / "mine", keys)
    read = ["scans/groups.csv", "aptos/test.csv", "aptos/train.csv", "mine/data.toml"]
    for name in read:
        before = (tmp_path / name).read_bytes()
        with pytest.raises(InputError, match="belongs to the data, and would be lost"):
            describe.main([f"--data={(tmp_path / name).parent}", f"--out={tmp_path / name}"])
        assert (tmp_path / name).read_bytes() == before
    chest = tmp_path / "chest"
    write(chest / "findings.csv", "image,group,Mass\na,1,1\nb,2,0\n")
    write(chest / "test_list.txt", "b.png\n")
    dataset = readers.read_dataset(chest)
    for name in ("findings.csv", "test_list.txt", "val_list.txt", "BBox_List_2017.csv"):
        with pytest.raises(InputError, match="belongs to the data"):
            dataset.check_out(chest / name)
    dataset.check_out(chest / "audit.csv")


def test_describe_reads_real_idrid(real_data, capsys):
    shown = describe_folder(capsys, "--data", real_data / "idrid-grading")
    assert (
        "413 images of 413 patients; level 0 134, level 1 20, level 2 136, level 3 74, level 4 49"
        in shown
    )
