"""Evaluation of models."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from . import _latentflow
from ._arguments import Texts, in_python, texts
from ._model import Model
from ._pipeline import claim_process
from ._progress import Callback, Progress

Part = Literal["test", "validation", "training", "all"]


class EvaluationError(RuntimeError):
    """A model that cannot be evaluated, for a reason other than an argument."""


class Evaluation:
    """The measurements of :func:`evaluate`.

    Sections are items: `evaluation["reconstruction"]["mse"]`. The sections are `model`, `data` and `notes`, and those that
    apply: `compression`, `reconstruction`, `code`, `pca`, `labels`, `anomalies` and `denoising`. Their fields are those of
    `latentflow evaluate --json`.
    """

    def __init__(self, sections: dict[str, Any], text: str, html: str):
        self._sections, self._text, self._html = sections, text, html

    def __getitem__(self, section: str) -> Any:
        return self._sections[section]

    def __contains__(self, section: object) -> bool:
        return section in self._sections

    def to_dict(self) -> dict[str, Any]:
        """All sections."""
        return dict(self._sections)

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


def evaluate(
    model: Model | str | os.PathLike[str],
    *,
    source: Texts = (),
    data: str | os.PathLike[str] | None = None,
    set: Texts = (),
    part: Part | None = None,
    corrupt: Texts = (),
    ensemble: Sequence[str | os.PathLike[str]] = (),
    prepared: str | os.PathLike[str] | None = None,
    compare_decode: bool = False,
    allow_nondeterministic: bool = False,
    progress: bool | Callback | None = None,
) -> Evaluation:
    """Measures a model on the data of its training, or on other data.

    :param model: a model folder, or a :class:`Model`.
    :param source: other data: folders, files, or source tables as text. Half of the records are reserved to fit principal
        components and classifiers.
    :param data: the folder of the training data, if it has moved.
    :param set: overrides of keys of the `[data]` table, such as `["label=species"]`.
    :param part: the part of the records to score. Default: the test part, or the validation part without a test part, and
        all anomalies.
    :param corrupt: corruptions to measure denoising with, such as `["gaussian:25"]`. Default: those of the training.
    :param ensemble: the folders of other models with the same input; anomalies are also ranked by the mean of the errors of all
        models.
    :param prepared: a folder for the prepared records, which later evaluations use again.
    :param compare_decode: whether to measure the distance between JPEGs decoded in full and at a fraction of their size.
    :param allow_nondeterministic: whether to accept a model whose output depends on random numbers or on other records.
    :param progress: as that of :func:`train`.

    :raises ValueError: for an invalid argument, or data that does not fit the model.
    :raises EvaluationError: if the model fails on every record, or a file cannot be read.
    """
    claim_process()
    if isinstance(model, Model):
        allow_nondeterministic = allow_nondeterministic or model.allow_nondeterministic
        model = model.path
    with Progress(progress) as bar:
        try:
            found, text, html = _latentflow.evaluate_model(
                os.fspath(model),
                None if data is None else os.fspath(data),
                texts(source),
                texts(set),
                part,
                texts(corrupt),
                [os.fspath(folder) for folder in ensemble],
                None if prepared is None else os.fspath(prepared),
                compare_decode,
                allow_nondeterministic,
                lambda kind, fields: _handle(bar, kind, json.loads(fields)),
            )
        except _latentflow.NativeArgumentError as error:
            raise ValueError(in_python(str(error))) from None
        except _latentflow.NativeWorkError as error:
            raise EvaluationError(str(error)) from None
    return Evaluation(json.loads(found), text, html)


def _handle(bar: Progress, kind: str, fields: dict[str, Any]) -> None:
    match kind:
        case "reading":
            bar.show("reading the data", fields["done"], fields["total"])
        case "prepared":
            for reason in fields["reasons"]:
                # The caller of `evaluate` is above the handler, the lambda and `evaluate` itself.
                warnings.warn(f"a record of the data was rejected: {reason}", UserWarning, stacklevel=4)
        case "step":
            bar.show(fields["name"], fields["done"], fields["total"])
