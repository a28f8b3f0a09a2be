"""What the machine offers this process is what loaders, launchers and checks go by."""

import math
import os

import pytest

from domainbed_adm.system import machine
from domainbed_adm.system.machine import cpu_count

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_cpus_are_those_of_the_affinity_where_there_is_one(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cpu_count() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_count() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count() == 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, PHYSICAL), ({"a/b": "1000\n", "a": "max\n"}, 1000), ({"a/b": "max", "a": "500", ".": f"{2**70}"}, 500)],
)
def test_memory_is_the_machines_or_what_its_control_groups_leave(tmp_path, monkeypatch, limits, expected):
    group = tmp_path / "cgroup"
    group.write_text("1:name=systemd:/x\n0::/a/b\n")
    for folder, limit in limits.items():
        (tmp_path / "groups" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / folder / "memory.max").write_text(limit)
    monkeypatch.setattr(machine, "_GROUP", group)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    assert machine.memory() == expected


def test_memory_that_the_system_does_not_tell_is_without_end(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert machine.memory() == math.inf
