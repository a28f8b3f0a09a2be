"""Whatever --hparams, records and checkpoints hold: only the documented errors come out, nothing else is touched."""

import contextlib
import io
import json
import pickle
import re
import unicodedata
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_adm import hparams_registry
from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import METHODS
from domainbed_adm.sweeping.jobs import Sweep
from domainbed_adm.training.model_file import load_tensors
from tests.fuzzing import repeatable
from tests.runs import record

bounded = repeatable(150)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(scalars, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(), one, max_size=3))
names = st.sampled_from(sorted(hparams_registry.default_hparams("FSAM_SPL_ADM", "PACS"))) | st.text(max_size=12)
given_hparams = st.text(max_size=40) | st.dictionaries(names, values, max_size=4).map(json.dumps)


@bounded
@given(given_hparams, st.sampled_from(list(METHODS)))
def test_hparams(text, algorithm):
    hparams = hparams_registry.default_hparams(algorithm, "PACS")
    specs = hparams_registry.hparams_of(algorithm, "PACS")
    with contextlib.suppress(UserError):
        hparams_registry.override(hparams, hparams_registry.parse(text), algorithm, "PACS")
    for name, value in hparams.items():
        assert specs[name].valid is None or value in specs[name].valid


good = record((0.5, 0.5), (0.4, 0.6), (0.3, 0.7), step_time=0.5, hparams={"lr": 0.1}, provenance={"version": "1"})
failure = {"exit_code": 1, "signal": None, "exception": "e", "stderr": ["e"], "attempts": 1, "time": "t", "job": "j"}
KEYS = [*good, "env3_out_acc", "env-1_in_acc"]
ARGS = [*good["args"], "steps"]
ORIGIN = ["version", "git_commit", "torch", "environments"]

numbers = st.sampled_from([10**400, -(10**400), 10**300, 2**63, 1e308, -1e308, 1.5, 5e-324, -5, -0.0, 3, True])
numbers |= st.sampled_from([float("nan"), float("inf"), float("-inf")])
texts = st.text(st.sampled_from("aé日 \x1b[2J\n\r\0\x07\x7f\x9b\u2028\u202e\ud800\udce9&%{}$<\\\"',_"), max_size=6)
nested = st.sampled_from([20, 60, 300, 900]).map(lambda levels: json.loads("[" * levels + "]" * levels))
lists = st.lists(st.integers(-1, 4) | texts | numbers, max_size=3)
anything = values | numbers | texts | nested | lists


def replaced(one, key, value):
    return {**one, key: value}


def replaced_in(key, name, value):
    return {**good, key: {**good[key], name: value}}


objects = (
    st.builds(replaced, st.just(good), st.sampled_from(KEYS), anything)
    | st.builds(replaced_in, st.just("args"), st.sampled_from(ARGS), anything)
    | st.builds(replaced_in, st.just("provenance"), st.sampled_from(ORIGIN), anything)
    | st.builds(replaced_in, st.sampled_from(["args", "hparams"]), texts, anything)
    | anything
)
torn = st.integers(0, 200).map(lambda end: json.dumps(good).encode()[:end])
lines = st.lists(
    objects.map(lambda one: json.dumps(one).encode()) | torn | st.binary(max_size=30) | st.just(b"[" * 100_000),
    max_size=4,
)
notes = (
    st.builds(replaced, st.just(failure), st.sampled_from(list(failure)) | texts, anything).map(json.dumps)
    | anything.map(json.dumps)
    | st.sampled_from(["", "{", "[" * 100_000])
)


def seen(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def check_command(folder, monkeypatch, *words):
    """Run it as into pipes; returns its exit code and output. It may read, but not change anything."""
    monkeypatch.chdir(folder)
    before = seen(folder)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words])
    assert seen(folder) == before
    printed, told = (stream.buffer.getvalue().decode() for stream in (out, err))
    assert "Traceback" not in told
    assert not [mark for mark in printed + told if unicodedata.category(mark) in {"Cc", "Zl"} and mark != "\n"]
    return code, printed


FLAGS = [[], ["--layout", "paper"], ["--json"], ["--csv"], ["--latex"], ["--latex", "--layout", "paper"], ["--missing"]]
FLAGS += [["--with-published", *flags] for flags in FLAGS[:4]]


@bounded
@given(lines, st.booleans(), st.sampled_from(FLAGS))
def test_records(tmp_path, monkeypatch, lines, whole, flags):
    run = tmp_path / "sweep/run"
    run.mkdir(parents=True, exist_ok=True)
    (run / "results.jsonl").write_bytes(b"\n".join([json.dumps(good).encode()] * whole + lines))
    code, printed = check_command(tmp_path, monkeypatch, "collect_results", "--input_dir", "sweep", *flags)
    assert code == 0 or (code == 2 and not whole and not printed)
    assert "PACS" in printed or "No number: " in printed or not whole


@bounded
@given(lines, notes)
def test_status(tmp_path, monkeypatch, lines, note):
    sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)
    first, second, *_ = sweep.jobs(tmp_path / "sweep")
    for one in (first, second):
        one.output_dir.mkdir(parents=True, exist_ok=True)
    own_step = {**good, "step": 77}  # of a step that comes twice the last counts, which may have no step time
    (first.output_dir / "results.jsonl").write_bytes(b"\n".join([json.dumps(own_step).encode(), *lines]))
    (second.output_dir / "failed.json").write_text(note)
    flags = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "--n_hparams", "1", "--n_trials", "1"]
    flags += ["--single_test_envs", "--output_dir", str(tmp_path / "sweep")]
    code, printed = check_command(tmp_path, monkeypatch, "sweep", "status", *flags)
    assert code == 0
    assert "6 jobs: 0 done, 0 running, " in printed
    assert not re.search(r"-\d+ s|nan|inf ", printed)


@pytest.fixture(scope="module")
def checkpoint_bytes():
    stream = io.BytesIO()
    torch.save({"args": {"seed": 0}, "tensor": torch.arange(40.0), "list": [1, 2.5, None, "x"]}, stream)
    return stream.getvalue()


@bounded
@given(st.data())
def test_checkpoints(tmp_path, checkpoint_bytes, data):
    """Bytes changed, cut or made up."""
    changed = bytearray(checkpoint_bytes[: data.draw(st.integers(0, len(checkpoint_bytes)))])
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6)):
        if changed:
            changed[place % len(changed)] = byte
    path = tmp_path / "model.pkl"
    path.write_bytes(data.draw(st.just(bytes(changed)) | st.binary(max_size=60)))
    with contextlib.suppress(UserError):
        assert load_tensors(path, ["args"])["args"] is not None


class Evil:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('executed').touch()",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, monkeypatch, protocol, packed):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pkl"
    evil = pickle.dumps({"args": Evil()}, protocol=protocol)
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", evil)
            archive.writestr("archive/version", "3\n")
    else:
        path.write_bytes(evil)
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        load_tensors(path, ["args"])
    assert [found.name for found in tmp_path.iterdir()] == ["model.pkl"]
