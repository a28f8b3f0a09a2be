"""Pickles of arrays and plain containers, as Python 2 wrote CIFAR's: nothing that one names is imported or called."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from domainbed_adm.errors import UserError, one_line


class _Type:
    """In place of ``numpy.dtype``: its code, such as "u1"."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and layout; bytes have none."""


class PickledArray:
    """In place of ``numpy.ndarray``: what the pickle says of one; its bytes are read without NumPy's unpickling."""

    def __init__(self, *_: object) -> None:
        self.shape, self.code, self._fortran, self._bytes = (), "", False, b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, kind, self._fortran, content = state
        self.code = str(kind.code).lstrip("|")
        self._bytes = content.encode("latin1") if isinstance(content, str) else bytes(content)

    def array(self) -> np.ndarray:
        """The array, uint8.

        Raises:
            ValueError: it is of another type, or its bytes are more or fewer than its shape says.
        """
        if self.code != "u1":
            raise ValueError(f"its array is of type {self.code or 'unknown'}, not of bytes (u1)")
        return np.frombuffer(self._bytes, np.uint8).reshape(self.shape, order="F" if self._fortran else "C")


#: What stands for the three names that a pickle of an array has; "ndarray" is only handed on.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): "ndarray",
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which only a pickle that runs code needs")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside the file")


def load_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary; text of Python 2 is read as Latin-1, arrays are :class:`PickledArray`.

    Raises:
        UserError: the file cannot be read, is no whole pickle of a dictionary, or asks for anything but arrays.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises what its operations happen to raise
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserError(f"{path} cannot be read as a pickle of arrays: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no dictionary but {type(content).__name__}: get the file anew")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
