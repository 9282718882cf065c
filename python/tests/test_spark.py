"""Tests of `latentflow.spark`, in a cluster of two executors on this machine. They are skipped without Java."""

import datetime
import decimal
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time

import pages
import pytest
from conftest import PHOTOS, ROOT, jpeg, write_photos

pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)

import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import pyspark  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

import latentflow  # noqa: E402
import streaming_job  # noqa: E402
from latentflow import spark as latentflow_spark  # noqa: E402

PACKAGE = pathlib.Path(latentflow.__file__).parents[1]


@pytest.fixture(scope="module")
def session(folder, tmp_path_factory):
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable
    scratch = tmp_path_factory.mktemp("spark")
    with tarfile.open(scratch / "models.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "models/photo-ae", "photo-ae")
    builder = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", str(scratch))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.executorEnv.PYTHONPATH", os.pathsep.join([str(PACKAGE), str(pathlib.Path(__file__).parent)]))
        .config("spark.archives", f"{scratch / 'models.tar.gz'}#archived")
        .config("spark.sql.files.maxPartitionBytes", "16k")
        .config("spark.sql.files.openCostInBytes", "4k")
    )
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def executors():
    """The processes of executors, which are descendants of the driver."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any("CoarseGrainedExecutorBackend" in word for word in _words(child))]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def python_workers():
    """The Python workers of executors, which are children of a daemon."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "pyspark.daemon" in _words(child) and not child.children()]


def run_and_kill(session, tmp_path, job, find):
    """Runs a job and returns its result. Kills the first process that `find` returns, when four tasks have ended."""
    photos, count = write_photos(tmp_path / "photos", 400, 40), 400
    pipeline = latentflow.Pipeline(PHOTOS, base=ROOT)
    counts = latentflow_spark.accumulator(session)
    images = session.read.format("binaryFile").load(str(photos))
    result = latentflow_spark.transform(images, pipeline, counts=counts)
    assert dict(result.dtypes)["latent"] == "array<float>"

    killed = []

    def kill_when_tasks_are_done():
        tracker = session.sparkContext.statusTracker()
        while not killed:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            if any(stage and stage.numTasks > 8 and stage.numCompletedTasks >= 4 for stage in stages):
                victim = find()[0]
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)
            time.sleep(0.02)

    watcher = threading.Thread(target=kill_when_tasks_are_done, daemon=True)
    watcher.start()
    result.write.parquet(str(tmp_path / "out"))
    watcher.join(5)
    assert killed, "the job ended before a process was killed"

    written = pq.read_table(tmp_path / "out")
    job.check(written["source"].to_pylist(), photos)
    assert written["rejected"].null_count == count - count // 40
    assert counts.value == {("", "processed"): 390, ("pixels", "unsupported"): 10}

    table = written.filter(written["rejected"].is_null()).sort_by("source")
    files = [photos / pathlib.PurePath(source).name for source in table["source"].to_pylist()]
    here = pipeline.transform(pa.table({"source": table["source"], "image": [file.read_bytes() for file in files]}))
    assert here["latent"].to_pylist() == table["latent"].to_pylist()


def test_killed_executor_loses_no_record_and_duplicates_none(session, tmp_path, job):
    run_and_kill(session, tmp_path, job("Spark: executor killed"), executors)


@pytest.mark.scale
def test_killed_worker_loses_no_record_and_duplicates_none(session, tmp_path, job):
    run_and_kill(session, tmp_path, job("Spark: Python worker killed"), python_workers)


