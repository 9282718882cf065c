#!/usr/bin/env python3
"""Compares the Python package with an optimized program on Spark and on Ray: the same cluster on this machine, the same input, model
and columns in Parquet. The programs alternate after a job of each that is not measured, and the figures are medians. CPU seconds are those
of all processes of Spark. Actors of Ray end with their job, so their CPU time is unknown.

Run it with a Python that has latentflow, pyspark, ray[data], pandas, pillow and psutil. Spark needs Java.

usage: clusters.py --photos FOLDER --records CSV [--engines spark ray] [--workloads photos records] [--rounds 3]

FOLDER holds JPEGs, which are repeated; CSV has the columns of the model `kdd-ae` under a header (docs/guides/anomaly-detection.md, `outliers.toml`).
"""
import argparse
import functools
import logging
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import latentflow
import numpy
import psutil
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet

HERE = pathlib.Path(__file__).resolve().parent
BENCH = HERE.parent / ".bench"
MODELS = HERE.parent / "models"
CORES = len(os.sched_getaffinity(0))
#: The package and the programs, for the workers.
PATHS = [str(HERE / "baselines"), str(pathlib.Path(latentflow.__file__).parents[1])]
sys.path.insert(0, str(HERE / "baselines"))

PHOTOS = """
[models.m]
path = "{models}/photo-ae"
[stages.in]
kind = "images"
path = "nowhere"
[stages.pixels]
kind = "pixels"
inputs = ["in"]
model = "m"
[stages.codes]
kind = "encode"
inputs = ["pixels"]
model = "m"
[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "out"
columns = ["source", "latent"]
"""
RECORDS = """
[models.m]
path = "{models}/kdd-ae"
[stages.in]
kind = "parquet"
path = "nowhere"
[stages.vectors]
kind = "features"
inputs = ["in"]
model = "m"
[stages.codes]
kind = "encode"
inputs = ["vectors"]
model = "m"
reconstruct = true
[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "out"
columns = ["latent", "reconstruction_error"]
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True)
    parser.add_argument("--records", type=pathlib.Path, required=True)
    parser.add_argument("--engines", nargs="+", choices=["spark", "ray"], default=["spark", "ray"])
    parser.add_argument("--workloads", nargs="+", choices=["photos", "records"], default=["photos", "records"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photo-count", type=int, default=4000)
    parser.add_argument("--record-count", type=int, default=2_000_000)
    return parser.parse_args()


def photo_input(folder, count):
    place = BENCH / f"data/clusters-photos-{count}"
    if not place.exists():
        BENCH.joinpath("data").mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, HERE / "make_input.py", "copies", place, str(count), folder], check=True)
    return place


def record_input(file, count):
    """The numeric columns, repeated, in 16 files."""
    place = BENCH / f"data/clusters-records-{count}"
    if not place.exists():
        table = pyarrow.csv.read_csv(file)
        table = table.select([field.name for field in table.schema if not pyarrow.types.is_string(field.type)])
        part = pyarrow.concat_tables([table] * (count // 16 // len(table) + 1)).slice(0, count // 16).combine_chunks()
        place.mkdir(parents=True)
        for number in range(16):
            pyarrow.parquet.write_table(part, place / f"{number:02}.parquet", row_group_size=65536)
    return place


def pipelines():
    """The texts of the pipelines."""
    return {"photos": PHOTOS.format(models=MODELS), "records": RECORDS.format(models=MODELS)}


def spark_jobs(texts, inputs):
    """A function for each workload and program, which writes the result to a folder."""
    import cluster_expert
    import latentflow.spark
    from pyspark.sql import SparkSession

    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    builder = SparkSession.builder.master(f"local-cluster[{CORES},1,2048]").config("spark.ui.enabled", "false")
    for key, value in {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executor.memory": "1536m",
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(PATHS),
        "spark.local.dir": str(BENCH / "spark"),
        "spark.sql.files.maxPartitionBytes": "16m",
        "spark.sql.files.openCostInBytes": "16k",
    }.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    read = {
        "photos": lambda: spark.read.format("binaryFile").load(str(inputs["photos"])),
        "records": lambda: spark.read.parquet(str(inputs["records"])),
    }
    expert = {
        "photos": (cluster_expert.spark_photos, MODELS / "photo-ae", "path string, latent array<float>"),
        "records": (cluster_expert.spark_records, MODELS / "kdd-ae", "latent array<float>, reconstruction_error float"),
    }

    def ours(workload, out):
        result = latentflow.spark.transform(read[workload](), texts[workload], rejects="drop")
        result.write.parquet(str(out))

    def theirs(workload, out):
        work, model, schema = expert[workload]
        df = read[workload]()
        df = df.select("path", "content") if workload == "photos" else df
        schema = schema.replace("path", "source")
        df.mapInArrow(functools.partial(work, str(model)), schema).write.parquet(str(out))

    return ours, theirs, spark.stop


def ray_jobs(texts, inputs):
    import cluster_expert
    import ray
    from latentflow.ray import Transform

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    # Each actor takes one CPU. The tasks that read and write need as many again.
    ray.init(
        address="local", num_cpus=2 * CORES, logging_level="error", log_to_driver=False, include_dashboard=False,
        object_store_memory=2 << 30, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(PATHS)}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    read = {
        "photos": lambda: ray.data.read_binary_files(str(inputs["photos"]), include_paths=True, override_num_blocks=16),
        "records": lambda: ray.data.read_parquet(str(inputs["records"]), override_num_blocks=16),
    }
    expert = {
        "photos": (cluster_expert.RayPhotos, MODELS / "photo-ae"),
        "records": (cluster_expert.RayRecords, MODELS / "kdd-ae"),
    }
    sizes = {"photos": 64, "records": 8192}

    def job(work, workload, out, first, **options):
        actors = ray.data.ActorPoolStrategy(size=CORES)
        data = read[workload]().map_batches(
            work, fn_constructor_args=(first,), fn_constructor_kwargs=options, batch_format="pyarrow", batch_size=sizes[workload],
            compute=actors,
        )
        data.write_parquet(str(out))

    def ours(workload, out):
        job(Transform, workload, out, texts[workload], rejects="drop")

    def theirs(workload, out):
        work, model = expert[workload]
        job(work, workload, out, str(model))

    return ours, theirs, ray.shutdown


def cpu_seconds():
    """The CPU seconds of this process and its descendants, including those that have ended."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def check(workload, ours, theirs, count):
    """Compares the results, which are in another order, by their number, their errors, and the latents of 50 photographs."""
    first, second = (pyarrow.dataset.dataset(place, format="parquet").to_table() for place in (ours, theirs))
    assert len(first) == len(second) == count, f"{len(first)} and {len(second)} records, expected {count}"
    if workload == "records":
        first, second = (numpy.sort(table["reconstruction_error"].to_numpy()) for table in (first, second))
        return float(numpy.abs(first - second).max() / numpy.std(second))
    rows_by_name = lambda table: {pathlib.PurePath(source).name: row for row, source in enumerate(table["source"].to_pylist())}
    rows = [rows_by_name(table) for table in (first, second)]
    some = sorted(rows[0])[:50]
    first, second = (numpy.array([table["latent"][row[key]].as_py() for key in some]) for table, row in zip((first, second), rows))
    return float(numpy.abs(first - second).max() / numpy.std(second))


