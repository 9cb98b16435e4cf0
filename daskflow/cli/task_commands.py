"""The commands about what a line has made so far, and about what tasks leave behind."""

from __future__ import annotations

import click

from daskflow.cli.chain import Chain, Step, say
from daskflow.cli.options import Numbers, WordCommand
from daskflow.errors import ParameterError

_SHOWN = 5


@click.command("copy-var", cls=WordCommand, short_help="Give a volume a second name.")
@click.option("-f", "--from-name", default="chunk", show_default=True, metavar="NAME", help="Name of a volume.")
@click.option("-t", "--to-name", default="chunk", show_default=True, metavar="NAME", help="Its second name.")
@click.option("--deep-copy/--shallow-copy", default=True, hidden=True, help="No difference: nothing changes a volume.")
def copy_var(from_name: str, to_name: str, deep_copy: bool) -> Step:  # noqa: ARG001
    """Give a volume a second name; the first may then be given to another."""

    def apply(chain: Chain) -> None:
        (volume,) = chain.volumes_named(from_name, object)
        chain.put(to_name, volume)

    return Step("copy-var", apply)


@click.command("delete-var", cls=WordCommand, short_help="Forget volumes of the line.")
@click.option("-v", "--var-names", required=True, metavar="NAMES", help="Names of volumes, with commas.")
def delete_var(var_names: str) -> Step:
    """Forget volumes of the line, so that a later command that means them is refused."""

    def apply(chain: Chain) -> None:
        chain.volumes_named(var_names, object)
        for name in var_names.split(","):
            chain.volumes.pop(name, None)

    return Step("delete-var", apply)


@click.command("skip-none", cls=WordCommand, short_help="Skip a task for which a volume was not read.")
@click.option("-i", "--input-name", default="chunk", show_default=True, metavar="NAME", help="Name of the volume.")
@click.option("--touch/--no-touch", default=True, help="Make an empty file named by the task's box, if it is skipped.")
@click.option("-p", "--prefix", help="Begins the path or URL of that file; without it, none is made.")
@click.option("-s", "--suffix", default="", help="Ends it; the box is between them.")
def skip_none(input_name: str, touch: bool, prefix: str | None, suffix: str) -> Step:
    """Skip a task for which a volume was not read, e.g. as its file holds nothing."""

    def apply(chain: Chain) -> None:
        from daskflow.operators.tasks._flags import flag_url
        from daskflow.operators.tasks._flags import touch as make_file

        chain.unread.pop(input_name, None)
        if input_name in chain.volumes:
            return
        chain.skipped = True
        if touch and prefix is not None:
            task = chain.one_task()
            if task is None:
                raise ParameterError("there is no task whose box could name the file; say --no-touch")
            make_file(flag_url(prefix, task.box, suffix))

    return Step("skip-none", apply)


@click.command(cls=WordCommand, short_help="Show what the line has made so far, and open Python's debugger.")
def debug() -> Step:
    """Show the task and the volumes that the line has made so far, and open Python's debugger with them in `chain`."""

    def apply(chain: Chain) -> None:
        chain.unread.clear()
        say(str(chain.task))
        for name, volume in chain.volumes.items():
            say(f"{name}: {volume!r}")
        breakpoint()

    return Step("debug", apply)


@click.command(cls=WordCommand, short_help="Delete files of a directory, e.g. those that mark tasks, after asking.")
@click.option("-d", "--dir", "directory", default="./", show_default=True, help="The directory; no others below it.")
@click.option(
    "-m",
    "--mode",
    type=click.Choice(["exist", "empty", "not-empty"]),
    default="exist",
    show_default=True,
    help="All files, those that hold nothing, or those that hold something.",
)
@click.option("-s", "--suffix", help="Only files whose names end so.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def cleanup(directory: str, mode: str, suffix: str | None, yes: bool) -> None:
    """Delete files of a directory, not those of directories in it, after showing how many there are."""
    from daskflow.operators.tasks._flags import holds_something
    from daskflow.stores import kvstore

    url = kvstore.normalise(directory)
    found = [name for name in kvstore.list_names(url) if "/" not in name and name.endswith(suffix or "")]
    if mode != "exist":
        found = [name for name in found if holds_something(kvstore.join(url, name)) == (mode == "not-empty")]
    count = f"{len(found):,} file{'s' * (len(found) != 1)}"
    say(f"{count} in {directory}: {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}")
    root = click.get_current_context().find_root().params
    if not found or root.get("only_plan"):
        return
    if not (yes or root.get("yes")):
        click.confirm("Delete them?", abort=True)
    for name in found:
        kvstore.delete(kvstore.join(url, name))
    say(f"deleted {count}")


@click.command("log-summary", cls=WordCommand, short_help="Show how long tasks took, from their logs.")
@click.option("-l", "--log-dir", default="./log", show_default=True, help="Directory of logs, a layer, or a job's.")
@click.option("-s", "--output-size", type=Numbers(int), help="Voxels that a task writes (zyx), for the speed.")
@click.option("--plot", metavar="FILE", help="SVG file for a picture of it.")
def log_summary(log_dir: str, output_size: tuple[int, ...] | None, plot: str | None) -> None:
    """Show how long the steps of tasks took: mean, longest, shortest and total, by compute device.

    Logs are those of chunkflow, those of save-precomputed --upload-log, and the reports of jobs.
    """
    from daskflow.layers.log import summarize_logs

    summary = summarize_logs(log_dir, output_size=output_size)
    say(str(summary))
    if plot is not None:
        summary.plot(plot)


COMMANDS = {
    command.name: command for command in (cleanup, copy_var, debug, delete_var, log_summary, skip_none) if command.name
}
