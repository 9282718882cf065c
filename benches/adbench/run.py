#!/usr/bin/env python3
"""Anomaly detection with one fixed recipe on the data sets of ADBench and ODDS, compared with published results.

Trains models of the code sizes 2, 4, 8 and 16 per data set by recipe.toml on half of the normal rows; the other half and all
anomalies are scored by the mean of the models' reconstruction errors, each divided by its mean on normal rows. Prints the
AUCROC (in percent) of each data set and their mean, next to that of the first model alone, of k nearest neighbors (k = 5,
on standardized features, if scikit-learn is installed), and the columns of a table of published results (a CSV file with the
column `Dataset` and one per method, such as `73.05(1.2)`).

The options of the recipe were chosen on the sets at odd positions in the order of their names (`--half chosen`), and are
reported for the others (`--half reported`). Needs only Python; MATLAB files need SciPy.

usage: run.py --data FOLDER [FOLDER ...] --published TABLE.csv [--half chosen|reported] [--latentflow BINARY]
              [--work FOLDER] [--codes SIZE ...] [--set KEY=VALUE ...]
"""
import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, nargs="+", required=True, help="folders of .npz and .mat files with X and y")
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument("--latentflow", default=str(HERE.parent.parent / "target/release/latentflow"))
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--methods", nargs="+", default=["PCA", "VAE", "KNN", "DTE-C"])
    parser.add_argument("--codes", type=int, nargs="+", default=[2, 4, 8, 16], help="code sizes of the models")
    parser.add_argument("--half", choices=["chosen", "reported"], help="the sets that options were chosen on, or the others")
    parser.add_argument("--only", nargs="+", help="names of data sets")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def files(folders):
    """The file of each data set by its name in lower case; a set that several folders hold is taken from the first."""
    found = {}
    for folder in folders:
        for file in sorted([*folder.glob("*.npz"), *folder.glob("*.mat")]):
            number, _, rest = file.stem.partition("_")
            found.setdefault((rest if number.isdigit() else file.stem).lower(), file)
    return dict(sorted(found.items()))


def as_npz(file, work):
    if file.suffix == ".npz":
        return file
    import numpy
    import scipy.io

    table = scipy.io.loadmat(file)
    converted = work / f"{file.stem}.npz"
    numpy.savez(converted, X=table["X"].astype(float), y=table["y"].ravel().astype(int))
    return converted


def score(options, work, file, name):
    """AUCROC in percent of the ensemble, of its first model, and of PCA as `evaluate` computes it, on one data set."""
    source = f'data.sources=[{{ kind = "npz", path = "{as_npz(file, work).resolve()}", arrays = ["X", "y"] }}]'
    models = []
    for code in options.codes:
        models.append(str(work / f"{name}-{code}"))
        settings = [part for setting in [source, f"code_size={code}", *options.set] for part in ("--set", setting)]
        run([options.latentflow, "train", str(HERE / "recipe.toml"), "--out", models[-1], "--restart", *settings])
    others = [part for model in models[1:] for part in ("--ensemble", model)]
    anomalies = json.loads(run([options.latentflow, "evaluate", models[0], *others, "--json", "-"]))["anomalies"]
    kinds = [anomalies.get("ensemble", anomalies["model"]), anomalies["model"], anomalies["pca"]]
    return [100 * kind["auc_roc"] for kind in kinds]


def nearest_neighbors(file, work):
    """AUCROC in percent of the distance to the fifth nearest of half of the normal rows, as PyOD computes it."""
    try:
        import numpy
        from sklearn.metrics import roc_auc_score
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return None
    with numpy.load(as_npz(file, work)) as arrays:
        rows, anomaly = arrays["X"].astype(float), arrays["y"].ravel() != 0
    normal = numpy.random.default_rng(0).permutation(numpy.flatnonzero(~anomaly))
    training, test = normal[: len(normal) // 2], numpy.append(normal[len(normal) // 2 :], numpy.flatnonzero(anomaly))
    scaler = StandardScaler().fit(rows[training])
    neighbors = NearestNeighbors(n_neighbors=5).fit(scaler.transform(rows[training]))
    distances = neighbors.kneighbors(scaler.transform(rows[test]))[0][:, -1]
    return 100 * roc_auc_score(anomaly[test], distances)


def published(path):
    with open(path, newline="") as file:
        rows = {row["Dataset"].lower(): row for row in csv.DictReader(file)}
    return lambda name, method: float(rows[name][method].split("(")[0]) if name in rows else None


def main():
    options = arguments()
    figure = published(options.published)
    names = ["ensemble", "one model", "PCA (own)", "KNN (own)", *options.methods]
    print(f"{'set':<14}" + "".join(f"{name:>11}" for name in names))

    def line(name, figures):
        cells = (f"{'-':>11}" if figure is None else f"{figure:>11.2f}" for figure in figures)
        print(f"{name:<14}" + "".join(cells), flush=True)

    table = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or pathlib.Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for position, (name, file) in enumerate(files(options.data).items()):
            half = "chosen" if position % 2 == 0 else "reported"
            if options.half not in (None, half) or (options.only and name not in options.only):
                continue
            own = [*score(options, work, file, name), nearest_neighbors(file, work)]
            table.append([*own, *(figure(name, method) for method in options.methods)])
            line(name, table[-1])
    published_rows = [row for row in table if None not in row[4:]]
    for rows in [published_rows, table] if 0 < len(published_rows) < len(table) else [table]:
        columns = [None if None in column else sum(column) / len(column) for column in zip(*rows)]
        line(f"mean of {len(rows)}", columns)


main()
