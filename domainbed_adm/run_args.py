"""``RunArgs``: the flags of ``train``, each described once. Loads no torch.

From its fields come the parser of ``train``, the flags that ``sweep launch`` passes on, a job's command line, the
``args`` of a record (DomainBed's names), and what must be equal for two runs to be the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.environment_names import number_or_name, numbers_of
from domainbed_adm.errors import UserError, lookup, unknown_name
from domainbed_adm.loggers import LOGGERS
from domainbed_adm.method.hparams import STEPS, Number

_SHARE, _SEED = Number(0, 1, open_high=True), Number(0, 2**63 - 1, integer=True)
_WORKERS = Number(0, integer=True)
#: In what a run computes its passes.
Precision = Literal["fp32", "bf16", "fp16"]
#: Where training images are augmented.
AugmentOn = Literal["cpu", "device"]
#: Whose statistics BatchNorm normalises by, of a run on several devices.
BatchNorm = Literal["sync", "local"]
_TASKS = ("domain_generalization", "domain_adaptation")
_ABOUT_THREADS = (
    "CPU threads of a run's computations. Results depend on it a little (sums of floats), so that the default, 1, "
    "is the same on every machine and for every --jobs. More pay off for large networks on an idle CPU: a step of "
    "ResNet-18 at 224 px took 0.86 s with 1, 0.48 s with 2; small networks gain nothing, and lose beside others"
)
_ABOUT_TRACE = (
    "score so many training images (256 where no number is given) with every difficulty at each evaluation, "
    "into difficulty.npz; training does not change"
)
_ABOUT_CACHE = (
    "decode images once, into one file beside the data that all runs share (.decoded; PACS takes 2 GB); without it "
    "every step and every evaluation decodes its images anew. Training images whose short side is above 320 px are "
    "kept at 320 px, which the records state"
)
_ABOUT_PRECISION = (
    "of all passes, training's and evaluation's (default fp32). Parameters, losses, scores and the optimizer are in "
    "fp32 always, and so are predict and analyze. fp16 scales losses, and skips a step whose gradient overflows"
)
_ABOUT_TEST_ENVS = "environments held out, by number or name (default 0; of a set for classification all but train)"
_ABOUT_MATCH_PASSES = (
    "train until as many forward and backward passes are spent as METHOD spends in the steps or epochs given: ERM with "
    "SAM takes twice the steps"
)
_ABOUT_COMPILE = (
    "compile the network's passes in training and evaluation by torch.compile, which needs a C++ compiler (on a GPU "
    "Triton too). For long runs on a GPU, not measured yet: compiling takes minutes, and on a CPU ResNet-18 gains 3 % "
    "in fp32, nothing in bf16. Results differ in their last bits"
)
_ABOUT_AUGMENT_ON = (
    "where training images are augmented (default cpu: one by one where they are loaded). device: a batch at a time "
    "where the network is, with other random numbers of the same distribution; images whose short side is above 320 px "
    "are reduced to it first. For GPUs, with --cache: a GPU holds the decoded images where they take at most a quarter "
    "of its free memory. On a CPU it is slower: 5.6 ms against 3.0 an image of 227 px, one thread. Digits are not "
    "augmented"
)
_ABOUT_DOMAINBED = (
    "folder of a DomainBed checkout, whose own algorithms (CORAL, GroupDRO, Mixup, ...) are then known too, with its "
    "hparams (default: DOMAINBED_DIR); its ERM is DomainBed_ERM. list algorithms --domainbed DIR names all"
)
_ABOUT_LOGGER = (
    "log the config, and each evaluation's figures, also to: "
    + "; ".join(f"{card.name} ({card.about})" for card in LOGGERS.values())
    + ". Several may be given; a run that goes on goes on there, and one that fails is left out with a warning"
)
_ABOUT_FROM = "a file of list_top_hparams --out: take the hparams chosen there; --hparams overrides them"
_ABOUT_DEVICE = "cpu, cuda or cuda:1 (default: a GPU where there is one)"
_ABOUT_DEVICES = (
    "train on so many GPUs, where there is none in so many processes on the CPU (default 1): each takes its share of "
    "every minibatch and of every evaluation, and the gradient is averaged. The data, and but for rounding and dropout "
    "the results, are those of one device; so the number may change where a run goes on. --workers are the run's, "
    "--threads each device's"
)
_ABOUT_BATCHNORM = (
    "with --devices: sync, the default, normalises by the whole minibatch, as one device does; local each device's "
    "share by itself, faster, and the running statistics are averaged"
)
#: How a switch is read (present or absent), and a count.
_SWITCH: dict[str, Any] = {"action": "store_true"}
_COUNT: dict[str, Any] = {"type": int, "metavar": "N"}


class _Several(argparse.Action):
    """Words after a flag that may be given again, as a tuple in place of the default."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, (*(() if given is self.default else given), *values))


