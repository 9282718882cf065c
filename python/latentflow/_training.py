"""Training of models."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

from . import _latentflow
from ._arguments import Texts, in_python, read_text, texts
from ._model import Model
from ._pipeline import claim_process, pipeline_error
from ._progress import Callback, Progress


#: Number of epochs in the HTML form of a result: the last ones.
_SHOWN = 10


class TrainingError(RuntimeError):
    """A training that cannot start or go on, for a reason other than its file."""


class TrainingWarning(UserWarning):
    """A property of the data or of the model that deserves attention."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The measurements of an epoch."""

    epoch: int  #: The epoch, counted from 1.
    step: int  #: Number of steps up to the end of the epoch.
    seconds: float  #: Seconds of training up to the end of the epoch.
    learning_rate: float  #: Learning rate at the end of the epoch.
    loss: float  #: Mean of the objective over the batches of the epoch, with the penalty.
    validation_loss: float | None  #: Mean loss over the validation part, if the data has one.
    reconstruction: float | None = None  #: Variational and contractive: mean of the loss without the penalty.
    kl: float | None = None  #: Variational: mean KL divergence of a record, in nats.
    contraction: float | None = None  #: Contractive: mean squared norm of the derivatives of the code of a record.
    validation_reconstruction: float | None = None  #: Variational: validation loss without the KL divergence.
    validation_kl: float | None = None  #: Variational: mean KL divergence of a record of the validation part.


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The result of :func:`train`."""

    name: str  #: The name of the model.
    path: pathlib.Path  #: The model folder.
    curve: list[Epoch] = dataclasses.field(repr=False)  #: The completed epochs.
    best_epoch: int | None  #: The epoch whose weights the model has.
    seconds: float  #: Seconds of training, with those of earlier calls that this one has resumed.

    @property
    def model(self) -> Model:
        """The trained model."""
        return Model(self.path)

    def _repr_html_(self) -> str:
        fields = [field.name for field in dataclasses.fields(Epoch)]
        names = [name for name in fields if any(getattr(epoch, name) is not None for epoch in self.curve)]
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{_figure(getattr(epoch, name))}</td>" for name in names) + "</tr>"
            for epoch in self.curve[-_SHOWN:]
        )
        title = f"{self.name}: epoch {self.best_epoch} of {len(self.curve)}, {self.seconds:.1f} s, {self.path}"
        return f"<p>{html.escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def train(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    set: Texts = (),
    threads: int | None = None,
    restart: bool = False,
    progress: bool | Callback | None = None,
) -> TrainResult:
    """Trains the autoencoder that a training file declares, and writes its model folder.

    :param file: the path of a training file, or its text. `latentflow init --train` prints a commented one.
    :param out: the model folder. Default: the path of the training file without its extension.
    :param data: the folder that relative paths of the data start from.
    :param set: overrides of keys, such as `["training.epochs=5"]`.
    :param threads: number of threads. Default: the number of available cores.
    :param restart: whether to train a model from scratch that already exists, or whose training was interrupted.
    :param progress: whether to show a progress bar. Default: on terminals and in notebooks. A function receives the name
        of the step, the number of processed records, and the number of all its records or None.

    An interrupted training (`KeyboardInterrupt`) keeps its checkpoint, and the same call resumes it.

    :raises PipelineError: for a file that is invalid, with all faults.
    :raises TrainingError: if the folder has a model already, the loss is not finite, or a file cannot be written.
    :warns TrainingWarning: for rejected records, values outside of the range of the loss, and a model that reconstructs
        worse than principal components.
    """
    claim_process()
    name, text = read_text(file, "training")
    if out is None:
        if "\n" in os.fspath(file):
            raise ValueError("a training file that is given as text needs `out`, the model folder")
        out = pathlib.Path(name).with_suffix("")
    overrides = texts(set) + ([] if data is None else [f"data.root={json.dumps(os.fspath(data))}"])
    with Progress(progress) as bar:
        watcher = _Watcher(bar)
        try:
            result = _latentflow.train_model(
                name, text, os.fspath(out), overrides, threads, restart, watcher.handle
            )
        except _latentflow.NativePipelineError as error:
            raise pipeline_error(error) from None
        except _latentflow.NativeWorkError as error:
            raise TrainingError(in_python(str(error))) from None
    fields = json.loads(result)
    return TrainResult(
        name=fields["name"],
        path=pathlib.Path(out),
        curve=[Epoch(**epoch) for epoch in fields["curve"]],
        best_epoch=fields["best_epoch"],
        seconds=fields["seconds"],
    )


class _Watcher:
    """Shows the events of a training."""

    def __init__(self, bar: Progress):
        self._bar = bar
        self._started: dict[str, int] = {}

    def handle(self, kind: str, text: str) -> None:
        fields: dict[str, Any] = json.loads(text)
        match kind:
            case "reading":
                self._bar.show("reading the data", fields["done"], fields["total"])
            case "started":
                self._started = fields
            case "step":
                self._show(fields["epoch"], fields["batch"], fields["loss"])
            case "epoch":
                record = fields["record"]
                self._show(record["epoch"], self._started["batches"], record["loss"])
            case "finishing":
                self._bar.show("writing and measuring the model", 0, None)
        for message in _warnings(kind, fields):
            # The caller of `train` is above this method and `train` itself.
            warnings.warn(message, TrainingWarning, stacklevel=3)

    def _show(self, epoch: int, batch: int, loss: float) -> None:
        started = self._started
        done = (epoch - 1) * started["records"] + started["records"] * batch // max(started["batches"], 1)
        note = f"epoch {epoch}/{started['epochs']}, loss {loss:.6f}"
        self._bar.show("training", done, started["records"] * started["epochs"], note)


def _warnings(kind: str, fields: dict[str, Any]) -> Iterator[str]:
    match kind:
        case "prepared":
            if fields["rejects"]:
                yield f"rejects of the data: {fields['rejects']}; {'; '.join(fields['reasons'])}"
            if fields["without_label"]:
                yield (
                    f"{fields['without_label']} records without a value in the column of `normal` are neither normal nor "
                    "anomalies, and are left out"
                )
            if fields["training"] and not fields["validation"]:
                yield (
                    "the validation part has no records; the losses are those of the training part, and the model has the "
                    "weights of the last epoch"
                )
        case "out_of_range":
            yield (
                f"values of `{fields['values']}` in the {fields['part']} part lie outside of 0..1, from {fields['low']} to "
                f"{fields['high']}; {fields['effect']}"
            )
        case "measured" if fields["reason"]:
            yield f"the model failed on {fields['failed']} records, which are not measured: {fields['reason']}"
        case "worse_than_pca":
            yield (
                f"the model reconstructs the validation part worse (mse {fields['mse']:.6f}) than {fields['components']} "
                f"principal components ({fields['pca_mse']:.6f}); train for more epochs, with more records, or with "
                "another network"
            )
