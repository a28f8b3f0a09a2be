"""Hypothesis with the same examples in every run."""

from hypothesis import HealthCheck, settings


def repeatable(max_examples: int) -> settings:
    """So many examples, drawn alike each time, kept in no folder, however long one takes."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