def _flag(
    default: Any,
    help_text: str,
    valid: Number | None = None,
    identifies: bool = True,
    recorded: bool = True,
    every_job: bool = False,
    **parser: Any,
) -> Any:
    """A field of :class:`RunArgs`.

    Args:
        default: also the value of an older run that does not know the flag.
        help_text: for ``--help``.
        valid: the range of its value, where it is a number that is given.
        identifies: whether runs that differ in it are different runs; False for what says how or where to run.
        recorded: whether it stands in the ``args`` of a record.
        every_job: whether ``sweep launch`` takes it as well and passes it on to every job.
        parser: further arguments of ``argparse.ArgumentParser.add_argument``.
    """
    about = {"help": help_text, "valid": valid, "identifies": identifies, "recorded": recorded, "every_job": every_job}
    return dataclasses.field(default=default, metadata={**about, "parser": parser})


#: A flag that says how to run.
_how = partial(_flag, identifies=False, every_job=True)


@dataclass(frozen=True)
class RunArgs:
    """The flags of one run, DomainBed's and ours.

    Raises:
        UserError: a number is out of its range; the message has the flag, its value and the range. Or ``test_envs``
            has a name, in place of a number, that is no environment's.
    """

    data_dir: str | None = _flag(None, "folder that holds the datasets; not needed for digits", identifies=False)
    dataset: str = _flag("RotatedDigits", "a known name, or a folder in data_dir (default RotatedDigits)")
    algorithm: str = _flag("ERM", "see domainbed-adm list algorithms (default ERM)")
    task: str = _flag("domain_generalization", "default domain_generalization", choices=_TASKS)
    # not part of the identity as text: the hparams that a run trains with are
    hparams: str | None = _flag(None, "JSON object of hparams; see domainbed-adm list hparams", identifies=False)
    hparams_from: str | None = _flag(
        None, _ABOUT_FROM, identifies=False, recorded=False, type=os.path.expanduser, metavar="FILE"
    )
    hparams_seed: int = _flag(0, "random hparams; 0, the default, means the default hparams", _SEED, type=int)
    trial_seed: int = _flag(0, "seeds the splits and random hparams (default 0)", _SEED, type=int)
    seed: int = _flag(0, "seeds everything else (default 0)", _SEED, type=int)
    steps: int | None = _flag(None, "default: the dataset's", STEPS, **_COUNT)
    epochs: int | None = _flag(
        None, "in place of --steps: passes over the smallest source environment's in-split", STEPS, **_COUNT
    )
    checkpoint_freq: int | None = _flag(
        None, "evaluate every so many steps; default: the dataset's", STEPS, every_job=True, **_COUNT
    )
    match_passes: str | None = _flag(None, _ABOUT_MATCH_PASSES, metavar="METHOD")
    test_envs: tuple[int, ...] = _flag((), _ABOUT_TEST_ENVS, type=number_or_name, nargs="+", metavar="ENV")
    precision: Precision = _flag("fp32", _ABOUT_PRECISION, every_job=True, choices=get_args(Precision))
    compile: bool = _flag(False, _ABOUT_COMPILE, every_job=True, **_SWITCH)
    augment_on: AugmentOn = _flag("cpu", _ABOUT_AUGMENT_ON, every_job=True, choices=get_args(AugmentOn))
    batchnorm: BatchNorm = _flag("sync", _ABOUT_BATCHNORM, every_job=True, choices=get_args(BatchNorm))
    output_dir: str = _flag(
        "train_output", "folder of the run (default train_output)", identifies=False, type=os.path.expanduser
    )
    holdout_fraction: float = _flag(0.2, "share of each out-split (default 0.2)", _SHARE, type=float, metavar="X")
    uda_holdout_fraction: float = _flag(0.0, "unlabeled share of test environments (default 0)", _SHARE, type=float)
    skip_model_save: bool = _how(False, "keep no model.pkl", **_SWITCH)
    save_model_every_checkpoint: bool = _how(False, "keep a model_step<step>.pkl at each evaluation", **_SWITCH)
    workers: int | None = _how(
        None,
        "loading processes of a run, at most one per CPU (default: fitting, beside --threads on a CPU)",
        _WORKERS,
        **_COUNT,
    )
    device: str | None = _how(None, _ABOUT_DEVICE, recorded=False, metavar="NAME")
    devices: int = _how(1, _ABOUT_DEVICES, Number(1, 1024, integer=True), **_COUNT)
    threads: int = _how(1, _ABOUT_THREADS, Number(1, 1024, integer=True), **_COUNT)
    cache: bool = _how(False, _ABOUT_CACHE, recorded=False, **_SWITCH)
    cache_dir: str | None = _how(
        None, "folder for the file of --cache, which it implies", recorded=False, type=os.path.expanduser, metavar="DIR"
    )
    checkpoint_every: int | None = _how(
        None, "save a run every so many steps, to go on from (default: each evaluation)", STEPS, **_COUNT
    )
    restart: bool = _flag(False, "begin anew where output_dir holds a run", identifies=False, recorded=False, **_SWITCH)
    trace_difficulty: int | Literal[True] | None = _how(
        None, _ABOUT_TRACE, recorded=False, type=int, metavar="IMAGES", nargs="?", const=True
    )
    domainbed: str | None = _how(None, _ABOUT_DOMAINBED, recorded=False, type=os.path.expanduser, metavar="DIR")
    logger: tuple[str, ...] = _how((), _ABOUT_LOGGER, recorded=False, action=_Several, nargs="+", metavar="NAME")
    tensorboard: bool = _how(False, "the same as --logger tensorboard", recorded=False, **_SWITCH)

    def __post_init__(self) -> None:
        check_flags(vars(self))
        if self.steps and self.epochs:
            raise UserError("--steps and --epochs both say how long to train: give one")
        if self.device and self.devices > 1:
            raise UserError("--device names one device, and --devices asks for several: give one of them")
        chosen = tuple(numbers_of(self.test_envs, self.dataset, self.data_dir))  # names may be given
        object.__setattr__(self, "test_envs", chosen or get_card(self.dataset).test_envs or (0,))
        for name in self.logger:
            lookup(LOGGERS, name, "logger")

    @property
    def loggers(self) -> list[str]:
        """The names of all loggers that are asked for, each once."""
        return list(dict.fromkeys([*self.logger, *["tensorboard"] * self.tensorboard]))

    def recorded(self) -> dict[str, Any]:
        """The ``args`` of a record."""
        values = {name: value for name, value in vars(self).items() if FLAGS[name].metadata["recorded"]}
        return {**values, "test_envs": list(self.test_envs)}


