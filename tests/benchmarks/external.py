"""How well nets that learned from one source of photographs grade those of others, before and after fine-tuning.

python -m tests.benchmarks.external probe --equalized DIR --natural DIR --external DIR --layout idrid --cache DIR
    --weights tf_efficientnet_lite0=lite0.safetensors ... [--normalize local cdf none] [--apart DIR]
python -m tests.benchmarks.external runs --cache DIR --squares CACHE --runs NAME ... [--reveal]

Three sources: `equalized`, ready-made squares in Kaggle's layout, taken whole; `natural`, photographs of the same
cameras in Kaggle's layout, patients of `equalized` left out; `external`, of another hospital. The last two are cut to
squares by the stage; pictures of `external` that are there twice count once, and not at all if their levels differ.

`probe` fits a logistic regression on the mean features of nets that nobody has fine-tuned. It writes the tables
CACHE/learned and CACHE/external for dr.train and submissions.evaluate, the features under CACHE/features, and a row
per net, normalization and pair of sources to CACHE/probes.csv; the same command goes on where it stopped.

`runs` takes finished runs that learned from the table, and their evaluations called NAME-external. What is chosen, how
far the scores are freed of the levels' shares among what they learned from (Menon et al. 2021, "Long-tail learning via
logit adjustment") and their temperature, is chosen by the QWK and the log loss of the run's own validation patients.
Nothing is shown of the external source without --reveal.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dr.machine import device
from dr.metrics import agreement, bootstrap, calibration, ranking
from dr.nets import net
from dr.scores import read_scores
from dr.squares import crops, store
from dr.training import runs, weights
from kappa.assign import decide
from preprocess import __main__ as preprocess
from preprocess.command import process
from preprocess.dataset import folds, readers
from preprocess.disk import files, tables
from tests.tasks import TASK, read_training_set

SIZE_PX = 256
FOLDS, NATURAL_FOLDS = 7, 4
KEPT = "kept"  # of a picture that is there once, or the first of its copies
FOLD_SEED = 0  # that of dr.train, so that its fold 0 is held out here as well
CHOSEN_ON = (1, 2)  # folds
REFERABLE = TASK.conditions[1]
STRENGTH = 3e-4  # of the logistic regression: by log loss on folds 1 and 2, of 3e-5, 1e-4 … 3e-3
POWERS = np.linspace(0, 1, 21)
TEMPERATURES = np.geomspace(0.5, 2.5, 33)
COLUMNS = ("images", "patients", "log loss", "balanced log loss", "QWK", "referable AUC")


# --- the tables ------------------------------------------------------------------------------------------------------


def prepare(options):
    """Write the tables of what is learned from and of the external source, and their squares."""
    cut(options.natural, None, options.cache / "cut-natural")
    cut(options.external, options.layout, options.cache / "cut-external")
    equalized = list_rows(options.equalized, None, None)
    natural = list_rows(options.natural, None, options.cache / "cut-natural")
    natural = natural[~natural["patient"].isin(set(equalized["patient"]))]
    equalized = thin(equalized, options.every)
    natural = thin(natural, options.every)
    equalized["split"] = divide(equalized, FOLDS)
    natural["split"] = divide(natural, NATURAL_FOLDS)
    if options.apart:
        apart = readers.read_dataset(options.apart).samples["patient"]
        natural.loc[natural["patient"].isin(set(apart)), "split"] = "valid"
    parts = []
    for source, rows in (("equalized", equalized), ("natural", natural)):
        parts.append(rows.assign(image=f"{source}-" + rows["image"], source=source))
    write(options.cache / "learned", pd.concat(parts))
    external = list_rows(options.external, options.layout, options.cache / "cut-external")
    external["copies"] = find_copies(external)
    write(options.cache / "external", external)


def cut(data, layout, cache):
    """Cut photographs to squares of natural colour."""
    of_layout = []
    if layout:
        of_layout = [f"--layout={layout}"]
    places = [f"--data={data}", f"--cache={cache}", *of_layout, "--allow-rejected"]
    preprocess.main([*places, "--crop=adaptive", f"--size-px={SIZE_PX}", "--normalize=none"])


def list_rows(data, layout, cache):
    """Return the labelled images of a source, those of a cache with its squares in the place of the photographs."""
    samples = readers.read_dataset(data, layout).samples
    rows = samples[["image", "path", "patient", "side", "level"]].copy()
    if cache:
        squares = {path.stem: path for path in (cache / "resize" / "train").iterdir()}
        rows = rows[rows["image"].isin(squares)]
        rows["path"] = [str(squares[image].resolve()) for image in rows["image"]]
    rows["level"] = rows["level"].astype(int)
    return rows


def thin(rows, every):
    """Return the rows of every so many-th patient."""
    patients = sorted(set(rows["patient"]))
    return rows[rows["patient"].isin(set(patients[::every]))].copy()


def divide(rows, n_folds):
    """Return train or valid for each row: fold 0 is held out."""
    fold_of = folds.assign_folds(
        rows["patient"].tolist(), rows["level"].to_numpy(), n_folds, FOLD_SEED
    )
    return np.where(fold_of == 0, "valid", "train")


def find_copies(rows):
    """Return for each row whether it counts, if pictures that are there twice count once, or not at all.

    Of copies with one level the first is kept; of those with different levels nobody knows which is right.
    """
    digests = rows["path"].map(lambda path: files.hash_file(Path(path)))
    n_levels = rows.groupby(digests)["level"].transform("nunique")
    is_kept = (n_levels == 1) & ~digests.duplicated()
    print(f"external: {len(rows)} images, {is_kept.sum()} without copies")
    return np.where(is_kept, KEPT, "left out")


def write(folder, rows):
    """Write a table of samples."""
    tables.write_csv(folder / "samples.csv", rows.to_csv(index=False, lineterminator="\n"))


# --- frozen features -------------------------------------------------------------------------------------------------


def probe(options):
    """Measure all nets and normalizations, and print the table."""
    prepare(options)
    path = options.cache / "probes.csv"
    rows = pd.DataFrame()
    if path.exists():
        rows = pd.read_csv(path, dtype=str)
    for normalize in options.normalize:
        for pair in options.weights:
            name, _, file = pair.partition("=")
            parts = []
            for part in ("learned", "external"):
                parts.append(describe(options.cache, part, name, normalize, Path(file)))
            is_known = False
            if len(rows):
                is_known = ((rows["net"] == name) & (rows["normalize"] == normalize)).any()
            if not is_known:
                measured = pd.DataFrame(compare_sources(*parts))
                measured.insert(0, "normalize", normalize)
                measured.insert(0, "net", name)
                rows = pd.concat([rows, measured])
                tables.write_csv(path, rows.to_csv(index=False, lineterminator="\n"))
    print(rows.to_string(index=False))


def describe(cache, part, name, normalize, file):
    """Return the table of a part and the features of its squares, (n, k), computed or of before."""
    data = cache / part
    squares = cache / f"squares-{normalize}" / part
    preprocess.main([f"--data={data}", f"--cache={squares}", "--crop=whole", f"--size-px={SIZE_PX}",
                     f"--normalize={normalize}"])  # fmt: skip
    known = read_training_set(data, squares)
    kept = cache / "features" / f"{name}-{normalize}-{part}.npy"
    if not kept.exists():
        features = extract(known, name, file)
        with files.replacing(kept) as partial, open(partial, "wb") as stream:
            np.save(stream, features)
    table = pd.read_csv(data / "samples.csv", dtype={"patient": str}).set_index("image")
    return table.loc[known.squares.images], np.load(kept)


def extract(known, name, file):
    """Return the mean features of squares, (n, k)."""
    made = net.make_net(name, SIZE_PX, n_outputs=1, dropout=0.0, is_paired=False).eval()
    mean, std = weights.begin(made, str(file))
    squares = store.load(known.squares, mean, std, torch.device("cpu"), "memory", Path())
    middle = crops.center_crops(len(squares), 0)
    features = []
    with torch.inference_mode(), device.naming_memory():
        for positions in np.array_split(np.arange(len(squares)), len(squares) // 32 + 1):
            images = crops.cut_batch(squares, positions, middle, SIZE_PX)
            features.append(made.body(images).mean(dim=(2, 3)).numpy())
    return np.concatenate(features)


def compare_sources(learned, external):
    """Return a row of figures for each pair of what is learned from and what is judged by."""
    table, features = learned
    is_equalized = (table["source"] == "equalized").to_numpy()
    fold_of = np.full(len(table), -1)
    fold_of[is_equalized] = folds.assign_folds(
        table["patient"][is_equalized].tolist(),
        table["level"][is_equalized].to_numpy(),
        FOLDS,
        FOLD_SEED,
    )
    rows = []
    is_chosen_on = np.isin(fold_of, CHOSEN_ON)
    scores = np.empty((len(table), len(TASK.names)))
    for fold in (0, *CHOSEN_ON):
        is_judged = fold_of == fold
        is_learned = is_equalized & ~is_judged
        scores[is_judged] = fit(features, table, is_learned)(features[is_judged])
    rows.append(tell("equalized", "equalized, folds 1 and 2", scores, table, is_chosen_on))
    rows.append(tell("equalized", "equalized, fold 0", scores, table, fold_of == 0))
    of_equalized = fit(features, table, is_equalized)
    rows.append(tell("equalized", "natural", of_equalized(features), table, ~is_equalized))
    external_table, external_features = external
    is_kept = (external_table["copies"] == KEPT).to_numpy()
    both = fit(features, table, np.ones(len(table), bool))(external_features)
    for title, given in (("equalized", of_equalized(external_features)), ("both", both)):
        rows.append(tell(title, "external", given, external_table, is_kept))
    back = fit(external_features, external_table, is_kept)(features)
    rows.append(tell("external", "equalized", back, table, is_equalized))
    rows.append(tell("external", "natural", back, table, ~is_equalized))
    return rows


def fit(features, table, is_learned):
    """Return a function of features, (n, k), to scores, (n, levels), fitted on the rows learned from."""
    scaler = StandardScaler().fit(features[is_learned])
    model = LogisticRegression(C=STRENGTH, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # more steps change no third digit
        model.fit(scaler.transform(features[is_learned]), table["level"].to_numpy()[is_learned])
    return lambda others: model.predict_proba(scaler.transform(others))


# --- figures ---------------------------------------------------------------------------------------------------------


def tell(learned_from, judged_by, scores, table, is_judged):
    """Return a row of figures with their intervals."""
    chosen = table[is_judged]
    shown = show(scores[is_judged], chosen["level"].to_numpy(), chosen["patient"].astype(str))
    row = {"learned from": learned_from, "judged by": judged_by} | shown
    print(row, flush=True)
    return row


def show(scores, levels, patients):
    """Return figures of scores, (n, levels), by name, as text with intervals of a bootstrap over patients."""
    decided = agreement.round_levels(scores)
    losses = calibration.measure_losses(scores, levels)

    def measure(rows):
        counts = agreement.count_pairs(levels[rows], decided[rows], scores.shape[1])
        is_referable = levels[rows] >= min(REFERABLE.outputs)
        return [
            losses[rows].mean(),
            balance(losses[rows], levels[rows]),
            agreement.kappa_of_counts(counts),
            ranking.measure_auc(scores[rows][:, REFERABLE.outputs].sum(axis=1), is_referable),
        ]

    drawn = bootstrap.draw_figures(list(patients), measure)
    row = {"images": len(levels), "patients": len(set(patients))}
    for name, column in zip(COLUMNS[2:], drawn.T, strict=True):
        row[name] = describe_estimate(bootstrap.estimate_drawn(column))
    return row


def describe_estimate(estimate):
    """Return a figure and its interval as text."""
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def balance(losses, levels):
    """Return the mean over levels of the mean loss of each: what the log loss is if all levels are as frequent."""
    return np.mean([losses[levels == level].mean() for level in np.unique(levels)])


# --- finished runs ---------------------------------------------------------------------------------------------------


def compare_runs(options):
    """Print the figures of finished runs on their validation patients, and if asked on the external source."""
    cache = options.squares
    table = pd.read_csv(options.cache / "learned" / "samples.csv", dtype={"patient": str})
    table = table.set_index("image")
    learned = table[table["split"] == "train"]
    shares = TASK.find_prior(learned["level"].to_numpy())
    rows = []
    for run in options.runs:
        valid = read_scores(runs.folder_of(cache, run) / "scores_valid.csv", TASK)
        held_out = table.loc[valid.index]
        levels = held_out["level"].to_numpy()
        power, temperature = choose(valid.to_numpy(), levels, shares)
        samples = []
        for source in ("equalized", "natural"):
            is_judged = (held_out["source"] == source).to_numpy()
            samples.append((source, valid.to_numpy(), held_out, is_judged))
        if options.reveal:
            others = read_scores(cache / "evaluations" / f"{run}-external" / "scores.csv", TASK)
            truth = pd.read_csv(options.cache / "external" / "samples.csv", dtype={"patient": str})
            truth = truth.set_index("image").loc[others.index]
            is_kept = (truth["copies"] == KEPT).to_numpy()
            samples.append(("external", others.to_numpy(), truth, is_kept))
            everything = np.ones(len(truth), bool)
            samples.append(("external, with copies", others.to_numpy(), truth, everything))
        ways = {
            "as they are": (0.0, 1.0),
            f"power {power:.2f}, temperature {temperature:.2f}": (power, temperature),
        }
        for way, (by, heat) in ways.items():
            for source, scores, truth, is_judged in samples:
                changed = change(scores, shares, by, heat)
                figures = tell(run, source, changed, truth, is_judged)
                optimal = measure_optimum(changed[is_judged], truth[is_judged])
                rows.append({"scores": way} | figures | {"QWK, optimal labels": optimal})
    print(pd.DataFrame(rows).to_string(index=False))


def measure_optimum(scores, truth):
    """Return the QWK of the levels that agree best by the scores themselves, as text with its interval."""
    decided = {"optimal": decide(scores, "exact").levels}
    patients = truth["patient"].astype(str).tolist()
    gains = bootstrap.measure_step_gains(patients, truth["level"].to_numpy(), decided)
    return describe_estimate(gains["optimal"].figure)


def choose(scores, levels, shares):
    """Return the temperature of the least log loss, and then the power of the highest QWK of the rounded levels."""
    losses = [
        calibration.measure_log_loss(change(scores, shares, 0.0, heat), levels)
        for heat in TEMPERATURES
    ]
    temperature = float(TEMPERATURES[np.argmin(losses)])
    kappas = [
        agreement.quadratic_weighted_kappa(
            levels, agreement.round_levels(change(scores, shares, power, temperature))
        )
        for power in POWERS
    ]
    return float(POWERS[np.argmax(kappas)]), temperature


def change(scores, shares, power, temperature):
    """Return scores, (n, k), at another temperature and with the levels' shares, (k,), taken out by a power of them."""
    logits = np.log(np.maximum(scores, 1e-6)) / temperature - power * np.log(shares)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(required=True)
    for name, way in (("probe", probe), ("runs", compare_runs)):
        one = ways.add_parser(name)
        one.set_defaults(way=way)
        one.add_argument("--cache", type=Path, required=True)
        if way is probe:
            one.add_argument("--normalize", nargs="+", default=["local", "cdf", "none"])
            for source in ("equalized", "natural", "external"):
                one.add_argument(f"--{source}", type=Path, required=True)
            one.add_argument("--layout", help="of the external source")
            one.add_argument(
                "--every", type=int, default=1, help="learn of every so many-th patient"
            )
            one.add_argument("--apart", type=Path, help="data set whose patients are held out")
            one.add_argument("--weights", nargs="+", required=True, metavar="NET=FILE")
        else:
            one.add_argument("--squares", type=Path, required=True, help="cache of the runs")
            one.add_argument("--runs", nargs="+", required=True)
            one.add_argument("--reveal", action="store_true", help="show the external source")
    options = parser.parse_args()
    options.way(options)


if __name__ == "__main__":
    process.run(main)
