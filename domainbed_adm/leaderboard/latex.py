"""Tables as one LaTeX document: booktabs, names escaped, the best of each column in bold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

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

#: Blocks are ((* ... *)) and values ((( ... ))), since braces are LaTeX's own.
_TEMPLATE = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{adjustbox}
\begin{document}
\section{Results}
% domainbed_adm ((( version ))), total records: ((( total )))
((* for sheet in sheets *))

\subsection{((( sheet.title | tex )))}
((* if sheet.has_numbers *))
\begin{center}
\adjustbox{max width=\textwidth}{%
\begin{tabular}{((( 'l' * sheet.label_columns | length )))((( 'c' * sheet.columns | length )))}
\toprule
((( headings(sheet) | join(" & ") ))) \\
\midrule
((* for row in rows(sheet) *))
((( row | join(" & ") ))) \\
((* endfor *))
\bottomrule
\end{tabular}}
\end{center}

((* endif *))
\noindent ((( sheet.note | tex )))
((* endfor *))

\end{document}
"""


def escape(text: str) -> str:
    r"""Text as LaTeX shows it literally: ``SAM_ADM`` becomes ``SAM\_ADM``."""
    escaped = re.sub(r"[\\~^±<&%$#_{}]", lambda match: _SPECIAL[match[0]], text)
    # LaTeX takes [ or * that begins a row as an argument of the line break before it
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def document(sheets: Sequence[Sheet | Listing], total: int) -> str:
    """A whole LaTeX document with one table for each sheet.

    Args:
        sheets: the tables.
        total: number of records they were made from.
    """
    marks = {"block_start_string": "((*", "block_end_string": "*))"}
    marks |= {"variable_start_string": "(((", "variable_end_string": ")))"}
    environment = Environment(**marks, trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True)  # type: ignore[arg-type]
    environment.filters["tex"] = escape
    return environment.from_string(_TEMPLATE).render(
        sheets=sheets, rows=_rows, headings=_headings, total=total, version=__version__
    )


def _headings(sheet: Sheet | Listing) -> list[str]:
    return [rf"\textbf{{{escape(name)}}}" for name in (*sheet.label_columns, *sheet.columns)]


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
