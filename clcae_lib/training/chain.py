"""Plan the chain of weights of a world, and check all of it before the first training starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clcae_lib.settings import ConfigError, split_setting
from clcae_lib.training import adversarial, alignment, body, feature_editor, inversion, judges, peers
from clcae_lib.training.config import TrainConfig, load_config
from clcae_lib.worlds import World, WorldError, get_world

STAGES: dict[str, tuple[Any, type[TrainConfig]]] = {
    "generator": (adversarial, adversarial.GeneratorConfig),
    "judges": (judges, judges.JudgesConfig),
    "body": (body, body.BodyConfig),
    "alignment": (alignment, alignment.AlignmentConfig),
    "inversion": (inversion, inversion.InversionConfig),
    "feature_editor": (feature_editor, feature_editor.FeatureEditorConfig),
    "peer": (peers, peers.PeerConfig),
}
"""The module with `train` of each stage, and its settings class."""

LINKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "generator": ("generator", ()),
    "judges": ("judges", ()),
    "body": ("body", ()),
    "alignment": ("alignment", ()),
    "inversion_foundation": ("inversion", ("preset=foundation",)),
    "inversion_published": ("inversion", ("preset=published",)),
    "feature_editor": ("feature_editor", ()),
}
"""The links in order, with the stage of each and the settings that define the link."""

_OF_ONE_LINK = ("world", "preset", "devices")


@dataclass(frozen=True)
class Chain:
    """The plan of a world's chain: the links that are trained, and the parts that are left out.

    Attributes:
        links: settings of each link that is trained, in order.
        left_out: reasons for the parts that are left out: other links, `directions` and `measure`.
    """

    links: Mapping[str, TrainConfig]
    left_out: Mapping[str, str]

    def lines(self) -> list[str]:
        """Return the plan, one line per part."""
        parts = [*LINKS, "directions", "measure"]
        texts = {part: f"left out: {reason}" for part, reason in self.left_out.items()}
        return [f"{part:<21} {texts.get(part, 'planned')}" for part in parts]


def plan_chain(world: str, settings: Sequence[str] = ()) -> Chain:
    """Return the chain of a world, after checking that everything it needs exists.

    Args:
        settings: `LINK.NAME=VALUE`; "inversion" means both presets.

    Raises:
        ConfigError: a setting is wrong, or is for a link that is left out.
        WorldError: something is missing; the message says how to get it.
    """
    place = get_world(world)
    left_out = dict(place.untrained)
    shares = _share(settings, left_out)
    links = {
        link: load_config(STAGES[stage][1], None, [f"world={world}", *fixed, *shares[link]])
        for link, (stage, fixed) in LINKS.items()
        if link not in left_out
    }
    _check_parts(place, links)
    if "judges" not in links:
        try:
            place.oracle("train")
        except WorldError as error:
            left_out |= {"directions": str(error), "measure": str(error)}
    return Chain(links, left_out)


def _share(settings: Sequence[str], left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the settings for each link, by its name."""
    shares: dict[str, list[str]] = {link: [] for link in LINKS}
    for setting in settings:
        name, value = split_setting(setting)
        prefix, dot, rest = name.partition(".")
        links = [link for link in LINKS if link == prefix or link.startswith(f"{prefix}_")]
        if not dot or not links:
            raise ConfigError(f"--set {setting}: write LINK.NAME=VALUE with a link of {', '.join(LINKS)}")
        if rest in _OF_ONE_LINK:
            # Each additional process of `devices` would run the whole command, with every link of the chain.
            raise ConfigError(
                f"--set {setting}: train this link separately, `clcae train {LINKS[links[0]][0]}`"
            )
        if all(link in left_out for link in links):
            raise ConfigError(f"--set {setting}: {links[0]} is left out: {left_out[links[0]]}")
        for link in links:
            shares[link].append(f"{rest}={value}")
    return shares


def _check_parts(world: World, links: Mapping[str, Any]) -> None:
    """Raise an error if a training of the chain would fail: a file is missing, or two links do not fit."""
    if "generator" not in links:
        world.generator()
    for link in [link for link in links if link.startswith("inversion")]:
        config = links[link]
        for split in ("train", "validation"):
            world.images(split, 1)
        for judge in ("perceptual", "identity"):
            if getattr(config, f"weight_{judge}") > 0 and "judges" not in links:
                try:
                    getattr(world, judge)("train")
                except WorldError as error:
                    remedy = f"--set {link}.weight_{judge}=0"
                    raise WorldError(f"{link}: {error}; or leave it out, {remedy}") from error
        bodies = [(links[name].body, links[name].widths) for name in ("alignment", link)]
        if config.init_from_alignment and bodies[0] != bodies[1]:
            raise ConfigError(
                f"{link}: it starts from the alignment's backbone, which is {bodies[0]}, not {bodies[1]}; "
                f"set the same body and widths for both, or {link}.init_from_alignment=false"
            )
