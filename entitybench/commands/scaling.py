"""`--shard` and `--cluster`, for the verbs that work image by image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from entitybench.commands.console import Decorator
from entitybench.errors import FormatError

if TYPE_CHECKING:
    from concurrent.futures import Executor


class _Shard(click.ParamType[Any]):
    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from entitybench.sharding import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except FormatError as error:
            self.fail(error.what, param, ctx)


class _Cluster(click.ParamType[Any]):
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from entitybench.cluster import check_address

        try:
            return check_address(value)
        except FormatError as error:
            self.fail(f"{error.what}; {error.hint}", param, ctx)


shard_option: Decorator = click.option(
    "--shard", type=_Shard(), help="Only part i of n, as NAME.part-i-of-n; `merge` joins the parts."
)
cluster_option: Decorator = click.option(
    "--cluster",
    type=_Cluster(),
    help="A Dask scheduler, tcp://host:port, or local:N; instead of --jobs.",
)


@contextmanager
def executor_on(cluster: str | None, jobs: int) -> Iterator[tuple[Executor | None, int]]:
    """Return what runs the work, and how many workers it has: a cluster, or processes here."""
    if cluster is None:
        yield None, jobs
        return
    from entitybench.cluster import open_cluster

    with open_cluster(cluster) as opened:
        yield opened.executor, opened.workers
