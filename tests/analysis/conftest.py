import pytest

from tests.analysis.trained import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The output_dir of a sweep of two runs on RotatedDigits; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    for algorithm in ("ERM", "SAM"):
        train(folder, algorithm, "--save_model_every_checkpoint")
    return folder
