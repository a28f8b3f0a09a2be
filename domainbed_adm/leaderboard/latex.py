"""Tables as one LaTeX document: booktabs, names escaped, the best of each column in bold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from domainbed_adm import __version__
from domainbed_adm.leaderboard.sheets import Listing, Sheet
from domainbed_adm.leaderboard.text import written

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}

_START = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{adjustbox}
\begin{document}
\section{Results}
"""


def escape(text: str) -> str:
    r"""Text as LaTeX shows it literally: ``SAM_ADM`` becomes ``SAM\_ADM``."""
    escaped = re.sub(r"[\\~^±<&%$#_{}]", lambda match: _SPECIAL[match[0]], text)
    # LaTeX takes [ or * that begins a row as an argument of the line break before it
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def document(sheets: Sequence[Sheet | Listing], total: int) -> str:
    """A whole LaTeX document with one table for each sheet, or its note alone where it has no number.

    Args:
        sheets: the tables.
        total: number of records they were made from.
    """
    about = f"% domainbed_adm {__version__}, total records: {total}\n"
    return "".join([_START, about, *map(_section, sheets), "\n\\end{document}\n"])


def _section(sheet: Sheet | Listing) -> str:
    headings = [rf"\textbf{{{escape(name)}}}" for name in (*sheet.label_columns, *sheet.columns)]
    table = [
        r"\begin{center}",
        r"\adjustbox{max width=\textwidth}{%",
        rf"\begin{{tabular}}{{{'l' * len(sheet.label_columns)}{'c' * len(sheet.columns)}}}",
        r"\toprule",
        *[rf"{' & '.join(headings)} \\", r"\midrule"],
        *[rf"{' & '.join(row)} \\" for row in _rows(sheet)],
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{center}",
        "",
    ]
    title, note = rf"\subsection{{{escape(sheet.title)}}}", rf"\noindent {escape(sheet.note)}"
    return "\n".join(["", title, *(table if sheet.has_numbers else []), note, ""])


def _rows(sheet: Sheet | Listing) -> list[list[str]]:
    if isinstance(sheet, Listing):
        return [list(map(escape, row)) for row in sheet.rows]
    best = sheet.best()
    rows = []
    for i, row in enumerate(sheet.rows):
        cells = [written(entry, sheet.digits, r" $\pm$ ") for entry in row.entries]
        numbers = [rf"\textbf{{{cell}}}" if (i, j) in best else cell for j, cell in enumerate(cells)]
        rows.append([*map(escape, row.labels), *numbers])
    return rows
