"""Known pretrained models by name: what they are, where they come from, and how their files get into a folder.

Only ``fetch`` opens a connection, and only when it is called. Knows nothing of networks at work.
"""

from semreg.features.catalogue.entries import Entry, entries, find
from semreg.features.catalogue.fetch import Fetched, fetch
from semreg.features.catalogue.folders import default_folder, locate
from semreg.features.catalogue.lock import LOCK_FILE

__all__ = ["LOCK_FILE", "Entry", "Fetched", "default_folder", "entries", "fetch", "find", "locate"]
