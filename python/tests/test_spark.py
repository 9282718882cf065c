"""Tests of `latentflow.spark`, in a cluster of two executors on this machine. They are skipped without Java."""

import os
import pathlib
import shutil
import signal
import sys
import threading
import time

import pytest
from conftest import PHOTOS, ROOT, jpeg

pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)

import psutil  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

import latentflow  # noqa: E402
from latentflow import spark as latentflow_spark  # noqa: E402

PACKAGE = pathlib.Path(latentflow.__file__).parents[1]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable
    folder = tmp_path_factory.mktemp("spark")
    builder = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", str(folder))
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.executorEnv.PYTHONPATH", os.pathsep.join([str(PACKAGE), str(pathlib.Path(__file__).parent)]))
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


def test_killed_executor_loses_no_record_and_duplicates_none(session, tmp_path):
    photos, count = tmp_path / "photos", 400
    photos.mkdir()
    for index in range(count):
        (photos / f"{index:04}.jpg").write_bytes(jpeg(index) if index % 40 else b"not an image")
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
                victim = executors()[0]
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)
            time.sleep(0.02)

    watcher = threading.Thread(target=kill_when_tasks_are_done, daemon=True)
    watcher.start()
    result.write.parquet(str(tmp_path / "out"))
    watcher.join(5)
    assert killed, "the job ended before an executor was killed"

    written = pq.read_table(tmp_path / "out")
    names = sorted(pathlib.PurePath(source).name for source in written["source"].to_pylist())
    assert names == sorted(path.name for path in photos.iterdir())
    assert written["rejected"].null_count == count - count // 40
    assert counts.value == {("", "processed"): 390, ("pixels", "unsupported"): 10}

    table = written.filter(written["rejected"].is_null()).sort_by("source")
    files = [photos / pathlib.PurePath(source).name for source in table["source"].to_pylist()]
    import pyarrow as pa

    here = pipeline.transform(pa.table({"source": table["source"], "image": [file.read_bytes() for file in files]}))
    assert here["latent"].to_pylist() == table["latent"].to_pylist()


def test_rejects_are_split_off_and_faults_are_raised_on_the_driver(session):
    frame = session.createDataFrame([("a", jpeg(1)), ("b", b"broken"), ("c", None)], "source string, image binary")
    records, rejects = latentflow_spark.split(latentflow_spark.transform(frame, PHOTOS, base=ROOT))
    assert [row.source for row in records.collect()] == ["a"]
    assert sorted((row.source, row.rejected.code) for row in rejects.collect()) == [("b", "unsupported"), ("c", "missing")]
    with pytest.raises(latentflow.PipelineError, match="no column `image`"):
        latentflow_spark.transform(frame.drop("image"), PHOTOS, base=ROOT)
