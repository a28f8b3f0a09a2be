"""A sweep as one HTML file: ``page`` fills the template ``report.html.j2`` with what ``read_sweep`` found.

``section_*`` make its sections of ``tables`` and ``charts``.
"""

from domainbed_adm.report.page import page
from domainbed_adm.report.sweep_folder import read_sweep

__all__ = ["page", "read_sweep"]
