"""The task of the clinical scale, for tests that need no data folder, and the training set of one."""

from dr.squares import source
from dr.tasks.kinds import make_task
from preprocess.dataset import readers
from preprocess.dataset.question import RETINOPATHY

TASK = make_task(RETINOPATHY)


def read_training_set(data, cache):
    """Return the training set of a data folder and a cache, as dr.train reads it."""
    dataset = readers.read_dataset(data)
    return source.read_training_set(dataset, make_task(dataset.question), cache)
