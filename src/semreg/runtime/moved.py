"""Where moved public names are now: an old one is answered with the line that replaces it. Imports nothing."""

NAMES = {
    name: home
    for home, names in (
        (
            "config",
            "AlignConfig CoarseConfig FeatureConfig IntensityConfig ModelConfig RefineConfig UncertaintyConfig",
        ),
        (
            "errors",
            "ConfigError DeviceError DivergedError GeometryError ImageError ModelContractError ModelError OutputError",
        ),
        ("errors", "ModelNotFoundError"),
        ("core.consistency", "Inverse inverse_consistency invert"),
        ("core.fields", "Layer"),
        ("features.contract", "Normalisation"),
        ("io.bridge", "LoadedImage"),
        ("io.files", "OutputFolder"),
        ("quality", "Evaluation EvaluationConfig Evidence Verdict"),
        ("report", "Case"),
        ("runtime.events", "Step"),
    )
    for name in names.split()
}
"""Old public name → the module that has it."""
RENAMED = {"GateConfig": "config.CheckConfig"}
"""Old public name → module and new name."""


def sentence(name: str) -> str | None:
    """What takes the place of the public ``name``; None for what has never been."""
    if name not in NAMES and name not in RENAMED:
        return None
    module, _, new = RENAMED.get(name, f"{NAMES.get(name)}.{name}").rpartition(".")
    return f"semreg.{name} has moved: from semreg.{module} import {new}"
