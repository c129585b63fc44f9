"""Settings for common pairs, each a small TOML file with the reason for it, and how layers of settings add up.

A file holds a ``description`` and a ``why`` beside the settings; the settings are those of
``RegistrationConfig`` and replace its defaults one by one. Imports nothing heavy.
"""

from semreg.presets.load import Preset, configure, effort_names, layered, load_preset, preset_names, read_toml

__all__ = ["Preset", "configure", "effort_names", "layered", "load_preset", "preset_names", "read_toml"]
