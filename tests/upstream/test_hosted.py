"""Algorithms of the small host in our engine: they train, go on exactly, and are refused what they cannot do."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from domainbed_adm import hparams_registry, upstream
from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import METHODS
from domainbed_adm.registry import get_method, load_checkout
from domainbed_adm.studying.plan import read_plan
from domainbed_adm.sweeping.plan import planned_jobs
from domainbed_adm.training.model_file import load_model, restore_algorithm
from domainbed_adm.upstream.methods import HostMethod
from tests.extending import environment
from tests.runs import read_records
from tests.upstream.conftest import HOST
from tests.upstream.hosting import assert_as_in_the_host, assert_same_run, figures, train, train_killed, weights

#: Algorithms that hold state wherever one can, as DomainBed's do; one that holds an iterator; one that comes to it.
MORE = '''

import collections, itertools, random
import numpy as np

ALGORITHMS += ["Hoarder", "Looper", "LateLooper", "Broken", "Absent"]


class Mean:
    """A plain object."""

    def __init__(self):
        self.data, self.count = {}, 0

    def update(self, name, value):
        self.data[name] = 0.9 * self.data.get(name, torch.zeros_like(value)) + value.detach()
        self.count += 1
        return self.data[name]


class Hoarder(ERM):
    """Holds state everywhere: not that."""

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        self.heads = [nn.Linear(width, num_classes).cuda() for _ in range(num_domains)]
        self.head_optimizers = [torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9) for head in self.heads]
        self.register_buffer("q", torch.Tensor())
        self.queue, self.means = collections.deque(maxlen=3), [Mean(), Mean()]
        self.own_random, self.noise = np.random.RandomState(3), random.Random(4)
        self.torch_random = torch.Generator().manual_seed(5)
        self.table, self.rate = np.ones(3), np.float64(0.5)
        self.scale = torch.ones(1, requires_grad=True)
        self.inner_state = None
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=0)
        self.shift = lambda x: x

    def update(self, minibatches, unlabeled=None):
        if not len(self.q):
            self.q = torch.ones(len(minibatches)).cuda()
        self.inner = networks.Featurizer(minibatches[0][0].shape[1:], self.hparams)
        self.inner_optimizer = torch.optim.Adam(self.inner.parameters(), lr=0.01)
        if self.inner_state is not None:
            self.inner_optimizer.load_state_dict(self.inner_state)
        self.inner.load_state_dict(self.featurizer.state_dict())
        total = 0.0
        for i, (x, y) in enumerate(minibatches):
            features = self.featurizer(x) + self.inner(x)
            logits = self.heads[i](self.shift(features)) * self.scale + self.classifier(features)
            loss = nn.functional.cross_entropy(logits, y) * float(self.rate)
            self.q[i] *= loss.detach().exp()
            total = total + self.q[i].item() * loss + 0.01 * self.means[i % 2].update("f", features.mean(0)).sum()
        total = total + 0.1 * self.own_random.rand() + self.noise.random() * sum(self.queue) * self.table.sum()
        total = total * (1 + torch.rand(1, generator=self.torch_random)[0])
        optimizers = [self.optimizer, self.inner_optimizer, *self.head_optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            self.scale -= 0.01 * self.scale.grad
        self.scale.grad = None
        self.inner_state = self.inner_optimizer.state_dict()
        self.scheduler.step(total.item())
        self.queue.append(total.item() / 10)
        self.table, self.rate = self.table * 0.9, np.float64(self.rate * 0.9)
        self.q /= self.q.sum()
        return {"gap": 1.0, "total_loss": total.item(), "held": float(self.means[0].data["f"].sum())}


class Looper(ERM):
    def __init__(self, *args):
        super().__init__(*args)
        self.rates = itertools.cycle([0.1, 0.2])


class LateLooper(ERM):
    count = 0

    def update(self, *args):
        self.count += 1
        if self.count == 3:
            self.rates = itertools.cycle([0.1, 0.2])
        return super().update(*args)


class Broken(ERM):
    def update(self, minibatches, unlabeled=None):
        return {"loss": self.absent}
'''


@pytest.fixture
def checkout(monkeypatch, copy_of_host):
    """The small host with more algorithms, named by the variable."""
    file = copy_of_host / "domainbed/algorithms.py"
    file.write_text(file.read_text() + MORE)
    monkeypatch.setenv(upstream.VARIABLE, str(copy_of_host))
    return copy_of_host


def fails(capsys, run):
    capsys.readouterr()
    assert run() == 2
    error = capsys.readouterr().err
    assert error.startswith("domainbed-adm: error: ")
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("name", ["Smoothed", "Hoarder", "DomainBed_ERM"])
def test_a_killed_run_ends_as_if_it_had_never_stopped(checkout, tmp_path, monkeypatch, capsys, name):
    assert train(tmp_path / "whole", name) == 0
    train_killed(tmp_path / "parts", monkeypatch, 1, name)
    assert train(tmp_path / "parts", name) == 0
    assert "resumed at step 1" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("averaging", ["ema", "swad"])
def test_averaged_weights_go_on_exactly(checkout, tmp_path, monkeypatch, averaging):
    hparams = json.dumps({"batch_size": 4, "averaging": averaging, "ema_decay": 0.5})
    assert train(tmp_path / "whole", "Hoarder", hparams=hparams) == 0
    train_killed(tmp_path / "parts", monkeypatch, 2, "Hoarder", hparams=hparams)
    assert train(tmp_path / "parts", "Hoarder", hparams=hparams) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert read_records(tmp_path / "whole")[-1]["averaged_weights"] == 1


@pytest.mark.parametrize("name", ["Smoothed", "DomainBed_ERM"])
def test_records_and_weights_are_the_hosts_own(checkout, tmp_path, name):
    host = upstream.register().host
    make = host.algorithms.get_algorithm_class(name.removeprefix("DomainBed_"))
    assert_as_in_the_host(tmp_path, name, make)


def test_erm_stays_ours(checkout, tmp_path):
    assert train(tmp_path, "ERM", hparams='{"batch_size": 4, "cnn_width": 8}') == 0
    assert "cnn_width" in read_records(tmp_path)[0]["hparams"]


def test_tracing_changes_nothing(checkout, tmp_path):
    assert train(tmp_path / "plain", "Hoarder") == 0
    assert train(tmp_path / "traced", "Hoarder", "--trace_difficulty", "8") == 0
    assert figures(tmp_path / "plain") == figures(tmp_path / "traced")
    assert (tmp_path / "traced/difficulty.npz").exists()


def test_what_no_checkpoint_can_keep_is_said_at_the_start(checkout, tmp_path, monkeypatch, capsys):
    train_killed(tmp_path, monkeypatch, 2, "Looper")
    told = capsys.readouterr().err
    assert told.count("Looper holds self.rates, a itertools.cycle, which no checkpoint can keep") == 1
    assert not (tmp_path / "checkpoint.pkl").exists()
    assert train(tmp_path, "Looper") == 0
    assert "resumed" not in capsys.readouterr().out
    assert [record["step"] for record in read_records(tmp_path)] == [0, 2, 3]


def test_what_comes_later_leaves_the_checkpoint_before(checkout, tmp_path, monkeypatch, capsys):
    train_killed(tmp_path / "parts", monkeypatch, 2, "LateLooper")
    assert "LateLooper holds self.rates" in capsys.readouterr().err
    assert train(tmp_path / "parts", "LateLooper") == 0
    assert "resumed at step 1" in capsys.readouterr().out
    assert train(tmp_path / "whole", "LateLooper") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_hparams_are_the_hosts(checkout):
    host = upstream.register().host.hparams_registry
    for dataset, theirs in (("Debug28", "Debug28"), ("RotatedDigits", "RotatedMNIST"), ("PACS", "PACS")):
        for seed in range(3):
            for made, known in (
                (
                    hparams_registry.random_hparams("Smoothed", dataset, seed),
                    host.random_hparams("Smoothed", theirs, seed),
                ),
                (hparams_registry.default_hparams("Smoothed", dataset), host.default_hparams("Smoothed", theirs)),
            ):
                assert {name: made[name] for name in known} == known
                assert not any(isinstance(value, np.generic) for value in made.values())
                assert {"sampling", "averaging"} <= made.keys()
                assert not {"optimizer", "rho", "backbone"} & made.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"smothing": 0.1}', "unknown hparam 'smothing'. Did you mean smoothing?"),
        ('{"smoothing": "much"}', "hparam smoothing must be a number in"),
        ('{"batch_size": 0}', "hparam batch_size must be an integer"),
        ('{"class_balanced": 1}', "hparam class_balanced must be one of false, true"),
    ],
)
def test_hparams_are_checked(checkout, tmp_path, capsys, given, message):
    assert message in fails(capsys, lambda: train(tmp_path / "run", "Smoothed", hparams=given))
    assert not (tmp_path / "run").exists()


def test_one_set_of_hparams_serves_both_kinds(checkout, tmp_path, capsys):
    both = '{"rho": 0.1, "smoothing": 0.2, "batch_size": 4}'
    assert train(tmp_path / "theirs", "Smoothed", hparams=both) == 0
    assert "Smoothed does not read the hparams rho" in capsys.readouterr().err
    assert train(tmp_path / "ours", "SAM", hparams=both[:-1] + ', "cnn_width": 8}') == 0
    assert "SAM does not read the hparams smoothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "bf16"], "--precision bf16 is for our own methods: Smoothed is DomainBed's"),
        (["--compile"], "--compile is for our own methods"),
        (["--match_passes", "SAM"], "how many passes Smoothed spends is not known"),
    ],
)
def test_what_the_host_does_not_know_is_refused(checkout, tmp_path, capsys, flags, message):
    assert message in fails(capsys, lambda: train(tmp_path / "run", "Smoothed", *flags))
    assert not (tmp_path / "run").exists()


def test_errors_of_the_hosts_code_are_one_line(checkout, tmp_path, capsys):
    error = fails(capsys, lambda: train(tmp_path / "run", "Broken"))
    assert "DomainBed's code failed: AttributeError" in error
    assert f"{checkout / 'domainbed/algorithms.py'}, line" in error
    assert "has no domainbed.algorithms.Absent" in fails(capsys, lambda: train(tmp_path / "run", "Absent"))


def test_without_a_checkout_its_algorithms_are_not_known(tmp_path, capsys):
    error = fails(capsys, lambda: train(tmp_path / "run", "CORAL"))
    assert "CORAL is DomainBed's own: name a checkout of it by --domainbed DIR, or DOMAINBED_DIR" in error
    error = fails(capsys, lambda: train(tmp_path / "run", "Smoothed", "--domainbed", str(tmp_path)))
    assert "holds no folder domainbed" in error


def test_a_list_that_cannot_be_read(checkout):
    (checkout / "domainbed/algorithms.py").write_text("ALGORITHMS = [name for name in 'ab']\n")
    with pytest.raises(UserError, match="has no list domainbed.algorithms.ALGORITHMS"):
        load_checkout()


def test_a_model_is_loaded_where_the_checkout_is_named(checkout, tmp_path, monkeypatch, capsys):
    assert train(tmp_path / "run", "Hoarder") == 0
    path = tmp_path / "run/model.pkl"
    algorithm = restore_algorithm(load_model(path))
    assert not algorithm.training
    own = algorithm.state_dict()
    assert own.keys() == {name for name in weights(tmp_path / "run") if not name.startswith("inner.")}
    assert all(torch.equal(value, weights(tmp_path / "run")[name]) for name, value in own.items())
    monkeypatch.delenv(upstream.VARIABLE)
    for name in [name for name, method in METHODS.items() if isinstance(method, HostMethod)]:
        del METHODS[name]
    command = ["evaluate", str(tmp_path / "run"), "--json"]
    assert "unknown algorithm 'Hoarder'" in fails(capsys, lambda: main(command))
    assert main([*command, "--domainbed", str(checkout)]) == 0
    assert json.loads(capsys.readouterr().out)


def test_models_that_the_host_saved_are_loaded(checkout, tmp_path):
    """DomainBed's train script writes less than ours; its layers keep their names."""
    assert train(tmp_path, "Smoothed", steps=1) == 0
    contents = torch.load(tmp_path / "model.pkl", weights_only=True)
    for name in ("classes", "normalization", "model_weights"):
        del contents[name]
    torch.save(contents, tmp_path / "theirs.pkl")
    algorithm = restore_algorithm(load_model(tmp_path / "theirs.pkl"))
    assert all(torch.equal(value, weights(tmp_path)[name]) for name, value in algorithm.state_dict().items())


