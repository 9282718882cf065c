#!/usr/bin/env python3
"""Compares the speed of training with JAX: the networks of models/fashion-deep.toml and fashion-conv.toml, with Adam, on the same cores.

Prints records per second of both, and the median of their ratio over alternating rounds. Both are timed over training steps
without the first ones, so compilation and reading of the data are not counted. Needs `pip install jax` for the Python that
runs it, a release build, and Linux for --cores.

usage: training.py --data FOLDER [--cores 0] [--nets deep conv] [--rounds 5] [--seconds 15]
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BATCH = 128


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that contains images/fashion_mnist")
    parser.add_argument("--cores", default="0", help="such as 0 or 0,1")
    parser.add_argument("--nets", nargs="+", default=["deep", "conv"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--latentflow", default=str(HERE.parent / "target/release/latentflow"))
    return parser.parse_args()


def on_cores(cores):
    selected = {int(core) for core in cores.split(",")}
    return selected, lambda: os.sched_setaffinity(0, selected)


def steps(address):
    """Completed steps, from the metrics of a running training; None before the first."""
    try:
        text = urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()
    except OSError:
        return None
    found = re.search(r"^latentflow_training_steps\{[^}]*\} (\S+)", text, re.M)
    return float(found[1]) if found else None


def latentflow(options, net, folder):
    selected, pin = on_cores(options.cores)
    command = [
        options.latentflow, "train", str(HERE.parent / f"models/fashion-{net}.toml"), "--data", options.data, "--restart",
        "--out", str(folder / net), "--threads", str(len(selected)), "--metrics", "127.0.0.1:0", "--log-format", "text",
        "--set", "training.optimizer=adam", "--set", "training.warmup=0",
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=pin)
    try:
        address = next(found[1] for line in child.stderr if (found := re.search(r"http://([0-9.:]+)/metrics", line)))
        while (steps(address) or 0) < 20:
            time.sleep(0.2)
        (first, began) = (steps(address), time.perf_counter())
        time.sleep(options.seconds)
        return (steps(address) - first) * BATCH / (time.perf_counter() - began)
    finally:
        child.kill()
        child.wait()


def jax(options, net, records_per_second):
    _, pin = on_cores(options.cores)
    count = max(20, int(options.seconds * records_per_second / BATCH))
    command = [sys.executable, str(HERE / "training_jax.py"), net, str(BATCH), str(count)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=pin).stdout)


def main():
    options = arguments()
    print(f"{'net':<6}{'latentflow':>12}{'jax':>10}{'ratio':>8}")
    for net in options.nets:
        ratios = []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.rounds):
                ours = latentflow(options, net, pathlib.Path(folder))
                theirs = jax(options, net, ours)
                ratios.append(ours / theirs)
                print(f"{net:<6}{ours:>12.0f}{theirs:>10.0f}{ratios[-1]:>8.2f}", flush=True)
        print(f"{net:<6}{'median':>22}{statistics.median(ratios):>8.2f}")


main()
