"""The hparams of the flatness rules, as data. Loads no torch."""

from __future__ import annotations

from domainbed_adm.method.hparams import FLAG, Hparam, LogUniform, Number, OneOf, Uniform

RHO = Hparam("rho", 0.05, Number(0), "radius of the perturbation of the parameters", LogUniform(-2, -0.7))
SAGM_ALPHA = Hparam(
    "sagm_alpha", 1e-3, Number(0), "SAGM's alpha_s, the step against the gradient", LogUniform(-4, -2), "alpha"
)
FSAM_SIGMA = Hparam(
    "fsam_sigma", 1.0, Number(0), "share of the mean gradient F-SAM takes out", Uniform(0.5, 1.0), "sigma"
)
FSAM_LAMBDA = Hparam(
    "fsam_lambda", 0.9, Number(0, 1, open_high=True), "momentum of F-SAM's mean", OneOf((0.6, 0.9, 0.95)), "momentum"
)
ASAM_RHO = Hparam(
    "asam_rho", 0.5, Number(0), "radius of ASAM's perturbation, relative to each weight", LogUniform(-1, 0.3), "rho"
)
ASAM_ETA = Hparam("asam_eta", 0.01, Number(0), "added to the size of each weight, so that 0 moves", argument="eta")
ASAM_BIASES = Hparam(
    "asam_biases", False, FLAG, "relative radius of biases too, not of weights alone", argument="biases"
)
GSAM_ALPHA = Hparam(
    "gsam_alpha", 0.01, Number(0), "share of the gradient's orthogonal part GSAM takes out", LogUniform(-2, 0), "alpha"
)
GSAM_RHO_MIN = Hparam(
    "gsam_rho_min",
    0.5,
    Number(0, 1),
    "share of rho that is left where lr has fallen to 0; between, rho follows lr",
    OneOf((0.0, 0.5, 1.0)),
    "rho_min",
)
FLATNESS_START = Hparam(
    "flatness_start",
    0.0,
    Number(0, 1, open_high=True),
    "share of the run that is steps of the base optimizer alone; the flatness rule begins after it",
)
