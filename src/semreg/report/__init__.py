"""Pages and figures that show a registration: one HTML file to read, PNG files for papers.

The names of ``__init__.pyi``, each imported when it is first used: the page of a batch needs the templates alone, not
torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
