"""Wrapper of Snakemake for ``semreg register``: one pair, the outputs that the rule names, all of them or none."""

import shlex
import shutil
import tempfile
from pathlib import Path

from snakemake.shell import shell

OUTPUTS = {
    "warped": "warped.nii.gz", "transform": "transform.h5", "field": "field.nii.gz", "inverse": "inverse.h5",
    "jacobian": "jacobian.nii.gz", "uncertainty": "uncertainty.nii.gz", "record": "record.json",
    "config": "config.toml", "report": "report.html",
}  # fmt: skip
"""Names of outputs of a rule, and the files of a result."""
INPUTS = {
    "fixed_mask": "--fixed-mask", "moving_mask": "--moving-mask", "initial": "--initial", "config": "--config",
    "stiffness": "--stiffness", "models": "--models",
}  # fmt: skip
"""Names of further inputs of a rule, and their flags."""
WANTED = {"inverse": "--inverse", "jacobian": "--jacobian", "uncertainty": "--uncertainty"}
"""Outputs that need a flag."""

named_in, named_out = set(snakemake.input.keys()), set(snakemake.output.keys())
unknown = sorted(named_out - set(OUTPUTS))
if unknown or not named_out:
    raise ValueError(f"expected outputs with names of {', '.join(OUTPUTS)}, got {', '.join(unknown) or 'none'}")
given = [word for name in INPUTS if name in named_in for word in (INPUTS[name], snakemake.input[name])]
wanted = [WANTED[name] for name in WANTED if name in named_out]
wanted += [] if "report" in named_out else ["--no-report"]
extra = snakemake.params.get("extra", "")
log = f"> {shlex.quote(str(snakemake.log[0]))} 2>&1" if snakemake.log else ""

with tempfile.TemporaryDirectory(dir=Path(snakemake.output[0]).parent, prefix=".semreg-") as folder:
    shell(
        "semreg register {snakemake.input.fixed:q} {snakemake.input.moving:q} --output {folder:q} {given:q} {wanted}"
        " --threads {snakemake.threads} {extra} {log}"
    )
    for name, place in snakemake.output.items():
        shutil.move(Path(folder) / OUTPUTS[name], place)
