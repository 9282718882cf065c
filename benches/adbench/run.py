#!/usr/bin/env python3
"""Anomaly detection with one fixed recipe on the data sets of ADBench, compared with published results.

Trains one model per data set by recipe.toml on half of the normal rows; the other half and all anomalies are scored
by their reconstruction error. Prints the AUCROC (in percent) of each data set and their mean, next to the columns of a table of
published results (a CSV file with the column `Dataset` and one per method, such as `73.05(1.2)`). Needs only Python.

usage: run.py --data FOLDER_OF_NPZ --published TABLE.csv [--latentflow BINARY] [--work FOLDER] [--set KEY=VALUE ...]
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
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument("--latentflow", default=str(HERE.parent.parent / "target/release/latentflow"))
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--methods", nargs="+", default=["PCA", "VAE", "KNN", "DTE-C"])
    parser.add_argument("--only", nargs="+", help="names of data sets")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def score(options, work, file, name):
    """AUCROC in percent of the model, and of PCA as `evaluate` computes it, on one data set."""
    model = str(work / name)
    source = f'data.sources=[{{ kind = "npz", path = "{file.resolve()}", arrays = ["X", "y"] }}]'
    settings = [part for setting in [source, *options.set] for part in ("--set", setting)]
    run([options.latentflow, "train", str(HERE / "recipe.toml"), "--out", model, "--restart", *settings])
    found = json.loads(run([options.latentflow, "evaluate", model, "--json", "-"]))
    anomalies = found["anomalies"]
    return 100 * anomalies["model"]["auc_roc"], 100 * anomalies["pca"]["auc_roc"]


def published(path):
    with open(path, newline="") as file:
        rows = {row["Dataset"].lower(): row for row in csv.DictReader(file)}
    return lambda name, method: float(rows[name.lower()][method].split("(")[0])


def main():
    options = arguments()
    figure = published(options.published)
    table = []
    print(f"{'set':<14}{'latentflow':>12}{'PCA (own)':>12}" + "".join(f"{method:>10}" for method in options.methods))

    def line(name, figures):
        print(f"{name:<14}{figures[0]:>12.2f}{figures[1]:>12.2f}" + "".join(f"{x:>10.2f}" for x in figures[2:]), flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or pathlib.Path(temporary)
        for file in sorted(options.data.glob("*.npz"), key=lambda file: file.stem.split("_", 1)[1].lower()):
            name = file.stem.split("_", 1)[1]
            if options.only and name not in options.only:
                continue
            table.append([*score(options, work, file, name), *(figure(name, method) for method in options.methods)])
            line(name, table[-1])
    line("mean", [sum(column) / len(column) for column in zip(*table)])


main()
