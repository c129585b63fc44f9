"""The stage that decides what is left open: models, grids, levels, memory."""

from __future__ import annotations

from semreg.errors import ConfigError
from semreg.features.models import folders_of
from semreg.preprocess.image_pair import Pair
from semreg.registration.contrasts import with_models
from semreg.registration.matching import Given, Pairing, beside, of_ensemble, resolve_models
from semreg.registration.plan import FurtherPair, ImageFacts, image_facts, make_plan, this_machine
from semreg.registration.plan.defaults import with_intensities
from semreg.registration.stages.stage import Stage, State
from semreg.registration.start import loaded_start


def run(state: State) -> None:
    """Load the models and make the plan; its settings are in force from here on."""
    state.config = with_intensities(state.config, state.request.model, alone=not state.contrasts)
    state.pairings = [*_pairings(state), *beside(state.config, state.pair.grids[0].dimension)]
    start = state.config.start if state.request.start is None else state.request.start
    if start is not None:
        state.registrar = loaded_start(start, state.config.refine, state.pair.grids[0].dimension, state.device)
    given = Given((), folders_of(state.request.folders), state.clock.on_step)
    state.others = of_ensemble(state.config, state.pair.grids[0].dimension, state.device, given)
    state.contrasts = with_models(state.contrasts, state.pairings, state.config, state.device, given)
    further = tuple(FurtherPair(_facts(each.pair), each.asked.weight, each.pairings) for each in state.contrasts)
    state.plan = make_plan(
        _facts(state.pair), state.config, this_machine(state.device),
        pairings=state.pairings, further=further, others=state.others, initial=state.begin is not None,
    )  # fmt: skip
    state.config = state.plan.config
    if state.request.on_plan is not None:
        state.request.on_plan(state.plan)


def _facts(pair: Pair) -> tuple[ImageFacts, ImageFacts]:
    """What is known of both images."""
    fixed, moving = (image_facts(pair.cleaned[name][0], pair.recognised[name]) for name in ("fixed", "moving"))
    return fixed, moving


def _pairings(state: State) -> list[Pairing]:
    """The models to compare with: those that are handed over, else those of the settings."""
    model = state.request.model
    if isinstance(model, (list, tuple)) and not model:
        raise ConfigError("expected a model or several, got an empty list: leave it out for those of the settings")
    handed = () if model is None else tuple(model) if isinstance(model, (list, tuple)) else (model,)
    if handed and all(isinstance(each, Pairing) for each in handed):
        return list(handed)
    given = Given(handed, folders_of(state.request.folders), state.clock.on_step)
    return resolve_models(state.config, state.pair.grids[0].dimension, state.device, given)


PLAN = Stage(name="plan", run=run, share=0.01)
