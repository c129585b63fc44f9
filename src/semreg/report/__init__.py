"""Pages and figures that show a registration: one HTML file to read, PNG files for papers."""

from semreg.report.case import Case
from semreg.report.figures import write_figures
from semreg.report.folder import read_case
from semreg.report.page import write_report

__all__ = ["Case", "read_case", "write_figures", "write_report"]
