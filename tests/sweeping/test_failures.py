"""What is left of a failed job: failed.json, and one line that says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainbed_adm.sweeping import failures

CUDA = """Traceback (most recent call last):
  File "loop.py", line 3, in step
    raise RuntimeError
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""

REASONS = [
    (1, "no luck", 1, "exit code 1: no luck"),
    (1, CUDA, 2, "exit code 1 (2 attempts): torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."),
    (2, "warning: x\ndomainbed-adm: error: no folder x", 1, "exit code 2: domainbed-adm: error: no folder x"),
    (-9, "", 3, "killed by SIGKILL (3 attempts)"),
    (-100, "", 1, "killed by 100"),
    (1, "last words\n\n", 1, "exit code 1: last words"),
]


@pytest.mark.parametrize(("code", "stderr", "attempts", "reason"), REASONS)
def test_the_reason_is_one_line(tmp_path: Path, code: int, stderr: str, attempts: int, reason: str) -> None:
    failures.write(tmp_path / "job", code, stderr.splitlines(), attempts)
    failure = failures.read(tmp_path / "job")
    assert failure is not None
    assert failure.reason == reason


def test_the_file_says_all(tmp_path: Path) -> None:
    failures.write(tmp_path, -15, ["a", "ValueError: b"], 2, "SAM on PACS")
    contents = json.loads((tmp_path / "failed.json").read_text())
    assert contents.pop("time").endswith("+00:00")
    assert contents == {
        "exit_code": None,
        "signal": "SIGTERM",
        "exception": "ValueError: b",
        "stderr": ["a", "ValueError: b"],
        "attempts": 2,
        "job": "SAM on PACS",
    }
    failures.clear(tmp_path)
    assert failures.read(tmp_path) is None


@pytest.mark.parametrize("contents", ["", "{}", "[1]", '{"exit_code": 1, "more": 2}', "\xff"])
def test_a_damaged_file_is_none(tmp_path: Path, contents: str) -> None:
    (tmp_path / "failed.json").write_text(contents, encoding="latin-1")
    assert failures.read(tmp_path) is None
