"""Drawn OCT scans: of patients with several, whose class no histogram tells; and see test_synthetic."""

import cv2
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from preprocess.drawn import scans
from preprocess.samples import readers


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
        drawn = [scans.draw(scans.Scan("", patient, 1, scans.CLASSES[patient % 4]), 1, 96)[0] for patient in patients]
        return [np.r_[cv2.calcHist([scan], [0], None, [32], [0, 256]).ravel(), scan.mean()] for scan in drawn]

    learned, new = range(500), range(500, 800)
    forest = RandomForestClassifier(200, random_state=0).fit(describe(learned), [patient % 4 for patient in learned])
    assert forest.score(describe(new), [patient % 4 for patient in new]) < 0.4
