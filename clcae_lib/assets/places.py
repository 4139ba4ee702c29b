"""Where a file may be put: below `data/`, whatever its name says (no section of the paper)."""

from pathlib import Path

from clcae_lib.assets._errors import AssetError

# Windows takes these for devices, with any suffix.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def check_relative(name: str) -> str:
    """`name`, if it is a plain path such as "ffhq/generator.pt" on every system.

    Raises:
        AssetError: it is empty, absolute, leads upwards, is hidden, or some system reads it otherwise.
    """
    parts = name.split("/")
    if not name or not all(_plain(part) for part in parts):
        raise AssetError(
            f"{name!r} is no place below data/: write folders and a file name, such as ffhq/generator.pt"
        )
    return name


def safe_place(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`, through no link that leaves it.

    Raises:
        AssetError: `name` is no plain relative path, or a link on the way leads out of `folder`.
    """
    home = folder.resolve()
    path = home / check_relative(name)
    if not path.resolve().is_relative_to(home) or path.is_symlink():
        raise AssetError(
            f"{path} is or lies behind a link out of {home}: remove the link, or set CLCAE_DATA to keep all "
            "data elsewhere"
        )
    return path


def _plain(part: str) -> bool:
    stem = part.split(".")[0].lower()
    odd = any(c in '\\:*?"<>|' or not c.isprintable() for c in part)
    return bool(part) and part[0] not in ".~-" and part[-1] not in ". " and not odd and stem not in _DEVICES
