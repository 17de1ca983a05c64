"""`sdsbench fetch PLAN`: put the weights and data of a plan's runs into this machine's caches, at their revisions."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("fetch")
@options.plan
@options.overrides
def command(plan: str, overrides: tuple[str, ...]) -> None:
    """Download and check the weights and data of a PLAN's runs, so that they need no network.

    Files already in the caches are checked and not downloaded again. Compute nodes must have access to the caches
    (HF_HOME, SDSBENCH_CACHE). Overrides are those of `sdsbench sweep`.
    """
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps.fetch import announce, fetch
    from sdsbench.sweeps.plan import named

    found, placing = named(plan), placings.parse(overrides)
    announce(found, placing, print)
    fetch(found, placing, print)
