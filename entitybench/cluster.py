"""Workers on other machines, or on this one, through Dask: `--cluster tcp://…|local:N`.

The scheduling is Dask's; here its address becomes an executor for `ordered_map`.  The workers
need entitybench installed and see the same files under the same paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from entitybench.errors import FormatError, MissingDataError

_LOCAL = re.compile(r"local:([1-9]\d{0,4})")
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://\S+")
_PATIENCE = "30s"  # until a scheduler has answered
# Dask waits for ever for new workers where the last has died: right for a cluster that grows,
# a hang where nobody will start another
_DESERTED = {"distributed.scheduler.no-workers-timeout": "60s"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Workers that are ready.

    Attributes:
        executor: Hands them work.
        workers: How many there were when it was opened; a cluster may grow.
    """

    executor: Executor
    workers: int


def check_address(address: str) -> str:
    """Return the address of a cluster if it is one.

    Raises:
        FormatError: It is not.
    """
    if not (_LOCAL.fullmatch(address) or _ADDRESS.fullmatch(address)):
        msg = f"`{address}` is not a cluster"
        hint = "`local:4` starts four workers here; `tcp://host:8786` is a Dask scheduler"
        raise FormatError(msg, hint=hint)
    return address


@contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine; it is left when the block ends.

    Args:
        address: `tcp://host:port` of a running Dask scheduler, or `local:N` for N processes.

    Raises:
        FormatError: The address is neither.
        MissingDataError: Dask is not installed, or no scheduler answers.
    """
    local = _LOCAL.fullmatch(check_address(address))
    distributed = _import_distributed()
    if local is None:
        with _connect(distributed, address) as client:
            yield _of(client)
        return
    import dask

    with (
        dask.config.set(_DESERTED),
        distributed.LocalCluster(
            n_workers=int(local[1]), threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield _of(client)


def _of(client: Any) -> Cluster:
    # without `pure=False`, Dask would hash every argument to look for equal calls
    return Cluster(client.get_executor(pure=False), max(1, len(client.nthreads())))


def _connect(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        msg = f"no Dask scheduler answers at `{address}`"
        hint = "`dask scheduler` prints its address; `local:4` needs none"
        raise MissingDataError(msg, hint=hint) from error


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        msg = "`--cluster` needs Dask, which is not installed"
        raise MissingDataError(msg, hint='pip install "entitybench[cluster]"') from error
    return distributed
