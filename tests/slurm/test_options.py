"""Options for sbatch, as they are given and as a site's file has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.sweeping.launchers import slurm_array
from domainbed_adm.sweeping.launchers.slurm_options import default_file, read_options, words


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_text_gives_names_and_values() -> None:
    options = read_options("partition=gpu, time=4:00:00,gres=gpu:1,cpus_per_task=4,nodelist=n[1,3-5],exclusive", None)
    assert words(options) == [
        "--partition=gpu",
        "--time=4:00:00",
        "--gres=gpu:1",
        "--cpus-per-task=4",
        "--nodelist=n[1,3-5]",
        "--exclusive",
    ]
    assert read_options(None, None) == read_options(" ", None) == {}


def test_a_sites_file_is_read_and_overridden_and_its_times_stay_texts(tmp_path: Path) -> None:
    default_file().parent.mkdir(parents=True)
    default_file().write_text("partition: gpu\ntime: 4:00:00\nexclusive: true\nrequeue: false\ncpus_per_task: 04\n")
    assert read_options("partition=cpu", None) == {
        "partition": "cpu",
        "time": "4:00:00",
        "exclusive": "",
        "cpus-per-task": "04",
    }
    other = tmp_path / "other.yaml"
    other.write_text("account: us\n")
    assert read_options("time=5", str(other)) == {"account": "us", "time": "5"}
    other.write_text("")
    assert read_options(None, str(other)) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partition", None),  # one that takes no value: whether it may, sbatch says
        ("partition=", "partition has no value"),
        ("=gpu", "'' is no long option"),
        ("partition=gpu,,time=1", "'' is no long option"),
        (",", "'' is no long option"),
        ("p=gpu", "'p' is no long option"),
        ("--partition=gpu", "'--partition' is no long option"),
        ("Partition=gpu", "'Partition' is no long option"),
        ("partition gpu", "'partition gpu' is no long option"),
        ("array=0-9", "array cannot be given here: give --workers"),
        ("wrap=rm", "wrap cannot be given here"),
        ("job_name=x", "job-name cannot be given here"),
        ("comment=a\nb", "one line of text"),
        ("comment=\x1b[31m", "one line of text"),
        ("signal=USR1@90", "signal must be TERM@SECONDS"),
    ],
)
def test_a_malformed_option_is_one_line(text: str, told: str | None) -> None:
    if told is None:
        assert read_options(text, None) == {text: ""}
        return
    with pytest.raises(UserError) as error:
        read_options(text, None)
    assert told in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- partition", "must map options"),
        ("partition: [a, b]", "partition must have one value"),
        ("partition: {a: b}", "partition must have one value"),
        ("partition: 'a", "cannot be read as YAML"),
        ("array: 1-4", "array cannot be given here"),
        ("? [a]\n: b", "cannot be read as YAML"),
        ("partition: !!python/object/apply:os.system ['true']", "partition must have one value"),
        ("partition: \xff".encode("latin1"), "cannot be read as YAML"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path: Path, content: str | bytes, told: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_options(None, str(path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_options(None, str(tmp_path / "none.yaml"))


def test_slurm_without_a_cluster_is_one_short_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "resolve_ctls_from_dns_srv: Unknown host\nscontrol: fatal: Could not establish a configuration source"
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError) as told:
        slurm_array.check({})
    assert str(told.value) == (
        "scontrol finds no Slurm cluster: run this on a machine that can submit to one (see sinfo)"
    )