def test_registering_ours_in_the_host_leaves_its_own(checkout):
    load_checkout()
    host = upstream.register().host
    assert host.algorithms.ALGORITHMS[:2] == ["ERM", "Smoothed"]
    assert host.algorithms.ALGORITHMS.count("Smoothed") == 1
    assert "DomainBed_ERM" not in host.algorithms.ALGORITHMS


def test_another_checkouts_names_take_the_place_of_the_first(checkout):
    load_checkout()
    assert get_method("Hoarder").summary == "Holds state everywhere: not that."
    for name in [name for name in sys.modules if name.partition(".")[0] == "domainbed"]:
        del sys.modules[name]
    load_checkout(str(HOST))
    assert get_method("Smoothed").root == HOST
    with pytest.raises(UserError, match="unknown algorithm 'Hoarder'"):
        get_method("Hoarder")


def test_listings_have_them_behind_ours_and_load_no_torch(checkout):
    check = "import sys; from domainbed_adm.cli import main; sys.exit(main({}) or 9 * ('torch' in sys.modules))"
    command = [sys.executable, "-c", check.format(["list", "algorithms", "--json", "--domainbed", str(HOST)])]
    listed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    assert [row["algorithm"] for row in rows][-2:] == ["Smoothed", "DomainBed_ERM"]
    assert [row["algorithm"] for row in rows][0] == "ERM"
    assert rows[-1]["cost both"] == "-"


