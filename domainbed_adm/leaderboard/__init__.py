"""Records to tables: ``board`` averages, ``layouts`` writes text, LaTeX, CSV; paired comparisons, published numbers."""

from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.layouts import domainbed_sheets
from domainbed_adm.leaderboard.paper import paper_sheets

__all__ = ["Board", "domainbed_sheets", "paper_sheets"]
