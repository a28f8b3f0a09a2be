"""A sweep as one HTML file: ``page`` puts it together by the template ``report.html.j2``.

``reading`` finds runs; ``tables``, ``cost``, ``curves``, ``making`` count; ``looks``, ``charts``, ``learning`` draw;
``analyses``, ``flatness``, ``landscape``, ``difficulty`` show what was left in the runs.
"""

from domainbed_adm.report.page import page
from domainbed_adm.report.reading import read

__all__ = ["page", "read"]
