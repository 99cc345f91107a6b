"""Drawn OCT scans: a function of the seed, of patients with several, whose class no histogram tells."""

import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from preprocess import synthetic
from preprocess.cache.errors import InputError
from preprocess.drawn import scans
from preprocess.samples import readers
from tests.tiny import digest_files

SMALL = "--kind oct --patients-train 3 --patients-test 1 --width-px 128 --jobs 1".split()


def test_the_same_seed_draws_the_same_folder_and_what_is_there_stays(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        synthetic.main([*SMALL, f"--data={tmp_path / name}", f"--seed={seed}"])
    one, two, three = (digest_files(tmp_path / name) for name in ("one", "two", "three"))
    pictures = [name for name in one if name.endswith(".jpeg")]
    assert pictures and [one[name] for name in pictures] == [two[name] for name in pictures]
    assert not {one[name] for name in pictures} & {content for name, content in three.items() if name.endswith(".jpeg")}
    (tmp_path / "one" / pictures[0]).unlink()
    synthetic.main([*SMALL, f"--data={tmp_path / 'one'}"])
    assert (tmp_path / "one" / pictures[0]).read_bytes() == two[pictures[0]]
    (tmp_path / "two" / "train" / "CNV" / "mine.png").touch()
    with pytest.raises(InputError, match="holds train/CNV/mine.png"):
        synthetic.main([*SMALL, f"--data={tmp_path / 'two'}"])


def test_patients_have_several_scans_and_some_show_another_class(drawn_scans):
    planned = scans.plan(400, seed=3)
    names = [scan.name for of in planned for scan in of]
    shares = np.unique(names, return_counts=True)[1] / len(names)
    assert np.abs(shares - 1 / 4).max() < 0.05
    classes = [{scan.name for scan in of} for of in planned]
    assert 0.05 < np.mean([len(names) > 1 for names in classes]) < 0.35
    layout = readers.find_layout(drawn_scans)
    assert layout.task.names == scans.CLASSES
    groups = readers.find_groups(layout, layout.list_images(drawn_scans, "train").paths)
    assert len(set(groups)) == 8 < len(groups)


def test_the_histogram_does_not_tell_the_class():
    """Nor so the mean; a forest of 200 trees on 32 bins, trained on 500 scans."""

    def describe(patients):
        drawn = [scans.draw_scan(1, patient, 1, scans.CLASSES[patient % 4], 96) for patient in patients]
        return [np.r_[cv2.calcHist([scan], [0], None, [32], [0, 256]).ravel(), scan.mean()] for scan in drawn]

    learned, new = range(500), range(500, 800)
    forest = RandomForestClassifier(200, random_state=0).fit(describe(learned), [patient % 4 for patient in learned])
    assert forest.score(describe(new), [patient % 4 for patient in new]) < 0.4
