"""Everything that takes a device, small: trainings, and what is done with trained networks.

`trainings` and `Uses` are shared by the checks on the simulated device (`tests.device.rules`) and by those on
a real one (`tests/cuda`), so a task that is added here is checked on both.
"""

from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from clcae_lib.editing import Direction, apply, find_directions, interpolate, mix, traverse
from clcae_lib.evaluation import Bench, GeneratorMeasure, Judges, cost_table
from clcae_lib.inversion import (
    METHODS,
    ClcaeInverter,
    MeanFaceInverter,
    PtiInverter,
    Settings,
    make_inverter,
)
from clcae_lib.inversion.nearest import NearestCodeInverter
from clcae_lib.training import Task
from clcae_lib.training.adversarial import AdversarialTask, GeneratorConfig, Stage
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.body import BodyConfig, BodyTask
from clcae_lib.training.data import seed_step
from clcae_lib.training.feature_editor import FeatureEditorConfig, FeatureEditorTask
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.training.judges import JudgesConfig, JudgeTask
from clcae_lib.training.peers import PeerConfig, task_of
from clcae_lib.worlds import get_world
from tests.unit._tiny import WIDTHS, SampleImages, parts_of, tiny_generator

RECORDED = (
    "inversion foundation",
    "alignment fresh pairs",
    "alignment fixed pairs",
    "generator relativistic",
)
"""Trainings whose steps can be CUDA graphs."""
OWN = {"device": "cpu", "tensorboard": False, "log_every": 10, "checkpoint_every": 2}
OWN |= {"validate_every": 2, "sheet_every": 2}
ENCODER = {**OWN, "batch_size": 4, "validation_images": 8}
INVERSION = {**ENCODER, "bank": 16, "warmup": 1, "ramp_epoch": 2}
VARIANTS = {
    "foundation": {},
    "single": {"wplus_attention": "single", "feature_attention": "single", "alignment": "batch"},
    "none": {"wplus_attention": "none", "feature_attention": "off", "alignment_input": "w_reconstruction"},
    "unaligned": {"alignment": "off", "init_from_alignment": False, "lpips_scales": 3, "ramp": "epoch"},
    "ranger": {"weight_w": 1.0, "optimizer": "ranger", "schedule": "plateau", "flip": 0.5, "clip": None},
}
PUBLISHED = {"preset": "published", "widths": (4, 4, 6, 8, 8), "style_hidden": 4, "hidden": 8}
PEERS = ("psp", "e4e", "restyle_psp", "restyle_e4e", "hfgi")
ALIGNMENT = {"embedding": 8, "widths": WIDTHS, "width": 8, "latent_width": 16, "latent_depth": 1}
ALIGNMENT |= {"batch_size": 8, "validation_pairs": 20, "final_pairs": 24, "neighbour_codes": 3, **OWN}
PAIRS = {"fresh pairs": {}, "fixed pairs": {"pairs": 24, "loss": "sigmoid"}}
GENERATOR = {"resolution": 16, "style_dim": 8, "mapping_layers": 1, "channels": {4: 8, 8: 8, 16: 6}}
GENERATOR |= {"batch_size": 4, "penalty_every": 2, "w_samples": 16, "size": None, **OWN}
STAGES = (Stage(resolution=8, images=8), Stage(resolution=16, images=80))
JUDGE = {"copy": "a", "start": "random", "size": 8, "validation_size": 8, "batch_size": 8, **OWN}
BODY = {"images": 16, "validation_images": 8, "widths": WIDTHS, "batch_size": 8, "warmup": 1, **OWN}
EDITOR = {"samples": 8, "validation_pairs": 4, "width": 8, "blocks": 1, "batch_size": 4, **OWN}
FINDERS = ("interfacegan", "ganspace", "sefa", "stylespace", "alignment")

Make = Callable[..., Task]
"""Makes a task of so many steps; further settings replace the small ones."""


def trainings() -> dict[str, Make]:
    """Return what makes each task of training, by name."""
    makes: dict[str, Make] = {
        f"inversion {name}": partial(_inversion, {**INVERSION, "widths": WIDTHS, **changes})
        for name, changes in VARIANTS.items()
    }
    makes["inversion published"] = partial(_inversion, {**INVERSION, **PUBLISHED}, size=64)
    for method in PEERS:
        makes[method] = partial(_peer, {**ENCODER, "method": method, "widths": WIDTHS, "start": "fresh"})
    for name, changes in PAIRS.items():
        makes[f"alignment {name}"] = partial(_alignment, {**ALIGNMENT, **changes})
    for loss in ("relativistic", "logistic"):
        makes[f"generator {loss}"] = partial(_generator, {**GENERATOR, "stages": STAGES, "loss": loss})
    for kind in ("oracle", "identity", "perceptual"):
        makes[kind] = partial(_judge, {**JUDGE, "kind": kind})
    makes["body"] = partial(_body, BODY)
    makes["feature editor"] = partial(_feature_editor, EDITOR)
    return makes


def _inversion(values: dict, steps: int, *, size: int = 32, **changes) -> Task:
    return InversionTask(InversionConfig(**{**values, "steps": steps, **changes}), parts_of(size))


def _peer(values: dict, steps: int, **changes) -> Task:
    return task_of(PeerConfig(**{**values, "steps": steps, **changes}), parts_of())


