"""A sweep as one HTML file: ``page`` puts it together by the template ``report.html.j2``.

``reading`` finds runs; ``tables``, ``cost``, ``curves``, ``making`` count; ``looks``, ``charts``, ``learning`` draw.
"""

from domainbed_adm.report.page import page
from domainbed_adm.report.reading import read

__all__ = ["page", "read"]
