"""What is drawn: reproducible, right in anatomy, labels and truth, and not to be told by colour or brightness."""

import itertools
import re
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from preprocess.dataset import readers
from preprocess.disk.errors import InputError
from preprocess.synthetic import __main__ as synthetic
from preprocess.synthetic import camera, eyes, retina, scans, xrays

SMALL = "--patients-train 3 --patients-test 2 --width-px 256 --levels balanced".split()
PICTURES = {
    "retina": "train/10_left.jpeg",
    "oct": "train/CNV/CNV-1001-2.jpeg",
    "chest": "images/00000001_000.png",
}


def read_data(folder):
    """Return path -> bytes of all pictures and tables of a data folder."""
    paths = (
        path
        for path in folder.rglob("*")
        if path.is_file() and synthetic.OWN_FOLDER not in path.parts
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_tables(folder):
    """Assert that the tables name the photographs, and no patient is in both splits."""
    images = {
        split: {path.stem for path in (folder / split).iterdir()} for split in ("train", "test")
    }
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    assert set(tables["trainLabels"].image) == images["train"]
    assert (
        set(tables["testLabels"].image) == set(tables["sampleSubmission"].image) == images["test"]
    )
    assert set(tables["discs"].image) == images["train"] | images["test"]
    assert set(tables["testLabels"].Usage) <= {"Public", "Private"}
    assert not {image.split("_")[0] for image in images["train"]} & {
        image.split("_")[0] for image in images["test"]
    }
    levels = pd.concat([tables["trainLabels"], tables["testLabels"]]).set_index("image").level
    assert set(levels[levels > 0].index) == set(tables["lesions"].image)


def draw_reflectance(seed, level, width_px=256):
    """Return reflectance, lesions and frame of an eye seen by the camera that cuts off least."""
    rng = np.random.default_rng(seed)
    frame = camera.frame_photograph(
        rng, camera.scale_camera(camera.CAMERAS[0], width_px), mirrored=False
    )
    return *retina.draw_retina(rng, level, retina.sample_retina(rng), frame), frame


@pytest.mark.parametrize("kind", PICTURES)
def test_one_seed_gives_the_same_bytes_for_any_number_of_jobs_and_another_seed_other_pictures(
    tmp_path, kind
):
    for jobs, seed in (("1", 0), ("2", 0), ("3", 3)):
        synthetic.main(
            [
                f"--data={tmp_path / jobs}",
                f"--kind={kind}",
                f"--seed={seed}",
                "--jobs",
                jobs,
                *SMALL,
            ]
        )
    one, two, other = (read_data(tmp_path / jobs) for jobs in "123")
    assert one == two
    pictures = {content for name, content in other.items() if not name.endswith(("csv", "txt"))}
    assert pictures and not {*one.values()} & pictures
    assert PICTURES[kind] in one
    if kind == "retina":
        assert len(one) == 2 * 5 + 5
        check_tables(tmp_path / "1")
        drawn = [
            eyes.draw_eye(seed, 12, "left", 2, 256).photograph for seed in (0, 3)
        ]  # of one shape
        assert (drawn[0] != drawn[1]).any()


def test_rerun_mends_what_is_missing_or_changed_and_touches_nothing_else(tmp_path):
    arguments = [f"--data={tmp_path}", "--jobs=1", *SMALL]
    synthetic.main(arguments)
    before = read_data(tmp_path)
    photographs = sorted(tmp_path.glob("t*/*.jpeg"))
    dates = {path: path.stat().st_mtime_ns for path in photographs[2:]}
    photographs[0].unlink()
    photographs[1].write_bytes(b"torn")
    synthetic.main(arguments)
    assert read_data(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in dates} == dates
    with pytest.raises(InputError, match="would not draw"):  # of another plan
        synthetic.main([*arguments, "--patients-train=1", "--patients-test=0"])
    for option, told in (
        ("--width-px=300", "width_px changed from 256 to 300"),
        ("--kind=oct", "from retina to oct"),
    ):
        with pytest.raises(InputError, match=f"other parameters: .*{told}"):
            synthetic.main([*arguments, option])
    assert read_data(tmp_path) == before
    journal = tmp_path / synthetic.OWN_FOLDER / "train.jsonl"
    journal.write_text(re.sub(r'(?<="eyes.py":")\w+', "0" * 64, journal.read_text()))
    synthetic.main(arguments)  # what another version drew is drawn again
    redrawn = [path.parent.name == "train" for path in dates]
    assert [path.stat().st_mtime_ns > date for path, date in dates.items()] == redrawn
    assert read_data(tmp_path) == before


@pytest.mark.parametrize("name", [*PICTURES.values(), "test/99999_left.jpeg", "trainLabels.csv"])
@pytest.mark.parametrize("kind", PICTURES)
def test_a_folder_with_foreign_files_is_refused(tmp_path, kind, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(InputError, match=f"holds {name.split('/')[0]}"):
        synthetic.main([f"--data={tmp_path}", f"--kind={kind}", "--jobs=1", *SMALL])
    assert (tmp_path / name).read_bytes() == b"precious"


# Shares of the levels and of patients whose eyes differ by at most 0, 1, 2: the competition's trainLabels.csv.
@pytest.mark.parametrize(
    ("levels", "shares"),
    [("real", (0.7348, 0.0696, 0.1507, 0.0249, 0.0202)), ("balanced", (0.2,) * 5)],
)
def test_levels_and_their_agreement_are_as_asked(levels, shares):
    plans = list(itertools.chain(*eyes.plan(20_000, 7, levels)))
    drawn = np.array([plan.level for plan in plans])
    assert np.bincount(drawn, minlength=5) / len(drawn) == pytest.approx(shares, abs=0.01)
    apart = np.abs(drawn[::2] - drawn[1::2])
    assert [np.mean(apart <= most) for most in range(3)] == pytest.approx(
        [0.872, 0.957, 0.998], abs=0.008
    )
    patients = [plan.patient for plan in plans[::2]]
    assert patients[0] == 10
    assert set(np.diff(patients)) == {1, 2, 3}


@pytest.mark.parametrize("level", range(5))
def test_lesions_follow_the_clinical_scale(level):
    for seed in range(6):
        _, lesions, frame = draw_reflectance(seed, level)
        counts = Counter(lesions.kind)
        assert (counts["microaneurysm"] > 0) == (level >= 1)
        assert (counts["hemorrhage"] > 0) == (level >= 2)
        assert (counts["neovascularization"] > 0) == (level == 4)
        assert not lesions.kind.isin(["exudate", "cotton_wool"]).any() or level >= 2
        if level == 3:
            bleeding = lesions[lesions.kind == "hemorrhage"]
            quadrants = Counter(
                zip(bleeding.x > frame.center_x, bleeding.y > frame.center_y, strict=True)
            )
            assert len(quadrants) == 4
            assert min(quadrants.values()) >= 8
            assert counts["venous_beading"] >= 2


def test_lesions_are_where_the_table_says():
    reflectance, lesions, frame = draw_reflectance(5, level=3, width_px=1024)
    darker = []
    for lesion in lesions[lesions.kind == "hemorrhage"].itertuples():
        y, x = round(lesion.y), round(lesion.x)
        reach = round(0.1 * frame.radius)
        around = reflectance[1, y - reach : y + reach, x - reach : x + reach]
        darker.append(reflectance[1, y, x] < 0.85 * np.median(around))
    assert np.mean(darker) > 0.85


def test_the_optic_disc_lies_on_the_side_of_the_nose():
    """Reflections may be as bright as the optic disc in some photographs, so most of them must agree."""
    right_side = {"left": [], "right": []}
    for patient in range(10):
        for side, found in right_side.items():
            eye = eyes.draw_eye(2, patient, side, 0, 256)
            grey = cv2.cvtColor(eye.photograph, cv2.COLOR_RGB2GRAY).astype(np.float32)
            spots = cv2.GaussianBlur(grey, (0, 0), 6) - cv2.GaussianBlur(grey, (0, 0), 18)
            y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
            spots[np.hypot(x - eye.disc[0], y - eye.disc[1]) > 0.75 * eye.disc[2]] = -255
            found.append(spots.argmax() % grey.shape[1] > eye.disc[0])
    assert np.mean(right_side["left"]) <= 0.2
    assert np.mean(right_side["right"]) >= 0.8


def test_the_true_disc_is_the_edge_in_the_picture():
    """Along rays within the picture, the mean brightness falls most steeply at the radius the table gives."""
    for patient in range(12):
        eye = eyes.draw_eye(4, patient, "left", 0, 512)
        x, y, radius = eye.disc
        angles = np.radians(np.r_[-25:25, 155:205])  # to the sides: no camera cuts those off
        radii = radius * np.linspace(0.9, 1.1, 41)
        rays = [
            (c + np.outer(turn(angles), radii)).astype(np.float32)
            for c, turn in ((x, np.cos), (y, np.sin))
        ]
        grey = cv2.cvtColor(eye.photograph, cv2.COLOR_RGB2GRAY).astype(np.float32)
        profile = cv2.remap(grey, *rays, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).mean(
            axis=0
        )
        steepest = radii[np.argmin(profile[1:] - profile[:-1]) :][:2].mean()
        assert steepest == pytest.approx(radius, rel=0.015)


def test_a_wide_photograph_is_the_enlarged_narrow_one():
    """Wide ones are drawn at a half or a third; disc, lesions and picture must fit each other at any size."""
    narrow, wide = (eyes.draw_eye(0, 11, "left", 3, width_px) for width_px in (800, 3200))
    assert np.array(wide.disc) / 4 == pytest.approx(narrow.disc, abs=0.7)
    assert wide.lesions[["x", "y"]].to_numpy() / 4 == pytest.approx(
        narrow.lesions[["x", "y"]].to_numpy(), abs=1.5
    )
    small = cv2.resize(
        wide.photograph, narrow.photograph.shape[1::-1], interpolation=cv2.INTER_AREA
    )
    difference = np.abs(small.astype(int) - narrow.photograph.astype(int))
    assert difference.mean() < 6


def test_mean_color_does_not_tell_the_level():
    """Of 80 patients' eyes, within the disc, neither to a classifier nor to a regression."""
    colors, levels, patients = [], [], []
    for plan in itertools.chain(*eyes.plan(80, 5, "balanced")):
        eye = eyes.draw_eye(5, plan.patient, plan.side, plan.level, 256)
        y, x = np.mgrid[: eye.photograph.shape[0], : eye.photograph.shape[1]]
        inside = np.hypot(x - eye.disc[0], y - eye.disc[1]) < 0.97 * eye.disc[2]
        colors.append(eye.photograph[inside].mean(axis=0))
        levels.append(plan.level)
        patients.append(plan.patient)
    for model in (LogisticRegression(max_iter=1000), Ridge()):
        pipeline = make_pipeline(StandardScaler(), model)
        predicted = cross_val_predict(
            pipeline, np.array(colors), levels, groups=patients, cv=GroupKFold(5)
        )
        predicted = np.clip(np.round(predicted), 0, 4).astype(int)
        assert cohen_kappa_score(levels, predicted, weights="quadratic") < 0.3


def test_patients_have_several_scans_and_some_show_another_class(drawn_scans):
    planned = scans.plan(400, seed=3)
    names = [scan.name for of in planned for scan in of]
    shares = np.unique(names, return_counts=True)[1] / len(names)
    assert np.abs(shares - 1 / 4).max() < 0.05
    classes = [{scan.name for scan in of} for of in planned]
    assert 0.05 < np.mean([len(names) > 1 for names in classes]) < 0.35
    dataset = readers.read_dataset(drawn_scans)
    assert dataset.question.names == scans.CLASSES
    groups = dataset.get_patients(dataset.list_paths("train"))
    assert len(set(groups)) == 8 < len(groups)


def test_the_histogram_does_not_tell_the_class():
    """Nor so the mean; a forest of 200 trees on 32 bins, trained on 500 scans."""

    def describe(patients):
        drawn = [
            scans.draw(scans.Scan("", patient, 1, scans.CLASSES[patient % 4]), 1, 96)[0]
            for patient in patients
        ]
        return [
            np.r_[cv2.calcHist([scan], [0], None, [32], [0, 256]).ravel(), scan.mean()]
            for scan in drawn
        ]

    learned, new = range(500), range(500, 800)
    forest = RandomForestClassifier(200, random_state=0).fit(
        describe(learned), [patient % 4 for patient in learned]
    )
    assert forest.score(describe(new), [patient % 4 for patient in new]) < 0.4


def test_x_rays_read_as_planned(drawn_chest):
    dataset = readers.read_dataset(drawn_chest)
    patients = xrays.plan(13, 0)
    for split, part in (("train", patients[:10]), ("test", patients[10:])):
        shown = {of.image: of.shown for pictures in part for of in pictures}
        labels = dataset.get_targets(split)
        assert {
            image: "|".join(labels.columns[row == 1]) for image, row in labels.iterrows()
        } == shown
        assert dataset.list_paths(split).keys() == shown.keys()


def test_patients_keep_most_of_what_they_have_and_some_have_several_and_some_none():
    shown = [
        [set(filter(None, of.shown.split("|"))) for of in pictures]
        for pictures in xrays.plan(400, 3)
    ]
    counts = np.array([len(names) for pictures in shown for names in pictures])
    assert 0.25 < np.mean(counts == 0) < 0.5 and np.mean(counts > 1) > 0.1
    several = [pictures for pictures in shown if len(pictures) > 1]
    assert np.mean([bool(of[0] & of[1]) for of in several if of[0]]) > 0.6


def test_boxes_turn_with_the_picture():
    rays = np.tile(np.linspace(0, 0.2, 200), (200, 1))
    rays[120:160, 30:70] = 1
    for seed in range(5):
        picture, ((name, *box),) = xrays.develop(
            np.random.default_rng(seed), rays, [["Mass", 0.15, 0.6, 0.2, 0.2]]
        )
        rows, columns = np.nonzero(picture > 0.7 * picture.max())
        middle = box[0] + box[2] / 2, box[1] + box[3] / 2
        assert name == "Mass" and (columns.mean(), rows.mean()) == pytest.approx(middle, abs=1.5)
    assert {
        box[0] for box in xrays.draw(xrays.Xray("", 1, 0, "Nodule|Effusion"), 0, 128)[2]["boxes"]
    } == {"Nodule"}


def test_mean_brightness_and_contrast_do_not_tell_a_finding():
    """Of each finding alone against none, 40 pictures each: what a mean or deviation could tell by itself."""
    healthy = [xrays.draw(xrays.Xray("", patient, 0, ""), 2, 128)[0] for patient in range(40)]
    for number, name in enumerate(xrays.FINDINGS):
        others = range(100 * (number + 1), 100 * (number + 1) + 40)
        ailing = [xrays.draw(xrays.Xray("", patient, 0, name), 2, 128)[0] for patient in others]
        for describe in (np.mean, np.std):
            told = roc_auc_score(
                np.repeat([0, 1], 40), [describe(picture) for picture in healthy + ailing]
            )
            assert 0.3 < told < 0.7, (name, describe.__name__, told)
