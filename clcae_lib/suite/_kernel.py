"""Executes one notebook with papermill, in the interpreter that runs the suite.

Five things papermill does not do by itself: the kernel is the running interpreter whatever kernels the
machine has registered; it is reached by sockets in a folder of its own, because two kernels that look for
free TCP ports at once may find the same one and wait for ever; a reply that arrives while a widget's state is
sent is noticed; a notebook has a time limit as a whole; and an exception inside a widget's callback, which
Jupyter stores in the widget's state and forgets, counts as a failure.
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

from clcae_lib.suite._errors import NotebookError
from clcae_lib.suite._plan import START_TIMEOUT

Watch = Callable[[int, int], None]
"""Called with the number of cells done and of all cells."""

_OUTPUT_TIMEOUT = 3600
"""Seconds for the outputs of a finished cell to arrive; nbclient's default of 4 fails on a busy machine."""
_LOOK_AGAIN = 0.2
"""Seconds between two looks for a reply."""


class _OwnInterpreter(AsyncKernelManager):
    """Starts this interpreter's ipykernel; registered kernels play no part."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel: this interpreter."""
        return KernelSpec(**get_kernel_dict())


class _Client(PapermillNotebookClient):
    """Papermill's client, which notices every reply.

    Papermill calls nbclient's synchronous methods. These are bound to the coroutines of nbclient's own class,
    so an override of a coroutine would never run.
    """

    def start_new_kernel_client(self) -> Any:
        """Waits for the kernel's first answer.

        Raises:
            DeadKernelError: it died before, or did not answer in time.
        """
        try:
            client = super().start_new_kernel_client()
        except RuntimeError as error:
            raise DeadKernelError(str(error)) from error
        client.shell_channel.get_msg = _looking_again(client.shell_channel.get_msg)
        return client


def _looking_again(get_msg: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A channel's `get_msg` that looks for a message again and again.

    nbclient sends the state of Output widgets past the asynchronous socket, which then does not notice a
    reply that comes in at that moment: whoever waits for it without looking waits for ever.
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
    """Papermill's engine with this interpreter's kernel, a deadline and a progress call."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        watch: Watch,
        timeout: float | None,
        start_timeout: float,
        folder: Path,
        environment: Mapping[str, str],
        kernel_log: Path,
        **_unused: Any,
    ) -> nbformat.NotebookNode:
        """Runs the notebook's cells in order, until one fails."""
        deadline = time.monotonic() + timeout if timeout else None
        _report_progress(nb_man, watch)
        with tempfile.TemporaryDirectory(prefix="clcae-") as sockets, kernel_log.open("wb") as log:
            client = _Client(
                nb_man,
                kernel_name=kernel_name,
                kernel_manager_class=_OwnInterpreter,
                config=_connection(Path(sockets)),
                startup_timeout=int(start_timeout),
                iopub_timeout=max(1, int(timeout or _OUTPUT_TIMEOUT)),
                timeout_func=lambda cell: deadline and max(1, int(deadline - time.monotonic())),
                resources={"metadata": {"path": str(folder)}},
            )
            return client.execute(env={**os.environ, **environment}, stdout=log, stderr=log)


def _connection(sockets: Path) -> Config:
    """How kernel and client meet: by sockets in a folder, or by TCP where its path is too long for them."""
    file = sockets / "kernel.json"
    longest = len(os.fsencode(file.with_name("kernel-ipc-5")))
    transport = "ipc" if longest <= zmq.IPC_PATH_MAX_LEN else "tcp"
    return Config({"KernelManager": {"transport": transport, "connection_file": str(file)}})


papermill_engines.register("clcae", _Engine)


def _report_progress(manager: Any, watch: Watch) -> None:
    """Has the manager call `watch` after each cell."""
    complete, total = manager.cell_complete, len(manager.nb.cells)

    def cell_complete(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        complete(cell, cell_index=cell_index, **kwargs)
        watch((cell_index or 0) + 1, total)

    manager.cell_complete = cell_complete


def execute(
    notebook: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    *,
    folder: Path,
    timeout: float | None = None,
    start_timeout: float = START_TIMEOUT,
    environment: Mapping[str, str] | None = None,
    watch: Watch = lambda done, total: None,
) -> nbformat.NotebookNode:
    """Executes a notebook; its copy is written cell by cell, so that it is there whatever happens.

    What the kernel itself prints, such as warnings of native libraries, goes to `kernel.log` beside the copy.

    Args:
        notebook: the notebook.
        executed: where its executed copy goes.
        parameters: values for its parameters cell.
        folder: the kernel's working directory.
        timeout: seconds for the whole notebook; None for no limit.
        start_timeout: seconds for the kernel to start.
        environment: variables for the kernel, over this process's own.
        watch: called with cells done and cells in all.

    Raises:
        NotebookError: a cell or a widget's callback raised, the time was up or the kernel died.
    """
    try:
        node = execute_notebook(
            str(notebook),
            str(executed),
            parameters=dict(parameters),
            engine_name="clcae",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            watch=watch,
            timeout=timeout,
            start_timeout=start_timeout,
            folder=folder,
            environment=environment or {},
            kernel_log=executed.parent / "kernel.log",
        )
    except PapermillExecutionError as error:
        raise NotebookError(f"{error.ename}: {error.evalue}", details=_plain(error.traceback)) from error
    except CellTimeoutError as error:
        limit = timeout or _OUTPUT_TIMEOUT
        raise NotebookError(f"did not end within {limit:.0f} s", details=str(error)) from error
    except DeadKernelError as error:
        raise NotebookError(f"its kernel died or did not start: {error}", details=str(error)) from error
    _check_widgets(node)
    return node


def _check_widgets(node: nbformat.NotebookNode) -> None:
    """Raises the first exception that a widget's state holds."""
    for output in widget_errors(node):
        reason = f"in a widget's callback: {output.get('ename')}: {output.get('evalue')}"
        raise NotebookError(reason, details=_plain(output.get("traceback", [])))


def widget_errors(node: nbformat.NotebookNode) -> list[Mapping[str, Any]]:
    """The exceptions that widgets' callbacks raised, as outputs of type "error"."""
    errors = []
    for view in node.metadata.get("widgets", {}).values():
        for widget in view.get("state", {}).values():
            outputs = widget.get("state", {}).get("outputs", [])
            errors += [output for output in outputs if output.get("output_type") == "error"]
    return errors


def _plain(traceback: list[str]) -> str:
    """A traceback without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
