"""Tests of `latentflow.ray`, in a cluster of two nodes on this machine."""

import os
import pathlib
import threading
import time

import pytest
from conftest import PHOTOS, ROOT, jpeg

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

import pyarrow.parquet as pq  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

import latentflow  # noqa: E402
from latentflow.ray import Transform  # noqa: E402

STORE_BYTES = 150 << 20
PACKAGE = pathlib.Path(latentflow.__file__).parents[1]


def test_lost_node_loses_no_record_and_duplicates_none(tmp_path):
    photos, out, count = tmp_path / "photos", tmp_path / "out", 400
    photos.mkdir()
    for index in range(count):
        (photos / f"{index:04}.jpg").write_bytes(jpeg(index) if index % 40 else b"not an image")
    local = {"object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **local})
    nodes = [cluster.add_node(num_cpus=2, **local) for _ in range(2)]
    environment = {"env_vars": {"PYTHONPATH": f"{PACKAGE}{os.pathsep}{pathlib.Path(__file__).parent}"}}
    ray.init(address=cluster.address, logging_level="ERROR", runtime_env=environment)
    removed = []

    def remove_when_files_are_written():
        while len(list(out.glob("*.parquet"))) < 3:
            time.sleep(0.02)
        cluster.remove_node(nodes[0], allow_graceful=False)
        removed.append(nodes[0])

    try:
        cluster.wait_for_nodes()
        watcher = threading.Thread(target=remove_when_files_are_written, daemon=True)
        watcher.start()
        images = ray.data.read_binary_files(str(photos), include_paths=True, override_num_blocks=40)
        latents = images.map_batches(
            Transform,
            fn_constructor_args=(PHOTOS,),
            fn_constructor_kwargs={"base": str(ROOT)},
            batch_format="pyarrow",
            batch_size=10,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=3),
        )
        latents.write_parquet(str(out))
        watcher.join(60)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert removed, "the job ended before a node was removed"
    written = pq.read_table(out)
    names = sorted(pathlib.PurePath(source).name for source in written["source"].to_pylist())
    assert names == sorted(path.name for path in photos.iterdir())
    assert written["rejected"].null_count == count - count // 40
