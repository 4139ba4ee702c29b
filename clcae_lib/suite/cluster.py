"""The workers that run a sweep's notebooks: on this machine, or those of a Dask scheduler.

A scheduler executes the code that its peers send. So a connection over a network must use TLS with
certificates on both sides; otherwise everyone on that network could run code as its user.
"""

import ipaddress
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clcae_lib.suite.record import SuiteError

if TYPE_CHECKING:
    from distributed import Future

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Place:
    """Where to run: `jobs` workers on this machine, or a scheduler at an address, with certificates."""

    jobs: int | None = None
    scheduler: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Raise a SuiteError for an address to which code would be sent over a network without TLS."""
        if self.scheduler is None:
            return
        option = f"--scheduler {self.scheduler}"
        scheme, _, rest = self.scheduler.rpartition("://")
        host, _, port = rest.rpartition(":")
        if scheme not in ("", "tcp", "tls") or not port.isdigit():
            raise SuiteError(f"{option}: write tcp://127.0.0.1:8786 or tls://host:8786")
        files = {"--tls-ca": self.ca, "--tls-cert": self.cert, "--tls-key": self.key}
        missing = [name for name, path in files.items() if path is None or not path.is_file()]
        if scheme == "tls" and missing:
            raise SuiteError(f"{option}: needs {missing[0]}, a PEM file; got {files[missing[0]]}")
        if scheme != "tls" and not _is_loopback(host):
            raise SuiteError(
                f"{option}: a scheduler runs what its peers send, so beyond this machine "
                "it must be tls:// with --tls-ca, --tls-cert and --tls-key; or reach it through a tunnel "
                "(ssh -L 8786:127.0.0.1:8786 host) as tcp://127.0.0.1:8786"
            )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def gpu_names(visible: str | None, count: int) -> list[str]:
    """Return the GPUs that this process was given, each as `CUDA_VISIBLE_DEVICES` names it.

    `visible` is the value of that variable: indices, UUIDs or MIG names; None if it is not set. `count` is
    the number of GPUs that torch finds. CUDA ignores an unknown name and all names after it. A process
    uses only the first of several MIG names, so `count` is then too small, and all names are returned.
    """
    if visible is None or not count:
        return [str(index) for index in range(count)]
    names = [name.strip() for name in visible.split(",")]
    return names if all(name.startswith("MIG-") for name in names) else names[:count]


def gpu_count() -> int:
    """Return the number of GPUs that torch finds, those visible to this process."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def worker_count(jobs: int | None, runs: int) -> int:
    """Return how many notebooks run here at a time: `jobs`, else one per GPU, else one per two cores."""
    from dask.system import cpu_count

    gpus = len(gpu_names(os.environ.get(VISIBLE), gpu_count()))
    return max(1, min(jobs or gpus or cpu_count() // 2, runs))


@contextmanager
def connect(place: Place, *, runs: int) -> Iterator[Callable[..., "Future"]]:
    """Yield a function that submits a task to a cluster, which has workers for at most `runs` tasks.

    In addition to its arguments a task gets `threads` of its notebook, and the number `gpus` of GPUs on its
    machine; None and 0 leave that to the workers. A cluster on this machine ends with the block, a named one
    keeps running. If it does not answer, a SuiteError is raised.
    """
    from dask import config
    from dask.system import cpu_count
    from distributed import Client, LocalCluster

    place.check()
    # Dask would limit its workers to one thread; a notebook's kernel gets the threads of its run.
    settings: dict[str, Any] = {
        "distributed.nanny.pre-spawn-environ": {},
        "distributed.scheduler.allowed-failures": 3,
        "distributed.admin.tick.limit": "1h",
        # Dask checks its processes up to a hundred times per second, but a run takes minutes. This reduces
        # the load from seven hundredths of a core to less than one.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.worker.profile.enabled": False,
    }
    if place.scheduler is not None:
        with config.set(settings), _named(place) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            declared = any("GPU" in worker.get("resources", {}) for worker in workers)
            resources = {"GPU": 1} if declared else None
            yield partial(client.submit, threads=None, gpus=0, pure=False, resources=resources)
        return
    # A nanny notices a dead worker; limits in seconds would end workers that are slow on a busy machine.
    settings |= {
        "distributed.scheduler.worker-ttl": None,
        "distributed.comm.timeouts.connect": "20 minutes",
    }
    gpus, count = gpu_count(), worker_count(place.jobs, runs)
    threads, resources = max(1, cpu_count() // count), {"GPU": 1} if gpus else None
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    options |= {"threads_per_worker": 1, "memory_limit": None, "silence_logs": logging.ERROR}
    with (
        config.set(settings),
        LocalCluster(n_workers=count, resources=resources, **options) as cluster,
        Client(cluster) as client,
    ):
        yield partial(client.submit, threads=threads, gpus=gpus, pure=False, resources=resources)


def _named(place: Place) -> Any:
    from distributed import Client, Security

    security = None
    if str(place.scheduler).startswith("tls://"):
        files = {"tls_ca_file": place.ca, "tls_client_cert": place.cert, "tls_client_key": place.key}
        security = Security(**{k: str(v) for k, v in files.items()}, require_encryption=True)
    try:
        return Client(place.scheduler, security=security, timeout="60s")
    except (OSError, TimeoutError) as error:
        raise SuiteError(
            f"--scheduler {place.scheduler}: it does not answer ({error}); start a scheduler there, or "
            "leave --scheduler out"
        ) from error
