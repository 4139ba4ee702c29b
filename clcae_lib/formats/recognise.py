"""What a weights file is, by what it says of itself or by the names of its tensors, and its sizes."""

from dataclasses import dataclass, field
from typing import Any

from clcae_lib.formats import nvidia
from clcae_lib.formats._errors import FormatError
from clcae_lib.formats._machine import Record
from clcae_lib.formats._nvidia import Module
from clcae_lib.formats._stored import Stored
from clcae_lib.formats.contents import Contents
from clcae_lib.formats.kinds import (
    COMPONENTS,
    DIRECTION,
    LEGACY,
    NETWORKS,
    OWN,
    SNAPSHOT,
    STYLEGAN3,
    TRAINING,
    UNKNOWN,
    Kind,
)
from clcae_lib.formats.shapes import Facts, Tensors, under


@dataclass(frozen=True)
class Recognised:
    """A file's kind with its sizes.

    Attributes:
        kind: what it is.
        tensors: those of the network, by their official names without wrappers; none of a snapshot's.
        facts: `resolution`, `style_dim`, `config` and others, as far as the kind has them.
    """

    kind: Kind
    tensors: Tensors = field(default_factory=dict, repr=False)
    facts: Facts = field(default_factory=dict)


def recognise(contents: Contents) -> Recognised:
    """What a file is; kind `unknown` where nothing fits.

    Raises:
        FormatError: it has the names of a kind, and layers that do not belong together.
    """
    for attempt in (_own, _snapshot, _network, _edit, _training):
        found = attempt(contents)
        if found is not None:
            return found
    return Recognised(UNKNOWN)


def _own(contents: Contents) -> Recognised | None:
    name = contents.metadata.get("kind")
    if name is None:
        return None
    fits = OWN.get(str(name), "the code that wrote it")
    config = contents.metadata.get("config")
    config = config if isinstance(config, dict) else {}
    facts = {"config": config, "preset": contents.metadata.get("preset")}
    facts["resolution"] = config.get("resolution", config.get("size"))
    facts["style_dim"] = config.get("style_dim")
    kind = Kind(f"own:{name}", f"this project's weights of kind {name!r}", fits)
    return Recognised(kind, contents.tensors, {name: value for name, value in facts.items() if value})


def _snapshot(contents: Contents) -> Recognised | None:
    modules = isinstance(contents.tree, dict) and any(isinstance(v, Module) for v in contents.tree.values())
    if contents.container != "pickle" or not modules:
        return None
    try:
        network = nvidia.find_generator(contents.tree)
    except FormatError:
        return None
    facts = nvidia.facts(network)
    sizes = {"resolution": facts.get("img_resolution"), "style_dim": facts.get("w_dim"), "config": facts}
    if nvidia.is_legacy(network):
        return Recognised(LEGACY, {}, sizes)
    return Recognised(STYLEGAN3 if nvidia.is_stylegan3(network) else SNAPSHOT, {}, sizes)


def _network(contents: Contents) -> Recognised | None:
    for tensors in _candidates(contents):
        for kind in NETWORKS:
            if kind.needs <= tensors.keys():
                return Recognised(kind, tensors, kind.facts(tensors) | _settings(contents.tree))
    return None


def _settings(tree: Any) -> Facts:
    """What a checkpoint says of its training: how long it was, and whether on faces or cars."""
    if not isinstance(tree, dict):
        return {}
    options = tree.get("opts")
    options = options.state if isinstance(options, Record) else options
    facts = {"steps": tree["iter"]} if isinstance(tree.get("iter"), int) else {}
    if isinstance(options, dict) and isinstance(options.get("dataset_type"), str):
        facts["domain"] = "cars" if "car" in options["dataset_type"].lower() else "faces"
    return facts


def _candidates(contents: Contents) -> list[Tensors]:
    """A file's state dicts, under the usual wrappers or bare, without the prefix of DataParallel."""
    found: list[Tensors] = []
    for wrapper in ("g_ema", "state_dict", "model", ""):
        tensors = under(contents.tensors, f"{wrapper}." if wrapper else "")
        if tensors:
            found.append({name.removeprefix("module."): tensor for name, tensor in tensors.items()})
    return found


def _edit(contents: Contents) -> Recognised | None:
    tree, tensors = contents.tree, contents.tensors
    if isinstance(tree, Stored):
        if len(tree.shape) in (2, 3) and tree.shape[0] == 1:
            rows = tree.shape[1] if len(tree.shape) == 3 else 1
            return Recognised(DIRECTION, tensors, {"style_dim": tree.shape[-1], "rows": rows})
        return None
    if isinstance(tree, dict) and {"mean", "comp", "std"} <= tensors.keys():
        comp = tensors["comp"].shape
        return Recognised(COMPONENTS, tensors, {"style_dim": comp[-1], "components": comp[0]})
    return None


def _training(contents: Contents) -> Recognised | None:
    keys = contents.tree.keys() if isinstance(contents.tree, dict) else set()
    if "pytorch-lightning_version" in keys or {"state_dict", "optimizer_states"} <= keys:
        return Recognised(TRAINING, contents.tensors, {"written_by": "Lightning"})
    if {"modules", "optimizers", "step"} <= keys:
        return Recognised(
            TRAINING, contents.tensors, {"written_by": "clcae train", "step": contents.tree["step"]}
        )
    if "optimizer" in keys or "optimizers" in keys:
        return Recognised(TRAINING, contents.tensors)
    return None
