"""Worlds by name; importing a world's module adds it to `WORLDS`."""

from clcae_lib.worlds.adding import add_world, remove_world
from clcae_lib.worlds.perceptual import LpipsAlex, distance_name, find_alexnet
from clcae_lib.worlds.photos import PhotoWorld
from clcae_lib.worlds.portraits import PortraitsWorld
from clcae_lib.worlds.settings import WorldSettings
from clcae_lib.worlds.world import (
    WORLDS,
    Images,
    Role,
    UnknownWorldError,
    World,
    WorldError,
    copy_of,
    get_world,
    world_names,
)
