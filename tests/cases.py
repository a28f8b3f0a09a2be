"""The case table: one row per part, naming its slow twin. A part without a row fails `test_case_table.py`."""

from domainbed_adm.method.grid import METHODS, unnamed_methods
from tests.reference import curriculum, difficulty, flatness

DIFFICULTIES = {"Loss": difficulty.loss, "GDM": difficulty.gdm, "ADM": difficulty.adm, "Random": difficulty.random}
CURRICULA = {"SPL": curriculum.spl_quantile, "SSPL": curriculum.sspl}
FLATNESS = {
    None: flatness.plain,
    "SAM": flatness.sam,
    "SAGM": flatness.sagm,
    "FSAM": flatness.fsam,
    "ASAM": flatness.asam,
    "GSAM": flatness.gsam,
}

#: For tests that train whole runs: of the methods that run only by name each part alone, and with the others once.
TRAINED = {
    name: METHODS[name]
    for name in (*unnamed_methods(), "SPL_Random", "SAM_SSPL_Random", "ASAM", "ASAM_SSPL_ADM", "GSAM", "GSAM_SPL_GDM")
}
