"""``train --config``: flags of a run from a YAML file, or from the records of another run. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams, every_hparam, parse
from domainbed_adm.records import read_runs
from domainbed_adm.run_args import FLAGS, words_of
from domainbed_adm.run_files import RESULTS
from domainbed_adm.system.yaml_files import read_yaml


def config_words(name: str) -> list[str]:
    """The flags that a config sets, as words of a command line.

    Args:
        name: a YAML (or JSON) file that maps flags of ``train`` to values, ``hparams`` to a mapping; or the folder of a
            run: its flags but ``output_dir``, and the hparams that it trained with.

    Raises:
        UserError: it is not there, maps no flags to values, or has one that is unknown.
    """
    path = expanded(name)
    if path.is_dir():
        return words_of(_recorded(path), FLAGS, f"{name}: ")
    if not path.is_file():
        raise UserError(f"no file {name}: --config is a YAML file of flags, or the folder of a run")
    values = read_yaml(path, name)
    if not isinstance(values, dict):
        raise UserError(f"{name} must map flags of train to values, a line each, such as steps: 500")
    return words_of(values, FLAGS, f"{name}: ")


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    runs = read_runs(path) if path.is_file() else []
    if not runs:
        raise UserError(f"{folder} holds no run: no record in {path}")
    run = runs[-1]
    flags = {name: value for name, value in run.args.items() if name in FLAGS and name != "output_dir"}
    chosen = parse(flags["hparams"]) if flags.get("hparams") else {}
    if run.hparams_seed == 0:  # what --hparams_from chose is in no flag
        defaults, specs = default_hparams(run.method, run.dataset), every_hparam(run.dataset)
        given = {name: value for name, value in run.hparams.items() if name in specs and not specs[name].set_by_run}
        chosen |= {name: value for name, value in given.items() if value != defaults.get(name)}
    return {**flags, "hparams": chosen or None}
