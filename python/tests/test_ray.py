"""Tests of `latentflow.ray`, on a cluster of three nodes on this machine. They are skipped without Ray."""

import os
import pathlib
import signal
import threading
import time

import pages
import pytest
from conftest import PHOTOS, ROOT, write_photos

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
# Ray uses the loopback interface, as it does on macOS. Otherwise drivers replace it by another interface of the machine.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

import latentflow  # noqa: E402
from latentflow.ray import Transform  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
PACKAGE = pathlib.Path(latentflow.__file__).parents[1]


@pytest.fixture(scope="module")
def cluster(folder):
    """A head without CPUs, and two nodes. All nodes use the loopback interface."""
    node = {"node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20}
    path = os.pathsep.join([str(PACKAGE), str(pathlib.Path(__file__).parent)])
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, **node)
        runtime = {"env_vars": {"PYTHONPATH": path}}
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False, runtime_env=runtime)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_example_of_the_page_gives_the_latents_of_the_pipeline(cluster, folder):
    pages.run("ray.md", "latentflow on Ray")
    written = pq.read_table("latents")
    files = sorted((folder / "photos").iterdir())
    table = pa.table({"source": [file.name for file in files], "image": [file.read_bytes() for file in files]})
    here = latentflow.Pipeline("pipelines/photos.toml").transform(table)
    names = [pathlib.PurePath(source).name for source in written["source"].to_pylist()]
    assert len(names) == 30
    assert dict(zip(names, written["latent"].to_pylist())) == dict(zip(here["source"].to_pylist(), here["latent"].to_pylist()))


def test_batch_in_another_format_is_refused():
    with pytest.raises(TypeError, match='batch_format="pyarrow"'):
        Transform(PHOTOS, base=ROOT)({"path": ["a"], "bytes": [b""]})


class Gated(Transform):
    """A pipeline that reports its second batch, and waits before the third one until a process was killed."""

    def __init__(self, folder, *arguments, **options):
        super().__init__(*arguments, **options)
        self._folder, self._batches = pathlib.Path(folder), 0
        self._place = f"{ray.get_runtime_context().get_node_id()}-{os.getpid()}"

    def __call__(self, table):
        while self._batches == 2 and not (self._folder / "killed").exists():
            time.sleep(0.02)
        result = super().__call__(table)
        self._batches += 1
        if self._batches == 2:
            (self._folder / f"active-{self._place}").touch()
        return result.append_column("place", [[self._place] * len(result)])


def run_and_kill(tmp_path, job, kill):
    """Runs a job, and calls `kill` with the node and the process of an actor that has processed two batches."""
    photos, reports, out, count = write_photos(tmp_path / "photos", 400, 20), tmp_path / "reports", tmp_path / "out", 400
    reports.mkdir()
    latents = ray.data.read_binary_files(str(photos), include_paths=True, override_num_blocks=16).map_batches(
        Gated,
        # The models make the argument large enough for Ray's object store.
        fn_constructor_args=(str(reports), latentflow.Pipeline(PHOTOS, base=ROOT, models="embed")),
        batch_format="pyarrow",
        batch_size=10,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=3),
    )
    killed = []

    def watch():
        while not (active := list(reports.glob("active-*"))):
            time.sleep(0.02)
        place = active[0].name.removeprefix("active-")
        node, process = place.split("-")
        kill(node, int(process))
        killed.append(place)
        (reports / "killed").touch()

    threading.Thread(target=watch, daemon=True).start()
    latents.write_parquet(str(out))
    assert killed, "the job ended before a process was killed"
    written = pq.read_table(out)
    job.check(written["source"].to_pylist(), photos)
    assert set(written["place"].to_pylist()) - set(killed), "no other actor has processed a record"
    assert sum(reject is not None for reject in written["rejected"].to_pylist()) == count // 20
    assert {len(latent) for latent in written["latent"].to_pylist() if latent is not None} == {128}


@pytest.mark.scale
def test_killed_actor_loses_no_record_and_duplicates_none(cluster, tmp_path, job):
    run_and_kill(tmp_path, job("Ray: actor killed"), lambda node, process: os.kill(process, signal.SIGKILL))


def test_removed_node_loses_no_record_and_duplicates_none(cluster, tmp_path, job):
    def remove(name, process):
        node = next(node for node in cluster.worker_nodes if node.node_id == name)
        cluster.remove_node(node, allow_graceful=False)

    run_and_kill(tmp_path, job("Ray: node removed"), remove)
