"""What the machine offers this process is what loaders and launchers go by."""

import os

from domainbed_adm.system.process import cpu_count


def test_cpus_are_those_of_the_affinity_where_there_is_one(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cpu_count() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_count() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count() == 1


def test_a_job_of_slurm_has_the_cpus_that_it_was_given(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for given, count in (("3", 3), ("64", 8), ("0", 1), ("", 8), ("many", 8)):
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
        assert cpu_count() == count
