"""Where a sweep's notebooks run: workers on this machine, or any Dask scheduler that is named.

A scheduler executes what its peers send it, so one that is reached over a network must be reached by TLS with
certificates on both sides; without, anybody on that network could run code as its user.
"""

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clcae_lib.suite._errors import SuiteError

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Place:
    """Where to run: `jobs` workers of this machine, or the scheduler at an address with its certificates."""

    jobs: int | None = None
    scheduler: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Workers:
    """A connected cluster.

    Attributes:
        client: Dask's.
        threads: for each notebook; None leaves that to the workers.
        gpus: how many there are to share out; 0 leaves that to the workers.
        declared: whether workers declare GPUs as a resource.
    """

    client: "Client"
    threads: int | None
    gpus: int
    declared: bool

    @property
    def resources(self) -> dict[str, float] | None:
        """What each task asks a worker for: one GPU, where workers declare that they have some."""
        return {"GPU": 1} if self.declared else None


def check_place(place: Place) -> None:
    """Refuses an address that would carry code unprotected over a network.

    Raises:
        SuiteError: it is no tcp:// or tls:// address, plain tcp:// to another machine, or tls:// without all
            of its three files.
    """
    if place.scheduler is None:
        return
    scheme, _, rest = place.scheduler.rpartition("://")
    if scheme not in ("", "tcp", "tls") or not rest.rpartition(":")[2].isdigit():
        raise SuiteError(f"--scheduler {place.scheduler}: write tcp://127.0.0.1:8786 or tls://host:8786")
    files = {"--tls-ca": place.ca, "--tls-cert": place.cert, "--tls-key": place.key}
    if scheme == "tls":
        for option, path in files.items():
            if path is None or not path.is_file():
                raise SuiteError(f"--scheduler {place.scheduler}: needs {option}, a PEM file; got {path}")
    elif not _is_loopback(rest.rpartition(":")[0]):
        raise SuiteError(
            f"--scheduler {place.scheduler}: a scheduler runs what its peers send, so beyond this machine "
            "it must be tls:// with --tls-ca, --tls-cert and --tls-key; or reach it through a tunnel "
            "(ssh -L 8786:127.0.0.1:8786 host) as tcp://127.0.0.1:8786"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_names(visible: str | None, count: int) -> list[str]:
    """The GPUs that this process was given, each as `CUDA_VISIBLE_DEVICES` names it.

    Args:
        visible: the value of `CUDA_VISIBLE_DEVICES`: indices, UUIDs or MIG names; None if it is not set.
        count: GPUs that torch finds. CUDA ignores a name that it does not know and all names after it, and of
            several MIG names it uses only the first, so these all count.
    """
    if visible is None or not count:
        return [str(index) for index in range(count)]
    names = [name.strip() for name in visible.split(",")]
    return names if all(name.startswith("MIG-") for name in names) else names[:count]


def gpu_of(visible: str | None, count: int, worker: int) -> str:
    """The value of `CUDA_VISIBLE_DEVICES` for a worker's kernel: one of the GPUs given, in turn.

    Args:
        visible: the value that this process inherited, None if it is not set.
        count: GPUs that torch finds, 1 or more.
        worker: its number; more workers than GPUs share them.
    """
    names = gpu_names(visible, count)
    return names[worker % len(names)]


def gpu_count() -> int:
    """The GPUs that torch finds: those of this machine that this process was given."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def core_count() -> int:
    """The cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def worker_count(jobs: int | None, runs: int) -> int:
    """Notebooks at once on this machine: as asked, else one a GPU, else one a pair of cores."""
    gpus = len(gpu_names(os.environ.get(VISIBLE), gpu_count()))
    return max(1, min(jobs or gpus or core_count() // 2, runs))


@contextmanager
def connect(place: Place, *, runs: int) -> Iterator[Workers]:
    """A cluster for so many runs; one of this machine ends with the block, one that was named stays.

    Raises:
        SuiteError: the address is refused, or nobody answers there.
    """
    from dask import config
    from distributed import Client

    check_place(place)
    # Dask would give its workers one thread each; a notebook's kernel takes what its run is told.
    environment = {"distributed.nanny.pre-spawn-environ": {}}
    quiet = {"distributed.scheduler.allowed-failures": 3, "distributed.admin.tick.limit": "1h"}
    with config.set(quiet | environment):
        if place.scheduler is not None:
            with _named(place) as client:
                infos: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
                declared = any("GPU" in info.get("resources", {}) for info in infos.values())
                yield Workers(client, threads=None, gpus=0, declared=declared)
            return
        gpus, count = gpu_count(), worker_count(place.jobs, runs)
        threads = max(1, core_count() // count)
        # A nanny notices a worker that dies; limits in seconds only hit one that a busy machine slows.
        patient = {
            "distributed.scheduler.worker-ttl": None,
            "distributed.comm.timeouts.connect": "20 minutes",
        }
        with config.set(patient), _local(count, gpus) as cluster, Client(cluster) as client:
            yield Workers(client, threads=threads, gpus=gpus, declared=gpus > 0)


def _local(count: int, gpus: int) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        memory_limit=None,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.ERROR,
        resources={"GPU": 1} if gpus else None,
    )


def _named(place: Place) -> Any:
    from distributed import Client, Security

    security = None
    if place.scheduler is not None and place.scheduler.startswith("tls://"):
        files = {"tls_ca_file": place.ca, "tls_client_cert": place.cert, "tls_client_key": place.key}
        security = Security(**{k: str(v) for k, v in files.items()}, require_encryption=True)
    try:
        return Client(place.scheduler, security=security, timeout="60s")
    except (OSError, TimeoutError) as error:
        raise SuiteError(f"--scheduler {place.scheduler}: nobody answers there ({error})") from error
