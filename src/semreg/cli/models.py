"""``semreg models``: which networks are known, what they are, how their files are fetched, and what a file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semreg.cli.common import (
    MODEL_ADVICE,
    Answer,
    Device,
    Folders,
    JsonMessages,
    Layers,
    Spec,
    parse_layers,
    print_json,
)
from semreg.cli.grouping import grouped
from semreg.cli.panels import SectionedCommand, argument, flag
from semreg.runtime.terminal import Download, show_rows, show_table

if TYPE_CHECKING:
    from semreg.features.catalogue import Entry
    from semreg.features.contract import ModelSpec
    from semreg.features.inspection import Inspection

app = typer.Typer(help="List, describe, fetch and inspect pretrained networks.", no_args_is_help=True)


@app.command("list", cls=SectionedCommand)
@grouped
def list_command(
    everything: Annotated[bool, flag("Also files of earlier layouts of the zoo.", None, "--all")] = False,
    models: Folders = (),
    *,
    messages: Answer,
) -> None:
    """List the known models: name, dimension, licence, whether the file is there, and what for."""
    with messages.spoken():
        from semreg.features.catalogue import entries
        from semreg.features.descriptors import DESCRIPTORS

        known = [entry for entry in entries() if everything or not entry.earlier]
        rows = [described(entry, models) for entry in known]
        if messages.as_json:
            print_json(rows)
            return
        built_in = [[name, "2-D, 3-D", "", "built in", row.use] for name, row in DESCRIPTORS.rows.items()]
        table = [
            [row.name, f"{row.dimension}-D", row.licence, "fetched" if row.path else "no", row.use] for row in rows
        ]
        show_table(["name", "dimension", "licence", "file", "what for"], built_in + table)


@app.command("show", cls=SectionedCommand)
@grouped
def show_command(
    name: Annotated[str, argument("Name from semreg models list, or a file.", "NAME|FILE")],
    models: Folders = (),
    *,
    messages: Answer,
) -> None:
    """Print the description of a model, as the TOML file that may lie beside it: model.toml for model.pt."""
    with messages.spoken():
        from semreg.features.catalogue import find
        from semreg.features.descriptors import DESCRIPTORS
        from semreg.features.models import describe_model, is_file_name
        from semreg.runtime.settings import to_toml

        if name in DESCRIPTORS:
            use = DESCRIPTORS.rows[name].use
            if messages.as_json:
                print_json({"name": name, "use": use, "built_in": True})
            else:
                typer.echo(f"# name: {name}\n# use: {use}\n# built_in: True")
            return
        facts = {"path": str(existing(Path(name)))} if is_file_name(name) else vars(described(find(name), models))
        spec = describe_model(name)
        if messages.as_json:
            print_json(facts | {"spec": spec})
            return
        for key, value in facts.items():
            typer.echo(f"# {key}: {in_comment(value)}")
        typer.echo(to_toml(spec), nl=False)


@app.command("fetch", cls=SectionedCommand)
@grouped
def fetch_command(
    *,
    name: Annotated[str, argument("Name from semreg models list.", "NAME")],
    folder: Annotated[Path | None, flag("Where to; the default is ~/.cache/semreg/models.", "FOLDER")] = None,
    mirror: Annotated[str | None, flag("Address to ask in place of https://huggingface.co.", "URL")] = None,
    revision: Annotated[str | None, flag("Commit, branch or tag; else the catalogue's.", "NAME")] = None,
    messages: JsonMessages,
) -> None:
    """Fetch the file of a model, once, and print where it is, its SHA-256 and the revision it is from."""
    with messages.spoken():
        from semreg.features.catalogue import default_folder, fetch, find

        place = default_folder() if folder is None else folder
        with Download(name, quiet=messages.quiet or messages.as_json) as progress:
            got = fetch(name, place, mirror=mirror, revision=revision, on_progress=progress)
        spec = find(name).spec
        if messages.as_json:
            print_json(
                {
                    "name": spec.name,
                    "path": str(got.path),
                    "sha256": got.sha256,
                    "revision": got.revision,
                    "transferred": got.transferred,
                    "licence": spec.licence,
                }
            )
        elif not messages.quiet:
            rows = [("path", str(got.path)), ("sha256", got.sha256), ("revision", got.revision)]
            show_rows([*rows, ("licence", spec.licence)], "" if got.transferred else "it was there already")


@app.command("inspect", cls=SectionedCommand)
@grouped
def inspect_command(
    model: Annotated[str, argument("File of a network, or a name from semreg models list.", "FILE|NAME")],
    layers: Layers = None,
    device: Device = "auto",
    spec: Spec = (),
    models: Folders = (),
    *,
    messages: Answer,
) -> None:
    """Run a network on noise and say what it is: outputs, receptive field, sizes it takes, memory it needs."""
    with messages.spoken(MODEL_ADVICE):
        from semreg.features import inference
        from semreg.features.inspection import inspect_network
        from semreg.features.trial import try_model
        from semreg.runtime.memory import return_freed_memory

        return_freed_memory()  # what is kept for reuse would be taken for what the network needs
        options = inference.Options(layers=parse_layers(layers), spec=spec, device=device, folders=models)
        try_model(model, spec)
        network, place = inference.load_checked(model, options)
        found = inspect_network(network, place)
        path = inference.file_of(model, options.folders)
        if messages.as_json:
            print_json(found.to_dict() | {"path": str(path)})
        else:
            show_rows([("file", str(path)), *rows_of(found)])


@dataclass(frozen=True)
class ModelFacts:
    """What the catalogue knows of a model, in words."""

    name: str
    use: str
    dimension: int
    licence: str
    source: str
    file: str
    unknown: tuple[str, ...]
    path: str | None


def described(entry: Entry, folders: Sequence[Path]) -> ModelFacts:
    """What the catalogue knows of a model, and where its file is, None if nowhere."""
    from semreg.features.catalogue import default_folder

    places = [
        place
        for folder in [*folders, default_folder()]
        for place in (folder / entry.path, folder / Path(entry.path).name)
    ]
    path = next((str(place) for place in places if place.is_file()), None)
    return ModelFacts(
        name=entry.name,
        use=entry.use,
        dimension=entry.spec.dimension,
        licence=entry.spec.licence,
        source=entry.spec.source,
        file=f"{entry.path} of {entry.repository} at {entry.revision or 'main'}",
        unknown=tuple(entry.unknown),
        path=path,
    )


def in_comment(value: Any) -> str:
    """A fact of the catalogue in words."""
    if isinstance(value, tuple):
        return "; ".join(value) or "nothing"
    return "not here" if value is None else str(value)


def existing(path: Path) -> Path:
    """The path of a file that is there (ModelNotFoundError)."""
    from semreg.errors import ModelNotFoundError
    from semreg.io.ordinary_file import check_file

    return check_file(path, "the file of a model", ModelNotFoundError)


def rows_of(found: Inspection) -> list[tuple[str, str]]:
    """Names and values of what was found."""
    rows = [
        ("kind", found.kind),
        ("parameters", "unknown" if found.parameters is None else f"{found.parameters:,}"),
        ("sha256", found.sha256 or "unknown"),
    ]
    for number, output in enumerate(found.outputs):
        place = f"stride {per_axis(output.stride)}, first sample at voxel {per_axis(output.offset)}"
        rows.append((f"output {number}", f"{output.channels} channels, size {per_axis(output.size)}, {place}"))
    reach = per_axis(["the whole image" if n is None else f"± {n} voxels" for n in found.receptive_field])
    tiles = "" if found.tile_invariant else "; not tile-invariant"
    rows.append(("receptive field", f"{reach} ({found.receptive_field_is}{tiles})"))
    size = "any multiple of " + per_axis(found.multiple)
    rows.append(("input size", size if found.fixed_size is None else f"{per_axis(found.fixed_size)} only"))
    rows.append(("memory", f"{found.bytes_per_voxel:.4g} bytes a voxel and {found.bytes_fixed / 1e6:.3g} MB"))
    rows += [(f"memory for {size}", f"{amount / 1e9:.3g} GB") for size, amount in found.patch_bytes.items()]
    return [*rows, ("description", in_words(found.spec))]


def in_words(spec: ModelSpec) -> str:
    """What a description says beside its defaults, and for what kind of input."""
    from semreg.runtime.settings import to_dict

    usual = to_dict(type(spec)())
    said = to_dict(spec).items()
    return ", ".join(f"{n}={value}" for n, value in said if value != usual[n] or n in ("dimension", "channels"))


def per_axis(values: Any) -> str:
    """One value if all axes have the same, else one an axis."""
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return words[0] if len(set(words)) == 1 else " × ".join(words)
