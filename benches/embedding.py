#!/usr/bin/env python3
"""Compares the CPU time of `Pipeline.transform` with that of `latentflow run`, for the same records and the same stages.

`transform` is the CPU time of the calls alone; `with files` is that of the whole process, which reads and writes Parquet with pyarrow;
`run` is that of the command line. The programs alternate, and the figures are medians. Run it with a Python that has latentflow and
pyarrow; `--binary` must be built in the same profile as the package.

usage: embedding.py --binary target/release/latentflow --records CSV [--record-count 2000000] [--rounds 5]
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

from clusters import BENCH, MODELS, RECORDS, record_input

EMBEDDED = """
import sys, threading, time
import latentflow, pyarrow, pyarrow.dataset, pyarrow.parquet

text, place, out, threads = open(sys.argv[1]).read(), sys.argv[2], sys.argv[3], int(sys.argv[4])
pyarrow.set_cpu_count(1)
pyarrow.set_io_thread_count(1)
dataset = pyarrow.dataset.dataset(place)
pipeline = latentflow.Pipeline(text, input=dataset.schema, rejects="drop")
spent = []
transform = pipeline.transform
def timed(batch):
    began = time.thread_time()
    result = transform(batch)
    spent.append(time.thread_time() - began)
    return result
with pyarrow.parquet.ParquetWriter(out, pyarrow.schema(pipeline.output_schema), compression="zstd", compression_level=1) as writer:
    if threads == 1:
        for batch in dataset.to_batches(batch_size=8192, use_threads=False):
            writer.write_batch(timed(batch))
    else:
        pipeline.transform = timed
        for batch in pipeline.stream(dataset.to_batches(batch_size=8192), threads=threads):
            writer.write_batch(pyarrow.record_batch(batch))
print(sum(spent))
"""


def measure(words, **options):
    """CPU seconds of a process, and its output."""
    child = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, **options)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        raise SystemExit(f"{words[0]} failed")
    return usage.ru_utime + usage.ru_stime, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--records", type=pathlib.Path, required=True)
    parser.add_argument("--record-count", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="workers of both programs")
    options = parser.parse_args()
    place = record_input(options.records, options.record_count)
    out = BENCH / "embedding-out"
    text = RECORDS.format(models=MODELS).replace('"nowhere"', f'"{place}/*.parquet"').replace('"out"', f'"{out}/run"')
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "p.toml").write_text(text)
    run = [options.binary, "run", out / "p.toml", "--workers", options.threads, "--summary", "none"]
    embedded = [sys.executable, "-c", EMBEDDED, out / "p.toml", place, out / "embedded.parquet", options.threads]
    times = {"run": [], "transform": [], "with files": []}
    for number in range(options.rounds + 1):
        shutil.rmtree(out / "run", ignore_errors=True)
        cpu, _ = measure(run, stderr=subprocess.DEVNULL)
        total, output = measure(embedded)
        if number > 0:
            for name, value in (("run", cpu), ("transform", float(output)), ("with files", total)):
                times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:<12}{value:>8.2f} CPU s{value / medians['run']:>8.2f}")


if __name__ == "__main__":
    main()
