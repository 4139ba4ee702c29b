"""What is inverted: worlds and their registry."""

from clcae_lib.worlds._photo_settings import WorldSettings
from clcae_lib.worlds.adding import add_world, remove_world
from clcae_lib.worlds.perceptual import LpipsAlex, find_alexnet
from clcae_lib.worlds.photos import PhotoWorld
from clcae_lib.worlds.portraits import PortraitsWorld  # importing a world registers it
from clcae_lib.worlds.portraits2 import Portraits2World
from clcae_lib.worlds.world import (
    Images,
    Role,
    World,
    WorldError,
    copy_of,
    get_world,
    register_world,
    world_names,
)

__all__ = [
    "Images",
    "LpipsAlex",
    "PhotoWorld",
    "Portraits2World",
    "PortraitsWorld",
    "Role",
    "World",
    "WorldError",
    "WorldSettings",
    "add_world",
    "copy_of",
    "find_alexnet",
    "get_world",
    "register_world",
    "remove_world",
    "world_names",
]
