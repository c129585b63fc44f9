#!/usr/bin/env python-real
"""A registration as a command-line module of Slicer: ``semreg slicer`` in Slicer's own Python."""

import sys
import sysconfig
from pathlib import Path

# Where the module semreg installs it: see packages_folder of SemRegLib, which lies elsewhere in an installed extension.
PACKAGES = Path(sysconfig.get_paths()["purelib"]).parent / "semreg-packages"

if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGES))
    try:
        from semreg.cli import main
    except ImportError as error:
        sys.exit(
            f"error: expected semreg in Slicer's Python, got: {error}; open the module semreg of the category "
            "Registration and let it install semreg, or use that module with another Python"
        )
    main(["slicer", *sys.argv[1:]])
