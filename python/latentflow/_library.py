"""Finds the library of ONNX Runtime in the Python package `onnxruntime`."""

import importlib.util
import os
import pathlib


def prepare() -> None:
    """Sets the variables that the native module reads. Values that the user has set are kept.

    The package `onnxruntime` is located without importing it, since its module would load a second copy of the library.
    """
    # From 1.29 on, ONNX Runtime reports its use to its vendor unless this variable is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if os.environ.get("ORT_DYLIB_PATH"):
        return
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return
    folder = pathlib.Path(found.origin).parent / "capi"
    names = ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll")
    for library in (path for name in names for path in sorted(folder.glob(name))):
        os.environ["ORT_DYLIB_PATH"] = str(library)
        return