#: The fields of :class:`RunArgs` by name, and the names of those that ``sweep launch`` passes on to every job.
FLAGS = {field.name: field for field in dataclasses.fields(RunArgs)}
EVERY_JOB = tuple(name for name, field in FLAGS.items() if field.metadata["every_job"])


def check_flags(values: Mapping[str, Any]) -> None:
    """Check the numbers among these flags of ``train``, by name; None is none.

    Raises:
        UserError: one is out of its range.
    """
    for name, value in values.items():
        valid = FLAGS[name].metadata["valid"] if name in FLAGS else None
        if valid is not None and value is not None and value not in valid:
            raise UserError(f"--{name} must be {valid}, not {value}")


def add_flags(parser: argparse._ActionsContainer, names: Iterable[str] = tuple(FLAGS), negatable: bool = False) -> None:
    """Add these flags to a parser; ``negatable`` adds ``--no-NAME`` for those that need no value."""
    for name in names:
        field = FLAGS[name]
        options = field.metadata["parser"]
        about = field.metadata["help"].replace("%", "%%")  # argparse fills in what a single one names
        parser.add_argument(f"--{name}", default=field.default, help=about, **options)
        if negatable and (options == _SWITCH or options.get("nargs") == "?"):
            parser.add_argument(
                f"--no-{name}", dest=name, action="store_const", const=field.default, help="which is the default"
            )


def words(values: Mapping[str, Any]) -> list[str]:
    """These flags as words of a command line, by name; what is None or False is left out."""
    command: list[str] = []
    for name, value in sorted(values.items()):
        if isinstance(value, (list, tuple)):
            command += [f"--{name}", *map(str, value)]
        elif value is True:
            command.append(f"--{name}")
        elif value is not None and value is not False:
            # as one word where the value would be read as a flag itself
            command += [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
    return command


def words_of(values: Mapping[str, Any], known: Iterable[str], where: str = "") -> list[str]:
    """Flags with values of Python or YAML as words of a command line: ``hparams`` may be a dict, paths ``Path``.

    Args:
        values: by name; None leaves a flag at its default, and False does not give a switch.
        known: the names that there are.
        where: the values come from, for messages: "run.yaml: ".

    Raises:
        UserError: a name is unknown, or hparams are not made of JSON's types.
    """
    known = list(known)
    for name in values:
        if name not in known:
            raise UserError(where + unknown_name(known, str(name), "flag"))
    given = dict(values)
    if isinstance(given.get("hparams"), Mapping):
        try:
            given["hparams"] = json.dumps(dict(given["hparams"]))
        except TypeError as error:
            raise UserError(f"{where}hparams must be made of JSON's types: {error}") from None
    return words(given)


def identity(args: Mapping[str, Any], hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two runs to be the same run: flags and hyperparameters by name.

    ``args`` are a record's or a model's, of any version: what this one does not know counts as identifying. ``hparams``
    are those that the run trains with.
    """
    flags = {f"--{n}": value for n, value in args.items() if n not in FLAGS or FLAGS[n].metadata["identifies"]}
    return flags | {f"hparam {name}": value for name, value in hparams.items()}


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Name what differs between two identities, "--steps (200 there, 300 here)"; None where nothing does.

    A flag that one of them lacks, as it is older, counts as its default.
    """
    defaults = identity(RunArgs().recorded(), {})
    theirs, ours = defaults | dict(theirs), defaults | dict(ours)
    unlike = [
        f"{name} ({theirs.get(name, 'absent')} there, {ours.get(name, 'absent')} here)"
        for name in sorted(theirs.keys() | ours.keys())
        if name not in theirs or name not in ours or theirs[name] != ours[name]
    ]
    return " ".join(", ".join(unlike).split()) or None
