"""Drawn chest x-rays: of patients with several, whose findings no brightness tells; and see test_synthetic."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from preprocess.drawn import xrays
from preprocess.samples import readers


def test_a_drawn_folder_reads_as_planned(drawn_chest):
    layout = readers.find_layout(drawn_chest)
    patients = xrays.plan(13, 0)
    for split, part in (("train", patients[:10]), ("test", patients[10:])):
        shown = {of.image: of.shown for pictures in part for of in pictures}
        labels = layout.read_labels(drawn_chest / layout.labels[split])
        assert {image: "|".join(labels.columns[row == 1]) for image, row in labels.iterrows()} == shown
        assert layout.list_images(drawn_chest, split).paths.keys() == shown.keys()


def test_patients_keep_most_of_what_they_have_and_some_have_several_and_some_none():
    shown = [[set(filter(None, of.shown.split("|"))) for of in pictures] for pictures in xrays.plan(400, 3)]
    counts = np.array([len(names) for pictures in shown for names in pictures])
    assert 0.25 < np.mean(counts == 0) < 0.5 and np.mean(counts > 1) > 0.1
    several = [pictures for pictures in shown if len(pictures) > 1]
    assert np.mean([bool(of[0] & of[1]) for of in several if of[0]]) > 0.6


def test_boxes_turn_with_the_picture():
    rays = np.tile(np.linspace(0, 0.2, 200), (200, 1))
    rays[120:160, 30:70] = 1
    for seed in range(5):
        picture, ((name, *box),) = xrays.develop(np.random.default_rng(seed), rays, [["Mass", 0.15, 0.6, 0.2, 0.2]])
        rows, columns = np.nonzero(picture > 0.7 * picture.max())
        middle = box[0] + box[2] / 2, box[1] + box[3] / 2
        assert name == "Mass" and (columns.mean(), rows.mean()) == pytest.approx(middle, abs=1.5)
    assert {box[0] for box in xrays.draw(xrays.Xray("", 1, 0, "Nodule|Effusion"), 0, 128)[2]["boxes"]} == {"Nodule"}


def test_mean_brightness_and_contrast_do_not_tell_a_finding():
    """Of each finding alone against none, 40 pictures each: what a mean or deviation could tell by itself."""
    healthy = [xrays.draw(xrays.Xray("", patient, 0, ""), 2, 128)[0] for patient in range(40)]
    for number, name in enumerate(xrays.FINDINGS):
        others = range(100 * (number + 1), 100 * (number + 1) + 40)
        ailing = [xrays.draw(xrays.Xray("", patient, 0, name), 2, 128)[0] for patient in others]
        for describe in (np.mean, np.std):
            told = roc_auc_score(np.repeat([0, 1], 40), [describe(picture) for picture in healthy + ailing])
            assert 0.3 < told < 0.7, (name, describe.__name__, told)
