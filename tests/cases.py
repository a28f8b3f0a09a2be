"""The case table: one row per part, naming its slow twin. A part without a row fails `test_case_table.py`."""

from tests.reference import curriculum, difficulty, flatness

DIFFICULTIES = {"Loss": difficulty.loss, "GDM": difficulty.gdm, "ADM": difficulty.adm, "Random": difficulty.random}
CURRICULA = {"SPL": curriculum.spl_quantile, "SSPL": curriculum.sspl}
FLATNESS = {None: flatness.plain, "SAM": flatness.sam, "SAGM": flatness.sagm, "FSAM": flatness.fsam}