def test_listed_hparams(checkout, capsys):
    assert main(["list", "hparams", "--algorithm", "Smoothed", "--json"]) == 0
    rows = {row["hparam"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["smoothing"]["searched"] == "by DomainBed"
    assert rows["smoothing"]["read by"] == "Smoothed"
    assert rows["lr"]["default"] == "0.001 (28 px); 5e-05 (larger)"


SWEEP = [
    "--datasets",
    "Debug28",
    "--algorithms",
    "ERM",
    "Smoothed",
    "--n_hparams",
    "1",
    "--n_trials",
    "1",
    "--steps",
    "2",
]
SWEEP += ["--hparams", '{"batch_size": 4, "cnn_width": 8}', "--single_test_envs", "--skip_confirmation"]


def test_a_sweep_passes_the_checkout_on_to_every_job(checkout, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    assert main(["sweep", "launch", str(folder), *SWEEP, "--plan_only"]) == 0
    monkeypatch.delenv(upstream.VARIABLE)
    assert all(f"--domainbed {checkout}" in job.command for job in planned_jobs(folder))
    place = ["--place", "3/6", "--max_jobs", "1"]  # the fourth job is the first of Smoothed
    assert main(["sweep", "work", str(folder), *place]) == 75
    assert {record["args"]["algorithm"] for record in read_records(folder)} == {"Smoothed"}
    assert main(["collect_results", "--input_dir", str(folder)]) == 0
    assert "Smoothed" in capsys.readouterr().out


def test_a_worker_may_find_the_checkout_elsewhere(checkout, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    assert main(["sweep", "launch", str(folder), *SWEEP, "--plan_only"]) == 0
    moved = checkout.rename(tmp_path / "moved")
    monkeypatch.delenv(upstream.VARIABLE)
    for name in [name for name, method in METHODS.items() if isinstance(method, HostMethod)]:
        del METHODS[name]
    for name in [name for name in sys.modules if name.partition(".")[0] == "domainbed"]:
        del sys.modules[name]
    place = ["--place", "3/6", "--max_jobs", "1"]
    assert f"{checkout} is no folder" in fails(capsys, lambda: main(["sweep", "work", str(folder), *place]))
    assert main(["sweep", "work", str(folder), *place, "--domainbed", str(moved)]) == 75


def test_a_sweep_of_unknown_hparams_starts_nothing(checkout, tmp_path, capsys):
    flags = [*SWEEP, "--hparams", '{"smothing": 1}']
    assert "unknown hparam 'smothing'" in fails(capsys, lambda: main(["sweep", "launch", str(tmp_path / "s"), *flags]))
    assert not (tmp_path / "s").exists()


def test_the_cost_of_a_sweep_leaves_them_out(checkout, tmp_path, capsys):
    assert main(["sweep", "launch", str(tmp_path / "s"), *SWEEP, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "Without Smoothed: DomainBed's algorithms do not say how many passes they spend" in out
    assert "nan" not in out
    assert not (tmp_path / "s").exists()


def test_the_jobs_of_a_study_know_the_checkout(checkout, tmp_path):
    plan = {"datasets": ["Debug28"], "smallest_difference": 1.0, "arms": {"erm": {"algorithm": "ERM"}}}
    plan["arms"]["theirs"] = {"algorithm": "Smoothed"}
    plan["primary"] = {"arm": "theirs", "baseline": "erm"}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    read = read_plan(tmp_path / "plan.yaml")
    assert math.isnan(read.passes("theirs"))
    assert all(job.flags["domainbed"] == str(checkout) for job in read.jobs(tmp_path)["theirs"])
