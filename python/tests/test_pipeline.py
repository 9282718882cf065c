"""Tests of `latentflow.Pipeline`."""

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import duckdb
import latentflow
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PHOTOS, images, jpeg


def test_result_equals_the_output_of_the_command_line(root, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    table = images(20)
    for name, data in zip(table["source"].to_pylist(), table["image"].to_pylist()):
        (photos / name).write_bytes(data)
    (tmp_path / "p.toml").write_text(PHOTOS.replace('"nowhere"', '"photos"').replace("models/", f"{root}/models/"))
    run = [sys.executable, "-m", "latentflow", "run", "p.toml"]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)
    written = pq.read_table(tmp_path / "out").sort_by("source")

    pipeline = latentflow.Pipeline(tmp_path / "p.toml", rejects="drop")
    result = pipeline.transform(table).sort_by("source")
    assert written.num_rows == 19
    assert result.equals(written.cast(result.schema))


def test_rejected_record_stays_in_its_place(pipeline):
    table = images(5)
    result = pipeline.transform(table)
    assert result["source"].to_pylist() == table["source"].to_pylist()
    rejected = result["rejected"].to_pylist()
    assert [reject is None for reject in rejected] == [True, True, False, True, True]
    assert rejected[2]["stage"] == "pixels" and rejected[2]["code"] == "unsupported"
    assert result["latent"].null_count == 1
    assert pa.schema(pipeline.output_schema) == result.schema


def test_rejects_are_a_table_or_an_exception(root):
    table = images(5)
    pipeline = latentflow.Pipeline(PHOTOS, base=root, rejects="separate")
    for chunks in (table, pa.concat_tables([table[:1], table[1:]])):
        records, rejects = pipeline.transform(chunks)
        assert records.num_rows == 4
        assert rejects.select(["index", "source", "stage"]).to_pylist() == [
            {"index": 2, "source": "2.jpg", "stage": "pixels"}
        ]
    with pytest.raises(latentflow.RejectedRecords, match="rejected 1 record; the first one, at index 2") as raised:
        latentflow.Pipeline(PHOTOS, base=root, rejects="raise").transform(table)
    assert len(raised.value.rejects) == 1


def test_tables_of_other_libraries_are_taken(pipeline):
    table = images(4)
    expected = pipeline.transform(table)
    frame = pl.DataFrame(table)
    assert frame.schema["image"] == pl.Binary
    connection = duckdb.connect()
    connection.register("t", table)
    for data in (frame, connection.sql("select * from t"), table.to_batches()[0], table.to_pandas()):
        result = pipeline.transform(data)
        assert pa.table(result).combine_chunks().equals(expected.combine_chunks()), type(data)
    assert pl.DataFrame(pipeline.transform(frame)).schema["latent"] == pl.Array(pl.Float32, 128)
    nullable = table.set_column(2, "image", pa.array([jpeg(0), None, jpeg(2), jpeg(3)], pa.large_binary()))
    assert pipeline.transform(nullable)["rejected"].to_pylist()[1]["code"] == "missing"


def test_result_does_not_depend_on_batches_or_threads(pipeline):
    table = images(40)
    whole = pipeline.transform(table)
    for size in (1, 7):
        parts = [pa.table(part) for part in pipeline.stream(table.to_batches(size), threads=2)]
        assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
    used = set()
    transform = pipeline.transform
    pipeline.transform = lambda batch: used.add(threading.get_ident()) or transform(batch)
    list(pipeline.stream(table.to_batches(4), threads=2))
    assert len(used) == 2 and threading.get_ident() not in used
    del pipeline.transform
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(result.equals(whole) for result in pool.map(pipeline.transform, [table] * 4))


def test_stream_is_taken_by_other_libraries(pipeline, root):
    table = images(12)
    expected = pipeline.transform(table)
    reader = pa.RecordBatchReader.from_stream(pipeline.stream(table.to_batches(max_chunksize=5), threads=2))
    assert reader.schema == pa.schema(pipeline.output_schema)
    assert reader.read_all().equals(expected)
    frame = pl.DataFrame(pipeline.stream(pl.from_arrow(table).iter_slices(5)))
    assert frame.equals(pl.from_arrow(expected))
    with pytest.raises(TypeError, match="a stream of pairs"):
        latentflow.Pipeline(PHOTOS, base=root, rejects="separate").stream([table]).__arrow_c_stream__()


