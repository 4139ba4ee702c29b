"""Execute one notebook with papermill, in the interpreter that runs the suite.

This module adds six things to papermill:

* The kernel is the running interpreter, not a registered one.
* It is connected by sockets in its own folder. Two kernels that look for free TCP ports at the same time may
  choose the same one, and hang.
* A reply that arrives while a widget's state is sent is noticed.
* The whole notebook has a time limit.
* An exception inside a widget's callback, which Jupyter only stores in the widget's state, is a failure.
* So is an exception in a thread, a task or a future whose result no cell reads (`faults`).
"""

import math
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill import PapermillExecutionError, execute_notebook
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets.config import Config

from clcae_lib import faults, paths
from clcae_lib.suite.plan import Profile
from clcae_lib.suite.record import NotebookError

Watch = Callable[[int, int], None]
"""A function that is called with the number of finished cells and of all cells."""

_OUTPUT_TIMEOUT = 3600
"""Seconds for the outputs of a finished cell to arrive; nbclient's default of 4 fails on a busy machine."""
_LOOK_AGAIN = 0.2
"""Seconds between two checks for a reply."""


class _OwnInterpreter(AsyncKernelManager):
    """Starts this interpreter's ipykernel; registered kernels are ignored."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict([f"--IPKernelApp.extra_extensions={faults.__name__}"]))


class NotebookClient(PapermillNotebookClient):
    """Papermill's client, changed to notice every reply and to report each cell.

    Papermill calls nbclient's synchronous methods. They call the coroutines of nbclient's class, so an
    override of a coroutine would never run.
    """

    watch: Watch
    captured: nbformat.NotebookNode | None = None
    """The first exception inside an Output widget; a later call may clear the widget."""

    def output(self, outs: Any, msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Handle an output, and note an exception that goes to a widget."""
        to_widget = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        if msg["msg_type"] == "error" and to_widget and self.captured is None:
            self.captured = nbformat.from_dict(msg["content"])
        return super().output(outs, msg, display_id, cell_index)

    def start_new_kernel_client(self) -> Any:
        """Wait for the kernel's first answer; raise DeadKernelError if it died or was too slow."""
        try:
            client = super().start_new_kernel_client()
        except RuntimeError as error:
            raise DeadKernelError(str(error)) from error
        client.shell_channel.get_msg = looking_again(client.shell_channel.get_msg)
        return client

    def execute_cell(self, cell: Any, cell_index: int, *arguments: Any, **options: Any) -> Any:
        """Execute a cell, then report the progress."""
        executed = super().execute_cell(cell, cell_index, *arguments, **options)
        self.watch(cell_index + 1, len(self.nb.cells))
        return executed


def looking_again(get_msg: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return a channel's `get_msg`, changed to check for a message at intervals.

    nbclient sends the state of Output widgets without the asynchronous socket, which then misses a reply that
    arrives at that moment; a plain `get_msg` would wait for it endlessly.
    """

    async def get(timeout: float | None = None) -> Any:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return await get_msg(timeout=max(0.0, min(_LOOK_AGAIN, deadline - time.monotonic())))
            except Empty:
                if time.monotonic() >= deadline:
                    raise

    return get


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        del kernel_name
        return options["run"](nb_man)


papermill_engines.register("clcae", _Engine)


def execute(
    notebook: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    *,
    profile: Profile,
    environment: Mapping[str, str] | None = None,
    watch: Watch = lambda done, total: None,
) -> None:
    """Execute a notebook; its copy is written after every cell, so that it exists even after a failure.

    Output of the kernel process, such as warnings of native libraries, goes to `kernel.log` next to the copy.
    Arguments are those of `perform`; `executed` is the file for the copy.

    Raises:
        NotebookError: a cell or a widget's callback raised, the time limit was exceeded or the kernel died.
    """
    deadline = time.monotonic() + profile.timeout if profile.timeout else None
    limit = profile.timeout or _OUTPUT_TIMEOUT

    def run(manager: Any) -> nbformat.NotebookNode:
        client = NotebookClient(
            manager,
            kernel_manager_class=_OwnInterpreter,
            config=_connection(Path(sockets)),
            startup_timeout=int(profile.start_timeout),
            iopub_timeout=max(1, int(limit)),
            timeout_func=lambda cell: deadline and max(1, int(deadline - time.monotonic())),
            resources={"metadata": {"path": str(paths.root())}},
        )
        client.watch = watch
        kernel = {**os.environ, **(environment or {}), faults.FILE: str(fault_file.resolve())}
        node = client.execute(env=kernel, stdout=log, stderr=log)
        if (error := client.captured) is not None:
            reason = f"in a widget's callback: {error.ename}: {error.evalue}"
            raise NotebookError(reason, details=_plain(error.traceback))
        return node

    names = {"engine_name": "clcae", "kernel_name": "python3", "language": "python"}
    log_file, fault_file = (executed.parent / name for name in ("kernel.log", "faults.txt"))
    with tempfile.TemporaryDirectory(prefix="clcae-") as sockets, log_file.open("wb") as log:
        try:
            execute_notebook(
                str(notebook),
                str(executed),
                parameters=dict(parameters),
                progress_bar=False,
                run=run,
                **names,
            )
        except PapermillExecutionError as error:
            raise NotebookError(f"{error.ename}: {error.evalue}", details=_plain(error.traceback)) from error
        except CellTimeoutError as error:
            raise NotebookError(f"did not end within {limit:.0f} s", details=str(error)) from error
        except DeadKernelError as error:
            raise NotebookError(f"its kernel died or did not start: {error}", details=str(error)) from error
    if fault_file.is_file():
        text = fault_file.read_text(encoding="utf-8", errors="replace")
        raise NotebookError(text.partition("\n")[0], details=text)


def _connection(sockets: Path) -> Config:
    """Return the connection of kernel and client: sockets in a folder, or TCP if its path is too long."""
    file = sockets / "kernel.json"
    longest = len(os.fsencode(file.with_name("kernel-ipc-5")))
    transport = "ipc" if longest <= zmq.IPC_PATH_MAX_LEN else "tcp"
    return Config({"KernelManager": {"transport": transport, "connection_file": str(file)}})


def _plain(traceback: list[str]) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