@pytest.fixture
def standalone(tmp_path):
    """The address of a cluster of two workers with different names: Spark does not speculate on the host of the first attempt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [f"{os.environ.get('SPARK_HOME') or pathlib.Path(pyspark.__file__).parent}/bin/spark-class"]
    master, worker = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"
    address, common = f"spark://127.0.0.1:{port}", ["--webui-port", "0"]
    small = ["--cores", "1", "--memory", "1g", "--work-dir", str(tmp_path / "work")]
    processes = [[*command, master, "--host", "127.0.0.1", "--port", port, *common]]
    processes += [[*command, worker, "--host", host, *common, *small, address] for host in ("127.0.0.2", "127.0.0.3")]
    log = (tmp_path / "standalone.log").open("w")
    running = [subprocess.Popen(words, stdout=log, stderr=log) for words in processes]
    yield address
    for process in running:
        kill_tree(process)


@pytest.mark.scale
def test_speculative_task_duplicates_no_record(standalone, tmp_path, job):
    photos, out, flag = write_photos(tmp_path / "photos", 200, 40), tmp_path / "out", tmp_path / "flag"
    this = job("Spark: speculative task")
    words = [sys.executable, str(pathlib.Path(__file__).with_name("speculation_job.py")), standalone, *map(str, (photos, out, flag))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(pathlib.Path(__file__).parent)])}
    done = subprocess.run(words, env=environment, check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    assert flag.exists(), "no task has had a second attempt"
    this.check(pq.read_table(out)["source"].to_pylist(), photos)
    assert done.stdout.split()[-1] == "200"


def test_rejects_are_split_off_and_faults_are_raised_on_the_driver(session):
    frame = session.createDataFrame([("a", jpeg(1)), ("b", b"broken"), ("c", None)], "source string, image binary")
    records, rejects = latentflow_spark.split(latentflow_spark.transform(frame, PHOTOS, base=ROOT))
    assert [row.source for row in records.collect()] == ["a"]
    assert sorted((row.source, row.rejected.code) for row in rejects.collect()) == [("b", "unsupported"), ("c", "missing")]
    with pytest.raises(latentflow.PipelineError, match="no column `image`"):
        latentflow_spark.transform(frame.drop("image"), PHOTOS, base=ROOT)


def test_models_are_read_from_an_archive_of_the_executors(session, folder):
    # An executor has the archive in its working folder, under this name. The driver has the models there as well.
    (folder / "archived").symlink_to(ROOT / "models")
    pipeline = PHOTOS.replace("models/photo-ae", "archived/photo-ae")
    frame = session.createDataFrame([("a", jpeg(1))], "source string, image binary")
    assert latentflow_spark.transform(frame, pipeline, base=".").first()["latent"] is not None


def test_examples_of_the_page_give_the_latents_of_the_pipeline(session, folder):
    names = pages.run("spark.md", "latentflow on Spark")
    read = latents_of(session.read.parquet("latents").collect())
    files = sorted((folder / "photos").iterdir())
    table = pa.table({"source": [file.name for file in files], "image": [file.read_bytes() for file in files]})
    here = latentflow.Pipeline("pipelines/photos.toml").transform(table)
    assert read == dict(zip(here["source"].to_pylist(), here["latent"].to_pylist()))
    counts = pages.run("spark.md", "Rejects", **names)["counts"].value
    assert counts == {("", "processed"): 27, ("pixels", "unsupported"): 3}
    records, rejects = session.read.parquet("records").collect(), session.read.json("rejects").collect()
    assert latents_of(records) == {source: latent for source, latent in read.items() if latent}
    assert {pathlib.PurePath(row.source).name for row in rejects} == {"0000.jpg", "0010.jpg", "0020.jpg"}
    pages.run("spark.md", "Streams", **names)
    assert latents_of(session.read.parquet("stream").collect()) == read


def latents_of(rows):
    latents = {pathlib.PurePath(row.source).name: row.latent for row in rows}
    assert len(latents) == len(rows)
    return latents


FEATURES = """
[models.kdd]
path = "models/kdd-ae"
[stages.records]
kind = "csv"
path = "nowhere"
[stages.features]
kind = "features"
inputs = ["records"]
columns = ["price", "count", "is.new", "doubles", "floats[0]", "floats[1]"]
width = 38
keep = true
[stages.latents]
kind = "encode"
inputs = ["features"]
model = "kdd"
[stages.out]
kind = "parquet"
inputs = ["latents"]
path = "out"
"""

TYPES = (
    "id bigint, at timestamp, local timestamp_ntz, day date, price decimal(20, 4), `count` int, `is.new` boolean, "
    "doubles array<double>, floats array<float>, tags map<string, int>, place struct<x: double, y: string>"
)


def records():
    at = datetime.datetime(2024, 3, 31, 1, 30)
    row = (at, at, at.date(), decimal.Decimal("12.5000"), 3, True, [0.5] * 33, [0.25, 0.75], {"a": 1}, (1.5, "y"))
    null_price = row[:3] + (None,) + row[4:]
    short = row[:6] + ([0.5] * 3,) + row[7:]
    null_item = row[:7] + ([None, 1.0],) + row[8:]
    return [(index, *values) for index, values in enumerate([row, null_price, short, null_item])]


@pytest.mark.parametrize("is_large", ["false", "true"])
def test_columns_of_all_types_of_spark_are_taken_and_kept(session, is_large):
    frame = session.createDataFrame(records(), TYPES)
    session.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    session.conf.set("spark.sql.execution.arrow.useLargeVarTypes", is_large)
    try:
        result = latentflow_spark.transform(frame, FEATURES, base=ROOT)
        rows = sorted(result.collect(), key=lambda row: row.id)
        expected = sorted(frame.collect(), key=lambda row: row.id)
    finally:
        session.conf.unset("spark.sql.session.timeZone")
        session.conf.unset("spark.sql.execution.arrow.useLargeVarTypes")
    kept = dict(frame.dtypes)
    assert {name: data_type for name, data_type in result.dtypes if name in kept} == kept
    assert [row.rejected and row.rejected.code for row in rows] == [None, "missing", "mismatch", "missing"]
    assert [row["at"] for row in rows] == [row["at"] for row in expected]
    assert len(rows[0].latent) == 8
    assert [rows[0][name] for name in frame.columns] == list(expected[0])
    vector = [12.5, 3.0, 1.0, *[0.5] * 33, 0.25, 0.75]
    model = FEATURES.replace('"price", "count", "is.new", "doubles", "floats[0]", "floats[1]"', '"v"')
    here = latentflow.Pipeline(model, base=ROOT, input=pa.schema({"v": pa.list_(pa.float64())}))
    assert rows[0].latent == here.transform(pa.table({"v": [vector]}))["latent"].to_pylist()[0]


def test_names_are_found_as_spark_finds_them(session):
    pipeline = latentflow.Pipeline(PHOTOS, base=ROOT)
    frame = session.createDataFrame([("a", jpeg(1), 1)], "Source string, IMAGE binary, other int")
    assert [row.source for row in latentflow_spark.transform(frame, pipeline).collect()] == ["a"]
    session.conf.set("spark.sql.caseSensitive", "true")
    try:
        with pytest.raises(latentflow.PipelineError, match="has no column `source`, `image`.*it has `Source`, `IMAGE`, `other`"):
            latentflow_spark.transform(frame, pipeline)
    finally:
        session.conf.unset("spark.sql.caseSensitive")
    with pytest.raises(latentflow.PipelineError, match="no column `image`; the input has: .*, Source, IMAGE, other"):
        latentflow_spark.transform(frame, PHOTOS, base=ROOT)
    with pytest.raises(latentflow.PipelineError, match="no column `source`, `image`, .*it has `path`, `jpeg`; rename"):
        latentflow_spark.transform(session.createDataFrame([("a", b"")], "path string, jpeg binary"), pipeline)
    with pytest.raises(TypeError, match="base"):
        latentflow_spark.transform(frame, pipeline, base=ROOT)


def kill_tree(process):
    """Kills a driver with its JVM and its Python workers."""
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


def test_killed_stream_continues_without_loss_or_duplicates(session, tmp_path, job):
    photos, out, checkpoint = tmp_path / "photos", tmp_path / "out", tmp_path / "checkpoint"
    later = write_photos(tmp_path / "later", 240, 40)
    photos.mkdir()
    places = [str(path) for path in (photos, out, checkpoint)]

    def add(start, stop):
        for index in range(start, stop):
            (later / f"{index:04}.jpg").rename(photos / f"{index:04}.jpg")

    def wait_for(condition):
        while not condition():
            assert driver.poll() is None, "the job ended before it was killed"
            time.sleep(0.005)

    def batches(folder):
        return {path.name for path in (checkpoint / folder).glob("[0-9]*")}

    add(0, 60)
    this = job("Spark: driver of a stream killed")
    script = str(pathlib.Path(__file__).with_name("streaming_job.py"))
    driver = subprocess.Popen([sys.executable, script, *places], env={**os.environ, "PYTHONPATH": str(PACKAGE)})
    try:
        wait_for(lambda: batches("commits"))
        add(60, 240)
        # A batch of 60 files has begun and is not committed, unless all four were committed between two looks.
        wait_for(lambda: batches("offsets") - batches("commits") or len(batches("commits")) == 4)
    finally:
        kill_tree(driver)
    # One task for each batch: the small partitions of the other tests take minutes here.
    small = session.conf.get("spark.sql.files.maxPartitionBytes")
    session.conf.set("spark.sql.files.maxPartitionBytes", "128m")
    streaming_job.start(session, *places, availableNow=True).awaitTermination()

    rows = session.read.parquet(str(out)).select("source", "rejected").collect()
    this.check([row.source for row in rows], photos)
    session.conf.set("spark.sql.files.maxPartitionBytes", small)
    assert sum(row.rejected is not None for row in rows) == 6
