"""The explorer as a web page without code, served by Voila (no section of the paper).

Each visitor has a kernel, and so a state of their own. By default only this machine can open the page, under
its own names. The size of messages and the number of visitors are limited, messages are checked, and idle
kernels end. The page is in an empty temporary folder, so no other file can be fetched, and it loads nothing
from other machines.
"""

import errno
import logging
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado import web
from traitlets import Int
from traitlets.config import Config

from clcae_lib import paths
from clcae_lib.explorer.state import ExplorerError

MESSAGE_BYTES = 10_000_000
"""Largest websocket message, enough for an upload of 8 MB; a larger one ends the connection unread."""
_log = logging.getLogger(__name__)
_PROTOCOL = "v1.kernel.websocket.jupyter.org"
_PARTS = range(6, 101)  # offsets of a frame: those of the channel and the message's four parts, and buffers
# These draw the widgets. JupyterLab's other extensions need its file browser, and fail on this page.
_EXTENSIONS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"]
_TEMPLATES = Path(__file__).parent / "voila"
_PAGE = """\
from clcae_lib.explorer.app import Explorer

Explorer({world!r}, device={device!r}).show()
"""


def serve(
    world: str = "portraits",
    *,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 8866,
    **options: Any,
) -> None:
    """Serve the explorer at a free port until interrupted; the arguments are options of `clcae explore`.

    Directions are found before the first visitor comes, so that no visitor waits for them. Put a proxy with
    authentication in front of any host other than 127.0.0.1. Each visitor has a kernel of about 600 MB, which
    ends after `idle` seconds without use. `names` are the host names, in addition to localhost, that a
    request for the page may have. They are checked if `host` is a loopback address, so that a foreign site
    that gives its own name this address (DNS rebinding) is refused.
    """
    from voila.app import Voila

    from clcae_lib.explorer.studio import Studio

    for sentence in Studio.open(world, device=device).left_out:
        _log.warning("not used: %s", sentence)
    places = filter(None, [str(_TEMPLATES.parent), os.environ.get("JUPYTER_PATH")])
    with (
        paths.environment("JUPYTER_PATH", os.pathsep.join(places)),
        tempfile.TemporaryDirectory(prefix="clcae-explorer-") as folder,
    ):
        page = write_page(Path(folder), world=world, device=device)
        config = configuration(host=host, port=port, folder=Path(folder), **options)
        Voila.launch_instance([str(page)], config=config)


def require_port(host: str, port: int) -> None:
    """Raise an ExplorerError if a port is in use or may not be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = "is used by another program" if error.errno == errno.EADDRINUSE else error.strerror
        raise ExplorerError(
            f"port {port} of {host}: {reason}; name another, such as --port {port + 1}"
        ) from error


def write_page(folder: Path, *, world: str, device: str) -> Path:
    """Write the page, a notebook of one cell, and return its path."""
    cell = nbformat.v4.new_code_cell(_PAGE.format(world=world, device=device))
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    node = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel, "title": "Latent explorer"})
    path = folder / "explorer.ipynb"
    nbformat.write(node, path)
    return path


def configuration(
    *,
    host: str,
    port: int,
    folder: Path,
    visitors: int = 4,
    idle: int = 900,
    names: Sequence[str] = (),
    base_url: str = "/",
    stripped: bool = False,
) -> Config:
    """Return Voila's settings for the empty folder of the page; the arguments are those of `serve`."""
    config = Config()
    config.Voila.update(ip=host, port=port, port_retries=0, open_browser=False, root_dir=str(folder))
    config.Voila.base_url = f"/{base_url.strip('/')}/".replace("//", "/")
    config.Voila.server_url = "/" if stripped else config.Voila.base_url
    config.Voila.kernel_websocket_connection_class = CheckedConnection
    config.Voila.tornado_settings = {
        "websocket_max_message_size": MESSAGE_BYTES,
        "allow_remote_access": not (host == "localhost" or host.startswith("127.") or host == "::1"),
        "local_hostnames": ["localhost", *names],
    }
    config.VoilaConfiguration.update(
        template="clcae",
        theme="light",
        allow_template_override="NO",
        allow_theme_override="NO",
        show_tracebacks=False,
        file_allowlist=[],
        extension_allowlist=_EXTENSIONS,
        prelaunch_hook=give_token,
        multi_kernel_manager_class=CappedKernels,
        kernel_spec_manager_class=OwnInterpreter,
    )
    # Voila's own limits, 60 and 4 seconds, leave a page blank on a busy machine.
    config.VoilaExecutor.update(startup_timeout=1200, iopub_timeout=1200)
    config.CappedKernels.visitors = visitors
    interval = max(1, min(60, idle // 2))
    config.MappingKernelManager.update(cull_idle_timeout=idle, cull_interval=interval, cull_connected=True)
    return config


class CheckedConnection(ZMQChannelsWebsocketConnection):
    """A visitor's websocket, which refuses frames that the servers below would read endlessly.

    Voila reads each message to a visitor, and jupyter_server each frame from one, in the protocol `v1`: a
    list of offsets and the parts between them. Neither checks the agreed protocol or the offsets.
    """

    async def prepare(self) -> None:
        """Refuse, with an HTTPError, a websocket of another protocol before it opens."""
        offered = self.websocket_handler.request.headers.get("Sec-WebSocket-Protocol", "")
        if _PROTOCOL not in [name.strip() for name in offered.split(",")]:
            raise web.HTTPError(400, f"open the websocket with the protocol {_PROTOCOL}")
        await super().prepare()

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass a frame on to the kernel, or end the connection if its offsets are wrong."""
        if _well_formed(incoming_msg):
            super().handle_incoming_message(incoming_msg)
        else:
            self.websocket_handler.close(1002, "malformed frame")


def _well_formed(frame: Any) -> bool:
    """Return whether a frame is binary and its parts are consecutive up to its end.

    Parts in another order could overlap, and be copied to many times the size of the frame.
    """
    if not isinstance(frame, bytes) or (count := int.from_bytes(frame[:8], "little")) not in _PARTS:
        return False
    first = 8 * (count + 1)
    if len(frame) < first:
        return False
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    ordered = all(start <= end for start, end in pairwise(offsets))
    return ordered and offsets[0] == first and offsets[-1] == len(frame)


class OwnInterpreter(KernelSpecManager):
    """Offers only the kernel of this interpreter, not the registered ones."""

    def _kernel_dirs_default(self) -> list[str]:
        return []


class CappedKernels(AsyncMappingKernelManager):
    """The visitors' kernels, at most `visitors` of them, including starting ones."""

    visitors = Int(4, help="The most kernels at the same time.").tag(config=True)
    _starting = 0

    async def start_kernel(self, **options: Any) -> str:
        """Start a kernel and return its name; beyond the limit, raise an HTTPError that the page shows."""
        if len(self.list_kernel_ids()) + self._starting >= self.visitors:
            text = f"All {self.visitors} places are taken. Please come back in a few minutes."
            raise web.HTTPError(503, text, reason="All places are taken")
        self._starting += 1
        try:
            return await super().start_kernel(**options)
        finally:
            self._starting -= 1


def give_token(request: web.RequestHandler, **_: Any) -> None:
    """Set the cookie that a closing page needs to end its kernel (a hook that Voila calls before a page).

    Reading the token sets the cookie. Voila does not do this (its issue 1458).
    """
    _ = request.xsrf_token
