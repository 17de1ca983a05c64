"""`sdsbench reproduce NAME.zip`: train runs of a bundle again and compare them with the originals."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("reproduce")
@click.argument("bundle", metavar="NAME.zip", type=options.PATH)
@options.overrides
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only N of its runs, from all methods in turn.")
@click.option("--run", "ids", multiple=True, metavar="ID", help="Only this run (an id or its prefix); repeatable.")
@click.option("--plugin", "plugins", multiple=True, metavar="MODULE", help="Allow this plugin's code; repeatable.")
@options.folder("--model", help="The model's folder, for runs with model=local.")
@options.folder("--output", "-o", help="Folder for runs, bundle and report; default: results/reproductions/NAME.")
def command(
    bundle: Path,
    overrides: tuple[str, ...],
    sample: int | None,
    ids: tuple[str, ...],
    plugins: tuple[str, ...],
    model: Path | None,
    output: Path | None,
) -> int:
    """Train runs of a bundle again and report for each: bitwise the same, the same answers, within the spread of its
    seeds, or different, with the differences in code, versions and hardware. The same command resumes after a stop.

    KEY=VALUE sets how runs are placed on this machine: threads, device, data.root. Exit codes: 0 all bitwise the same,
    10 at worst the same answers, 11 at worst within the spread, 12 some different; if a run could not be trained, the
    code of its error.
    """
    from sdsbench.core.errors import ConfigError, Problem, Refused, Unavailable
    from sdsbench.results.bundles.opened import opened
    from sdsbench.results.bundles.write import write
    from sdsbench.results.reproduction import rendering
    from sdsbench.results.reproduction.retrain import LocalSettings, chosen, retrain
    from sdsbench.results.terminal import print_markdown
    from sdsbench.sweeps import placing as placings

    if not bundle.is_file():
        raise Unavailable(f"{bundle}: no such bundle (a file that `sdsbench bundle` wrote).")
    if sample and ids:
        raise ConfigError([Problem("--sample", sample, "--sample N or --run ID, not both")])
    placing = placings.parse(overrides)
    for key in ("output_root", placings.GROUP_SIZE):
        if key in placing:
            raise Refused(f"{key}={placing[key]}: runs go to --output DIR, one after the other.")
    opened_bundle = opened(bundle)
    for name, reasons in opened_bundle.problems.items():
        print(f"left out, since it was changed after the bundle was made: {name}: {'; '.join(reasons)}")
    folder = output or Path("results/reproductions") / bundle.stem
    local = LocalSettings(folder / "runs", placing, plugins, model)
    results = retrain(opened_bundle, chosen(opened_bundle, sample, ids), local, lambda text: print(text, flush=True))
    if any(result.ours for result in results):
        own = folder / f"{bundle.stem}-reproduced.zip"
        write(own, [local.root])
        print(own)
    print(rendering.write(folder, bundle.name, results))
    print_markdown(rendering.markdown(bundle.name, results))
    # The code of an error (2 to 4) counts more than that of an answer (10 to 12), although it is smaller.
    failed = [result.exit_code for result in results if result.ours is None]
    return max(failed or [result.exit_code for result in results])
