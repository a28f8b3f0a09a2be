"""Whatever --hparams, records and checkpoints hold: only the documented errors come out, nothing else is touched."""

import contextlib
import io
import json
import pickle
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainbed_adm import hparams_registry
from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.methods import METHODS
from domainbed_adm.training.checkpoint import load_plain
from tests.runs import record

bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

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


KEYS = ["args", "step", "hparams", "provenance", "loss", "env0_in_acc", "env0_out_acc", "env1_in_acc", "env2_out_acc"]
ARGS = ["dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed", "holdout_fraction", "steps"]
good = record((0.5, 0.5), (0.4, 0.6), (0.3, 0.7))


def replaced(key, value):
    return {**good, key: value}


def replaced_arg(key, value):
    return {**good, "args": {**good["args"], key: value}}


objects = (
    st.builds(replaced, st.sampled_from(KEYS), values)
    | st.builds(replaced_arg, st.sampled_from(ARGS), values | st.lists(st.integers(-1, 4), max_size=3))
    | values
)
lines = st.lists(objects.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=30), max_size=4)


@bounded
@given(lines, st.sampled_from([[], ["--layout", "paper"], ["--json"], ["--csv"], ["--latex"], ["--missing"]]))
def test_records(tmp_path, lines, flags):
    run = tmp_path / "sweep/run"
    run.mkdir(parents=True, exist_ok=True)
    contents = b"\n".join([json.dumps(good).encode(), *lines])
    (run / "results.jsonl").write_bytes(contents)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["collect_results", "--input_dir", str(tmp_path / "sweep"), *flags])
    assert code == 0
    assert "PACS" in out.getvalue()
    assert (run / "results.jsonl").read_bytes() == contents
    assert [path.name for path in tmp_path.rglob("*")] == ["sweep", "run", "results.jsonl"]


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
        assert load_plain(path, ["args"])["args"] is not None


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
        load_plain(path, ["args"])
    assert [found.name for found in tmp_path.iterdir()] == ["model.pkl"]
