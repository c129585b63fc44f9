"""Promises of settings: they survive TOML, and what is wrong is refused by name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semreg.config import RegistrationConfig
from semreg.errors import ConfigError
from semreg.runtime.settings import from_dict, from_toml, names, override, to_dict, to_toml


@dataclass(frozen=True, kw_only=True)
class Refine:
    """Nested settings with every type there is."""

    iterations: int = 80
    step_mm: float = 0.5
    levels: tuple[float, ...] = (4.0, 2.0)
    window: tuple[tuple[int, int], ...] = ((4, 3), (2, 1))
    distance: Literal["l2", "ncc"] = "l2"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigError(f"expected at least one iteration, got {self.iterations}")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of several tables."""

    name: str = "part"
    weight: tuple[float, ...] = (1.0,)
    layers: tuple[int, ...] | None = None
    spec: tuple[str, ...] = ()
    distance: tuple[Literal["l1", "l2"], ...] = ()
    inner: Refine = field(default_factory=Refine)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a test."""

    name: str = "plain"
    seed: int = 0
    background: float | None = None
    masked: bool = False
    parts: tuple[Part, ...] = (Part(),)
    refine: Refine = field(default_factory=Refine)


words = st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(lambda text: text != "none")


@given(
    st.builds(
        Settings,
        name=words,
        seed=st.integers(-(2**40), 2**40),
        background=st.none() | st.floats(allow_nan=False),
        masked=st.booleans(),
        parts=st.lists(
            st.builds(
                Part,
                name=words,
                weight=st.lists(st.floats(allow_nan=False)).map(tuple),
                layers=st.none() | st.lists(st.integers()).map(tuple),
                spec=st.lists(words).map(tuple),
                inner=st.builds(Refine, iterations=st.integers(1, 10**6)),
            ),
            max_size=3,
        ).map(tuple),
        refine=st.builds(
            Refine,
            iterations=st.integers(1, 10**6),
            step_mm=st.floats(allow_nan=False),
            levels=st.lists(st.floats(allow_nan=False)).map(tuple),
            window=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))).map(tuple),
            distance=st.sampled_from(("l2", "ncc")),
        ),
    )
)
def test_settings_survive_toml_and_dict(settings):
    """Whatever the values, TOML text and a plain dict give an equal object back."""
    assert from_toml(Settings, to_toml(settings)) == settings
    assert from_dict(Settings, to_dict(settings)) == settings


def test_default_configuration_survives_toml(tmp_path):
    """The real configuration can be written to a file, read back and is the same."""
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(RegistrationConfig()), encoding="utf-8")
    assert from_toml(RegistrationConfig, path) == RegistrationConfig()
    assert from_dict(RegistrationConfig, to_dict(RegistrationConfig())) == RegistrationConfig()


def test_every_setting_of_the_configuration_can_be_set_by_name():
    """Each dotted name takes its own value written as TOML: nothing is out of reach of --set."""
    config = RegistrationConfig()
    for name in names(RegistrationConfig):
        value = config
        for part in name.split("."):
            value = getattr(value[0] if isinstance(value, tuple) else value, part)
        line = to_toml(_single(value)).partition("=")[2].strip()
        assert override(config, f"{name}={line}") == config


def _single(value):
    @dataclass(frozen=True, kw_only=True)
    class Single:
        value: object = None

    return Single(value=value)


def test_configuration_is_frozen_and_typed():
    """Settings and all they hold are frozen, and no setting has a type that TOML cannot hold."""
    pending = [RegistrationConfig]
    while pending:
        cls = pending.pop()
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert all(item.kw_only for item in fields(cls))
        hints = get_type_hints(cls)
        inner = [argument for hint in hints.values() for argument in (hint, *get_args(hint))]
        pending += [hint for hint in inner if isinstance(hint, type) and is_dataclass(hint)]


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("refine.iterations=40", Settings(refine=Refine(iterations=40))),
        (" refine.step_mm = 1 ", Settings(refine=Refine(step_mm=1.0))),
        ("refine.levels=[8, 4.5]", Settings(refine=Refine(levels=(8.0, 4.5)))),
        ("refine.levels=8,4,2", Settings(refine=Refine(levels=(8.0, 4.0, 2.0)))),
        ("refine.window=[[1, 2]]", Settings(refine=Refine(window=((1, 2),)))),
        ("refine.distance=ncc", Settings(refine=Refine(distance="ncc"))),
        ('refine.distance="ncc"', Settings(refine=Refine(distance="ncc"))),
        ("background=-1024", Settings(background=-1024.0)),
        ("background=none", Settings()),
        ("masked=true", Settings(masked=True)),
        ("name=a b=c", Settings(name="a b=c")),
        ("refine.levels=3", Settings(refine=Refine(levels=(3.0,)))),
        ("parts.weight=2", Settings(parts=(Part(weight=(2.0,)),))),
        ("parts.0.weight=2,1", Settings(parts=(Part(weight=(2.0, 1.0)),))),
        ("parts.layers=-1", Settings(parts=(Part(layers=(-1,)),))),
        ("parts.layers=none", Settings()),
        ("parts.spec=axes=LIA", Settings(parts=(Part(spec=("axes=LIA",)),))),
        ("parts.spec=axes=LIA, patch=[9,8,7]", Settings(parts=(Part(spec=("axes=LIA", "patch=[9,8,7]")),))),
        ("parts.spec=", Settings()),
        ("parts.0.distance=l2,l1", Settings(parts=(Part(distance=("l2", "l1")),))),
        ("parts.0.inner.iterations=7", Settings(parts=(Part(inner=Refine(iterations=7)),))),
    ],
)
def test_override_sets_one_value(assignment, expected):
    """A value is written as in TOML, words without quotes and lists without brackets, and nothing else changes."""
    assert override(Settings(), assignment) == expected


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("refine.iteration=40", "did you mean 'refine.iterations'?"),
        ("iterations=40", "did you mean 'refine.iterations'?"),
        ("sed=1", "did you mean 'seed'?"),
        ("refine=1", "the section refine: name one of refine.iterations, refine.step_mm"),
        ("refine.iterations", "expected a setting as name=value"),
        ("=1", "expected a setting as name=value"),
        ("refine.iterations=many", "expected refine.iterations to be a whole number, got 'many'"),
        ("refine.iterations=1.5", "expected refine.iterations to be a whole number, got 1.5"),
        ("refine.iterations=true", "expected refine.iterations to be a whole number, got True"),
        ("refine.iterations=0", "expected at least one iteration, got 0"),
        ("refine.step_mm=far", "expected refine.step_mm to be a number, got 'far'"),
        ("refine.levels=far", "expected refine.levels to be a number, got 'far'"),
        ("refine.levels=[1, true]", "expected refine.levels to be a number, got True"),
        ("refine.window=[[1, 2, 3]]", "expected 2 values for refine.window, got 3"),
        ("refine.distance=l3", "expected refine.distance to be one of 'l2', 'ncc', got 'l3'"),
        ("background=dark", "expected background to be a number or none, got 'dark'"),
        ("masked=1", "expected masked to be true or false, got 1"),
        ("parts.wieght=2", "got 'parts.wieght': did you mean 'parts.weight'?"),
        ("parts.0.wieght=2", "got 'parts.0.wieght': did you mean 'parts.0.weight'?"),
        ("parts.1.weight=2", "expected parts.0.weight, got 'parts.1.weight'"),
        ("parts=2", "the section parts: name one of parts.name, parts.weight"),
        ("parts.0=2", "the section parts.0: name one of parts.name, parts.weight"),
        ("parts.0.0.weight=2", "expected a number only after a list of tables, got 'parts.0.0.weight'"),
        ("refine.0.iterations=2", "expected a number only after a list of tables, got 'refine.0.iterations'"),
        ("refine.levels.0=3", "expected a number only after a list of tables, got 'refine.levels.0'"),
        ("parts.weight=far", "expected parts.weight to be a number, got 'far'"),
        ("parts.0.inner.iterations=0", "expected at least one iteration, got 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(assignment, sentence):
    """One sentence says which setting, what was expected and what came; an unknown name gets the nearest one."""
    with pytest.raises(ConfigError) as caught:
        override(Settings(), assignment)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[refine]\niteratons = 3", "did you mean 'refine.iterations'?"),
        ("[refin]\niterations = 3", "did you mean 'refine'?"),
        ("refine = 3", "expected refine to be a table of settings, got 3"),
        ("seed = ", "expected settings in TOML, got:"),
        ("[refine]\niterations = -1", "expected at least one iteration, got -1"),
        ("parts = 3", "expected parts to be a list of tables, [[parts]] in TOML, got 3"),
        ("[parts]\nname = 'a'", "expected parts to be a list of tables, [[parts]] in TOML, got {'name': 'a'}"),
        ("[[parts]]\nwieght = 2", "got 'parts.wieght': did you mean 'parts.weight'?"),
        ("[[parts]]\n[[parts]]\nweight = ['x']", "expected parts.1.weight to be a number, got 'x'"),
        ("[[parts]]\n[parts.inner]\niterations = 0", "expected at least one iteration, got 0"),
    ],
)
def test_wrong_toml_is_refused(text, sentence):
    """A file with a mistake is refused as a whole, with the name of the mistake."""
    with pytest.raises(ConfigError) as caught:
        from_toml(Settings, text)
    assert sentence in str(caught.value)


def test_a_table_of_settings_without_a_value_that_it_needs() -> None:
    """A table that has to say something and does not is refused by its name."""
    from semreg.features.catalogue.lock import Lock

    with pytest.raises(ConfigError, match="expected all values without a default in files"):
        from_dict(Lock, {"files": [{"name": "a"}]})
    assert from_dict(RegistrationConfig, {}) == RegistrationConfig()


def test_missing_settings_file_is_named(tmp_path):
    """A file that is not there is a ConfigError that names it."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: there is no such file"):
        from_toml(Settings, tmp_path / "nowhere.toml")


