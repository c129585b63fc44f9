# The names that are imported from here: for type checkers, and read by lazy_loader at import.
from .case import Case as Case
from .figures import FigureOptions as FigureOptions
from .figures import write_figures as write_figures
from .folder import read_case as read_case
from .page import write_report as write_report
