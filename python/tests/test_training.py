"""Tests of `latentflow.train` and `latentflow.evaluate`."""

import json
import signal
import subprocess
import sys
import threading

import latentflow
import numpy as np
import pandas as pd
import pytest

# The network is trained for a few epochs only.
pytestmark = pytest.mark.filterwarnings("ignore:the model reconstructs the validation part worse")

TRAINING = """
name = "mine"
kind = "vanilla"
code_size = 3
[input]
type = "features"
scaling = "standard"
[training]
epochs = 20
[data]
validation = 0.1
test = 0.1
[[data.sources]]
kind = "csv"
path = "rows.csv"
"""


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    values = random.normal(size=(600, 3)) @ random.normal(size=(3, 8)) + 0.05 * random.normal(size=(600, 8))
    pd.DataFrame(values, columns=[f"f{index}" for index in range(8)]).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "mine.toml").write_text(TRAINING)
    return tmp_path


def test_trained_model_equals_that_of_the_command_line(folder):
    steps = []
    result = latentflow.train(
        folder / "mine.toml", data=folder, threads=1, progress=lambda *step: steps.append(step)
    )
    assert result.path == folder / "mine" and len(result.curve) == 20
    assert result.curve[result.best_epoch - 1].validation_loss == min(epoch.validation_loss for epoch in result.curve)
    names = list(dict.fromkeys(name for name, _, _ in steps))
    assert names == ["reading the data", "training", "writing and measuring the model"]
    trainings = [done for name, done, _ in steps if name == "training"]
    assert trainings == sorted(trainings) and ("training", trainings[-1], trainings[-1]) in steps
    assert "<td>20</td>" in result._repr_html_()

    command = [sys.executable, "-m", "latentflow", "train", "mine.toml", "--out", "other", "--data", str(folder), "--threads", "1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert latentflow.Model(folder / "other").digest == result.model.digest


def test_evaluation_equals_that_of_the_command_line(folder):
    model = latentflow.train(folder / "mine.toml", data=folder).model
    evaluation = latentflow.evaluate(model, data=folder)
    command = [sys.executable, "-m", "latentflow", "evaluate", "mine", "--data", str(folder)]
    printed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    assert repr(evaluation) == printed
    as_json = subprocess.run([*command, "--json", "-"], cwd=folder, check=True, capture_output=True).stdout
    assert evaluation.to_dict() == json.loads(as_json)
    assert evaluation["reconstruction"]["mse"] > 0 and "anomalies" not in evaluation
    assert evaluation._repr_html_().startswith("<h3>mine</h3>")
    every = latentflow.evaluate(folder / "mine", source=folder / "rows.csv", part="all")
    assert every["data"]["scored"] == 600
    assert not any("ensemble" in note for note in every["notes"])
    latentflow.train(folder / "mine.toml", folder / "other", data=folder, set="seed=7")
    several = latentflow.evaluate(model, data=folder, ensemble=[folder / "other"])
    assert any("the ensemble was not measured" in note for note in several["notes"])


def test_faults_name_arguments_of_python(folder):
    with pytest.raises(latentflow.PipelineError, match="kind") as raised:
        latentflow.train(TRAINING.replace("vanilla", "vanila"), folder / "out")
    assert [(fault.key, fault.location) for fault in raised.value.faults] == [("kind", "training.toml:3")]
    latentflow.train(TRAINING, folder / "out", data=folder, set="training.epochs=1")
    with pytest.raises(latentflow.TrainingError, match="pass `restart` to train it from scratch, or `out`"):
        latentflow.train(TRAINING, folder / "out", data=folder)
    with pytest.raises(ValueError, match="`source` nowhere: no such file or folder"):
        latentflow.evaluate(folder / "out", source="nowhere")
    with pytest.raises(ValueError, match='part is "some"; expected "test", "validation", "training" or "all"'):
        latentflow.evaluate(folder / "out", data=folder, part="some")


def test_records_that_are_left_out_are_warned_about(folder):
    rows = pd.read_csv(folder / "rows.csv")
    rows.loc[7, "f3"] = None
    rows.to_csv(folder / "rows.csv", index=False)
    with pytest.warns(latentflow.TrainingWarning, match="rejects of the data: 1; ") as found:
        latentflow.train(folder / "mine.toml", data=folder)
    assert {warning.filename for warning in found} == {__file__}


def test_interrupted_training_is_resumed_by_the_same_call(folder):
    has_started = threading.Event()

    def interrupt(name, done, total):
        # The second step of the training raises the exception of Ctrl-C in the main thread.
        if name == "training" and done > 600 and not has_started.is_set():
            has_started.set()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        latentflow.train(folder / "mine.toml", data=folder, threads=1, progress=interrupt)
    assert has_started.is_set()
    resumed = latentflow.train(folder / "mine.toml", data=folder, threads=1)
    assert len(resumed.curve) == 20
    whole = latentflow.train(folder / "mine.toml", folder / "whole", data=folder, threads=1)
    assert resumed.model.digest == whole.model.digest


def test_exception_of_the_progress_ends_an_evaluation(folder):
    latentflow.train(folder / "mine.toml", data=folder)

    def fail(name, done, total):
        raise LookupError(name)

    with pytest.raises(LookupError, match="reading the data"):
        latentflow.evaluate(folder / "mine", data=folder, progress=fail)
