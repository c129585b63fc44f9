"""Pages and figures that show a registration: one HTML file to read, PNG files for papers."""

from semreg.reports.case import Case
from semreg.reports.figures import write_figures
from semreg.reports.page import write_report

__all__ = ["Case", "write_figures", "write_report"]