def test_numbers_that_toml_writes_in_words_survive():
    """Infinity and not-a-number are TOML too."""
    settings = from_toml(Settings, to_toml(Settings(background=math.nan, refine=Refine(step_mm=-math.inf))))
    assert math.isnan(settings.background)
    assert settings.refine.step_mm == -math.inf


def test_several_tables_are_numbered():
    """A setting of one of several tables is named by its number; without a number it is refused, none is guessed."""
    settings = from_toml(Settings, "[[parts]]\nname = 'a'\n[[parts]]\nname = 'b'\nlayers = [1]")
    assert settings == Settings(parts=(Part(name="a"), Part(name="b", layers=(1,))))
    assert override(settings, "parts.1.weight=2").parts == (Part(name="a"), Part(name="b", layers=(1,), weight=(2.0,)))
    with pytest.raises(ConfigError, match=r"expected parts\.0\.weight or parts\.1\.weight, got 'parts\.weight'"):
        override(settings, "parts.weight=2")
    with pytest.raises(ConfigError, match=r"expected a table \[\[parts\]\]"):
        override(Settings(parts=()), "parts.weight=2")


def test_tables_are_listed_and_written_as_toml_writes_them():
    """``names`` has each setting of a table once; text has one ``[[parts]]`` for each table."""
    assert "parts.weight" in names(Settings)
    assert "parts" not in names(Settings)
    assert to_toml(Settings(parts=(Part(), Part()))).count('[[parts]]\nname = "part"') == 2