def _alignment(values: dict, steps: int, **changes) -> Task:
    return AlignmentTask(AlignmentConfig(**{**values, "steps": steps, **changes}), tiny_generator())


def _generator(values: dict, steps: int, **changes) -> Task:
    config = GeneratorConfig(**{**values, "steps": steps, **changes})
    return AdversarialTask(config, SampleImages(tiny_generator(16), 8, seed=3))


def _judge(values: dict, steps: int, **changes) -> Task:
    return JudgeTask(JudgesConfig(**{**values, "steps": steps, **changes}))


def _body(values: dict, steps: int, **changes) -> Task:
    return BodyTask(BodyConfig(**{**values, "steps": steps, **changes}), get_world("portraits"))


def _feature_editor(values: dict, steps: int, **changes) -> Task:
    config = FeatureEditorConfig(**{**values, "steps": steps, **changes})
    return FeatureEditorTask(config, get_world("portraits"))


def steps_of(task: Task, fabric) -> Iterator[dict[str, float | Tensor]]:
    """Set a task up on a fabric's device and yield the scalars of one step after the other.

    These are the steps of `fit`, equally seeded, without its validations, records and files.
    """
    seed = task.config.seed
    seed_step(seed, 0, 0, device=fabric.device)
    task.setup(fabric)
    for optimizer in task.optimizers.values():
        task.recorder.prepare(optimizer)
    index = 0
    while True:
        seed_step(seed, index + 1, 0, device=fabric.device)
        yield task.step(index)
        index += 1


class Uses:
    """What is done with trained networks on a device: directions, inverters, measures, the explorer."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.world = device, get_world("portraits")
        self.direction = cache(self._directions)

    @cached_property
    def generator(self):
        return self.world.generator(self.device)

    @cached_property
    def judges(self) -> Judges:
        return Judges.of(self.world, self.device)

    @cached_property
    def images(self) -> Tensor:
        return self.world.images("test", 4).images(range(4))

    @cached_property
    def foundation(self):
        return self.clcae("foundation")

    def clcae(self, preset: str):
        return ClcaeInverter.load(self.world, preset, self.device, generator=self.generator)

    def checks(self) -> dict[str, Callable[[], Tensor | None]]:
        """Return an action for each use; those of inverters return their reconstructions."""
        actions = {f"directions {name}": partial(self.direction, name) for name in FINDERS}
        optimised = [n for n, m in METHODS.items() if m.kind != "encoder" and n != "nearest_code"]
        actions |= {f"inverter {n}": lambda n=n: self.invert_and_edit(self.optimiser(n)) for n in optimised}
        actions["inverter nearest_code"] = lambda: self.invert_and_edit(
            NearestCodeInverter.load(self.world, self.generator, bank=1000)
        )
        for preset in ("foundation", "published"):
            actions[f"inverter clcae {preset}"] = lambda p=preset: self.invert_and_edit(self.clcae(p))
        actions["bench"] = self.bench
        actions["cost"] = self.cost
        measure = {"samples": 10, "device": self.device}
        actions["measures of a generator"] = lambda: GeneratorMeasure(self.world, **measure)()
        actions["explorer"] = self.explore
        return actions

    def _directions(self, method: str) -> dict[str, Direction]:
        options = {"samples": 60, "components": 2, "effect_codes": 2, "calibrated_on": 4, "channels": 8}
        return find_directions(self.world, ["yaw", "age"], method, device=self.device, **options)

    def optimiser(self, name: str):
        if name == "pti":
            distance = self.world.perceptual("train", self.device)
            return PtiInverter(MeanFaceInverter(self.generator), distance, settings=Settings(steps=1))
        return make_inverter(name, self.world, device=self.device, generator=self.generator, steps=1)

    def invert_and_edit(self, inverter) -> Tensor:
        codes = inverter.invert(self.images)
        space, generator = codes.spaces[-1], self.generator
        strengths = torch.tensor([1.0, -1.0, 0.5, 0.0])
        for method in ("interfacegan", "stylespace"):
            direction = self.direction(method)["yaw"]
            apply(inverter.generator, codes, direction, strengths).decode(generator, space)
        mix(generator, codes, codes, [0, 1])
        interpolate(codes, codes, 0.5)
        traverse(generator, codes[:1], self.direction("interfacegan")["yaw"], (-1, 1), space=space)
        with torch.no_grad():
            return codes.decode(generator, space).cpu()

    def bench(self) -> None:
        sizes = {"images": 4, "edits": 2, "strengths": (1.0,), "accessories": 2, "codes": 4}
        bench = Bench.of(self.judges, self.direction("interfacegan"), **sizes)
        bench.measure(self.foundation, method="clcae", space="f")

    def cost(self) -> None:
        methods = {"clcae": self.foundation.invert}
        cost_table(methods, self.images.to(self.device), modules={}, images_seen={}, runs=1)

    def explore(self) -> None:
        from clcae_lib.explorer import State, Studio  # needs Jupyter's widgets

        studio = Studio.open(self.world, device=self.device)
        state = State(source="gallery", index=3).with_edit("yaw", 1.5)
        studio.image(state)
        studio.frame(state)
        studio.inversion(state)