def main():
    options = arguments()
    out = BENCH / "clusters-out"
    inputs = {"photos": photo_input(options.photos, options.photo_count), "records": record_input(options.records, options.record_count)}
    counts = {"photos": options.photo_count, "records": options.record_count // 16 * 16}
    texts = pipelines()
    print(f"latentflow {latentflow.__version__}, {CORES} cores, {options.rounds} rounds")
    print(f"{'engine':<8}{'workload':<10}{'latentflow s':>14}{'expert s':>10}{'speed':>8}{'CPU s':>8}{'expert':>8}{'ratio':>8}{'off by':>10}")
    for engine in options.engines:
        ours, theirs, stop = {"spark": spark_jobs, "ray": ray_jobs}[engine](texts, inputs)
        try:
            for workload in options.workloads:
                figures = {ours: [], theirs: []}
                for number in range(options.rounds + 1):
                    shutil.rmtree(out, ignore_errors=True)
                    out.mkdir(parents=True)
                    for job, name in ((ours, "ours"), (theirs, "theirs")):
                        began, spent = time.perf_counter(), cpu_seconds()
                        job(workload, out / name)
                        if number > 0:
                            figures[job].append((time.perf_counter() - began, cpu_seconds() - spent))
                off = check(workload, out / "ours", out / "theirs", counts[workload])
                (first, first_cpu), (second, second_cpu) = ([statistics.median(values) for values in zip(*figures[job])] for job in (ours, theirs))
                cpu = [f"{first_cpu:.1f}", f"{second_cpu:.1f}", f"{second_cpu / first_cpu:.2f}"] if engine == "spark" else ["-"] * 3
                seconds = f"{first:>14.1f}{second:>10.1f}{second / first:>8.2f}"
                print(f"{engine:<8}{workload:<10}{seconds}{''.join(f'{value:>8}' for value in cpu)}{off:>10.2g}", flush=True)
        finally:
            stop()


if __name__ == "__main__":
    main()
