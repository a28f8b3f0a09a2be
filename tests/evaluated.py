"""A sweep's folder with hand-written evaluations, whose means are easily told."""

from domainbed_adm.analysis.evaluation_files import EnvironmentFigures, Evaluation, save_evaluation
from domainbed_adm.datasets.cards import CARDS
from tests.runs import record, write


def add_run(root, algorithm, trial, *, dataset="Digits", test_envs=(1,), hparams=0, out=0.9):
    """The folder of a run with one record; its accuracy on the out-splits is ``out``."""
    environments = len(CARDS[dataset].environments)
    accuracies = [(0.99, None if env in test_envs else out) for env in range(environments)]
    about = {"test_envs": test_envs, "dataset": dataset, "algorithm": algorithm, "trial_seed": trial}
    one = record(*accuracies, **about, hparams_seed=hparams)
    return write(root / f"{algorithm}{dataset}{test_envs}{trial}{hparams}", one)


def add_evaluation(folder, dataset, figures, attack=None):
    """``figures`` are (accuracy, NLL, ECE) by environment; of the run that ``add_run`` made in ``folder``."""
    from domainbed_adm.analysis.runs import find_runs

    run = find_runs([folder])[0]
    environments = [
        EnvironmentFigures(name=name, n=449, accuracy=accuracy, nll=nll, ece=ece, fingerprint="0", device="cpu")
        for name, (accuracy, nll, ece) in figures.items()
    ]
    about = {"model_digest": "0", "precision": "fp32", "versions": {}}
    evaluation = Evaluation(
        algorithm=run.algorithm, trained_on=run.dataset, test_envs=run.test_envs, trial_seed=run.trial_seed,
        hparams_seed=run.hparams_seed, dataset=dataset, attack=attack, environments=environments, **about,
    )  # fmt: skip
    return save_evaluation(evaluation, folder)


def corrupted(error_of, dataset="DigitsC"):
    """Figures of every corruption and severity, ``error_of(corruption, severity)`` being its error."""
    names = [name.rpartition("-") for name in CARDS[dataset].environments[1:]]
    return {f"{name}-{severity}": (1 - error_of(name, int(severity)), 1.0, 0.1) for name, _, severity in names}
