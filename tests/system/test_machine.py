"""What the machine offers this process is what loaders and launchers go by."""

import os

from domainbed_adm.system.process import cpu_count


def test_cpus_are_those_of_the_affinity_where_there_is_one(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cpu_count() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_count() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count() == 1