def test_error_of_the_input_of_a_stream_is_raised_by_its_reader(pipeline):
    def batches():
        yield from images(3).to_batches()
        raise LookupError("the disk is gone")

    reader = pa.RecordBatchReader.from_stream(pipeline.stream(batches()))
    assert reader.read_next_batch().num_rows == 3
    with pytest.raises(pa.ArrowException, match="the disk is gone"):
        reader.read_next_batch()


def test_records_without_source_have_no_origin(root):
    table = images(3).select(["image"])
    result = latentflow.Pipeline(PHOTOS, input=table.schema, base=root).transform(table)
    assert result.column_names == ["latent", "reconstruction_error", "rejected"]
    noisy = PHOTOS.replace('inputs = ["pixels"]', 'inputs = ["noise"]') + (
        '[stages.noise]\nkind = "corrupt"\ninputs = ["pixels"]\nnoise = "gaussian"\nsigma = 25\n'
    )
    with pytest.raises(latentflow.PipelineError, match="supply the column `source`"):
        latentflow.Pipeline(noisy, input=table.schema, base=root)


def test_record_without_identity_is_rejected(pipeline):
    table = images(3).set_column(0, "source", pa.array(["a", None, "c"])).set_column(1, "row", pa.array([0, 0, -1]))
    rejected = pipeline.transform(table)["rejected"].to_pylist()
    assert [reject and reject["code"] for reject in rejected] == [None, "missing", "mismatch"]
    with pytest.raises(latentflow.RunError, match="no column `source`"):
        pipeline.transform(table.select(["image"]))


def test_pickled_pipeline_gives_the_same_result_in_another_process(pipeline):
    data = pickle.dumps(pipeline)
    assert len(data) < 2000
    table = images(4)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # Pickling by pyarrow drops the nullability of list items.
        assert pool.apply(pipeline.transform, (table,)).to_pylist() == pipeline.transform(table).to_pylist()


def test_forked_process_is_refused(pipeline):
    table = images(2)
    pipeline.transform(table)
    child = os.fork()
    if child == 0:
        try:
            pipeline.transform(table)
        except RuntimeError as error:
            os._exit(7 if "forked" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_all_faults_are_listed(root):
    wrong = PHOTOS.replace('model = "photo"\nreconstruct', 'model = "foto"\nreconstruct').replace("columns = [", "colums = [")
    with pytest.raises(latentflow.PipelineError) as raised:
        latentflow.Pipeline(wrong, base=root)
    keys = [fault.key for fault in raised.value.faults]
    assert "stages.latents.model" in keys, raised.value
    with pytest.raises(latentflow.PipelineError, match="cannot read the pipeline file"):
        latentflow.Pipeline("missing.toml")


def test_other_model_in_another_process_is_an_error(pipeline):
    function, (state, columns) = pipeline.__reduce__()
    changed = function({**state, "_models": {"photo": "another"}, "_name": "other.toml"}, columns)
    with pytest.raises(latentflow.PipelineError, match="the models of this process differ"):
        changed.transform(images(1))


def test_tabular_pipeline_takes_the_columns_of_the_first_records(root):
    text = """
    [stages.in]
    kind = "csv"
    path = "nowhere.csv"
    [stages.big]
    kind = "filter"
    inputs = ["in"]
    column = "x"
    above = 1.5
    [stages.out]
    kind = "parquet"
    inputs = ["big"]
    path = "out"
    """
    pipeline = latentflow.Pipeline(text)
    with pytest.raises(ValueError, match="pass `input`"):
        pipeline.output_schema
    result = pipeline.transform(pl.DataFrame({"x": [1.0, 2.0, 3.0], "name": ["a", "b", "c"]}))
    assert pa.table(result).drop(["rejected"]).to_pylist() == [{"x": 2.0, "name": "b"}, {"x": 3.0, "name": "c"}]
    assert "<td>b</td>" in result._repr_html_()
    assert pipeline.stats()["big"].records_in == 3


def test_embedded_source_is_refused_by_run(tmp_path):
    (tmp_path / "p.toml").write_text(
        '[stages.in]\nkind = "embedded"\ncolumns = { x = "float" }\n'
        '[stages.out]\nkind = "parquet"\ninputs = ["in"]\npath = "out"\n'
    )
    run = subprocess.run(
        [sys.executable, "-m", "latentflow", "run", "p.toml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 2 and "receives its records from a program" in run.stderr
    pipeline = latentflow.Pipeline(tmp_path / "p.toml", input=pa.schema({"x": pa.float64()}))
    assert pipeline.transform(pa.table({"x": [1.0]}))["x"].to_pylist() == [1.0]
