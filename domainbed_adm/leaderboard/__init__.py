"""Records to tables: ``board`` selects and averages, ``sheets`` lays out, the others write text, LaTeX, CSV, JSON."""

from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.sheets import domainbed_sheets, paper_sheet

__all__ = ["Board", "domainbed_sheets", "paper_sheet"]
