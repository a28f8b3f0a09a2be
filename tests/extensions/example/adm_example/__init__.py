"""An example package that adds one of each kind to domainbed_adm; loads no torch by itself."""

from domainbed_adm.extensions import (
    RHO,
    Card,
    Cost,
    DatasetCard,
    Hparam,
    LauncherCard,
    LauncherFlag,
    Number,
    Uniform,
    add_algorithm,
    add_curriculum,
    add_dataset,
    add_difficulty,
    add_flatness,
    add_launcher,
)


def extend():
    power = Hparam("margin_power", 2.0, Number(0), "power of the loss", Uniform(1, 3), argument="power")
    add_difficulty(Card("Margin", "loss to a power", "-", "adm_example.difficulty:Margin", (power,)))
    cap = Hparam("capped_at", 2.0, Number(0, open_low=True), "largest weight", argument="cap")
    add_curriculum(Card("Capped", "weight by score, up to a cap", "-", "adm_example.curriculum:Capped", (cap,)))
    add_flatness(
        Card("Reverse", "gradient at the other end of the ball", "-", "adm_example.flatness:Reverse", (RHO,), Cost(2))
    )
    share = Hparam("centring", 0.5, Number(0, 1), "share of the mean")
    about = "ERM with each domain's mean taken from its inputs"
    add_algorithm(Card("Centred", about, "-", "adm_example.algorithm:centred_class", (share,)))
    about, path = "bright and dark stripes", "adm_example.dataset:Stripes"
    add_dataset(DatasetCard("Stripes", about, "-", path, ("0", "1"), (3, 28, 28), num_classes=2, n_steps=6))
    add_launcher(LauncherCard("each", "one after another, as in DomainBed", "adm_example.launchers:each"))
    log = LauncherFlag("queue_log", "file that each worker is noted in", kind=str)
    path = "adm_example.launchers:queued"
    add_launcher(LauncherCard("queued", "a queue of processes", path, takes="workers", flags=(log,)))