@pytest.mark.parametrize(
    "assignment",
    [
        "align.rotation_deg=200", "align.minimum_overlap=0", "align.spacing_mm=-1", "align.levels=9",
        "align.iterations=0", "features.spacing_mm=0",
        "features.coarseness=0", "features.pooling=9", "coarse.reach_mm=-3", "coarse.spacing_mm=0",
        "coarse.half_width=0", "coarse.levels=20",
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(assignment):
    """A number that means nothing is refused in one sentence that begins with the setting it belongs to."""
    name, _, value = assignment.partition("=")
    with pytest.raises(ConfigError, match=rf"^expected {re.escape(name)}\b.*, got {re.escape(value)}"):
        override(RegistrationConfig(), assignment)


@pytest.mark.parametrize("name", ["features.radius", "features.dilation"])
def test_a_setting_that_moved_says_where_to(name):
    """Parameters of MIND among the settings of all features are refused, and the sentence names their new place."""
    section, key = name.split(".")
    message = re.escape(f"got '{name}': it belongs to mind, write spec = [\"{key}=...\"] in [[models]]")
    with pytest.raises(ConfigError, match=message):
        from_dict(RegistrationConfig, {section: {key: 2}})
    with pytest.raises(ConfigError, match=message):
        override(RegistrationConfig(), f"{name}=2")
    assert override(RegistrationConfig(), f"models.spec={key}=2").models[0].spec == (f"{key}=2",)
