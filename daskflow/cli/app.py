"""The command ``daskflow``: a chain of operators, left to right over named volumes."""

from __future__ import annotations

import ast
import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

import daskflow
from daskflow.cli import commands
from daskflow.cli.chain import Chain, Settings, Step, check_cluster, run
from daskflow.cli.wording import as_typed, definitions
from daskflow.config import meant
from daskflow.errors import DaskflowError, ParameterError
from daskflow.operators.aliases import ALIASES, FORMER_NAMES, SHIPPED
from daskflow.plugins import entry_points

_EXAMPLE = """\b
Commands form a chain: each reads the volume named by -i and names its result by -o
("chunk" by default). Nothing is read before the end of the line; then every
sink (save..., evaluate-...) runs in one resumable job. Axes are z y x.

\b
  daskflow open image.tif inference -m net.py -w net.pt -s 20 256 256 \\
           threshold -t 0.5 connected-components save segmentation
"""

# What users of chunkflow and igneous type, and what it is called here.
FORMER = {
    "blackout": "fill",
    "ccl": "connected-components",
    "design": "plan",
    "forge": "mesh",
    "image": "open",
    "skeleton": "skeletonize",
    "xfer": "save",
    "touch": "verify",
    "voxels": "voxel-counts",
}


class Commands(click.Group):
    """The commands: operators, found by name when they are typed, and those that are not operators."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        operators = [name for group in listed().values() for name, _ in group]
        return sorted([*operators, *commands.COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name; only then is its operator imported."""
        cmd_name = FORMER_NAMES.get(cmd_name, cmd_name)
        if cmd_name in commands.COMMANDS:
            return commands.COMMANDS[cmd_name]
        from daskflow.cli.options import command
        from daskflow.volume import has_operator, load_operator

        plugins = ctx.ensure_object(dict)
        if cmd_name in plugins:
            return command(plugins[cmd_name])
        name = cmd_name.replace("-", "_")
        return command(load_operator(name)) if has_operator(name) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the next word names, or say what it may have meant."""
        if args[0] == "plugin" and args[2:3] == ["agglomerate"]:
            from daskflow.cli.options import own_words

            if {"-a", "--args"}.isdisjoint(own_words(args[3:])):
                called, own = SHIPPED[args[2]]
                said = [f"--{name}={value}".removesuffix("=True").replace("_", "-") for name, value in own.items()]
                args = [called, *said, *args[3:]]  # as in chunkflow's README
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:  # as a shell asks
            known = [*self.list_commands(ctx), *FORMER_NAMES]
            raise click.UsageError(f"no command {args[0]!r}: {hint(args[0], known)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the line; what daskflow raises on purpose becomes one line and exit status 1."""
        with _told():
            return super().invoke(ctx)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the options before the first command."""
        with _told():
            return super().make_context(*args, **extra)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands in groups."""
        groups = listed()
        others = [(name, command.get_short_help_str(80)) for name, command in commands.COMMANDS.items()]
        for heading, rows in {**groups, "look and manage": others}.items():
            with formatter.section(heading.capitalize()):
                formatter.write_dl(rows)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Make what is raised inside a line for the terminal, without passwords."""
    try:
        yield
    except DaskflowError as error:
        raise click.ClickException(as_typed(str(error))) from error
    except click.ClickException as error:
        error.message = as_typed(error.message)  # type: ignore[misc]  # only its text changes
        raise


@click.group(
    cls=Commands,
    chain=True,
    help=f"Process 3D microscopy volumes blockwise on Dask.\n\n{_EXAMPLE}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(daskflow.__version__, prog_name="daskflow")
@click.option(
    "--cluster",
    "--scheduler-file",
    "cluster",
    metavar="WHERE",
    help="local, slurm or another kind that `daskflow clusters` lists, a scheduler's address or scheduler.json, or a"
    " YAML file with a kind and its options; by default on this machine.",
)
@click.option(
    "--cluster-option",
    "cluster_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of that kind of cluster, e.g. walltime=2h or queue=short; repeatable.",
)
@click.option("--workers", metavar="N|MIN:MAX", help="Worker processes; 2:50 for as many as there is work for.")
@click.option("--threads", type=click.IntRange(1), help="Threads per worker.")
@click.option("--memory", metavar="SIZE", help="Memory limit of each worker, e.g. 4GB.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--dry-run/--real-run", hidden=True, help="The same, as chunkflow calls it.")
@click.option(
    "--retries", type=click.IntRange(0), default=2, show_default=True, help="How often a block may fail again."
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first block that fails.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but what was asked for, warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Show all that is logged.")
@click.option("--log", "log_file", type=click.Path(dir_okay=False), help="Write all that is logged to a file, too.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False), hidden=True
)
@click.option("--overwrite", is_flag=True, help="Start over: forget what earlier runs of the job have done.")
@click.option("--retry-failed", is_flag=True, help="Run the blocks that failed in an earlier run, too.")
@click.option("--share", is_flag=True, help="Run the job together with others that run the same line with --share.")
@click.option("--queue", metavar="NAME", help="Share the blocks of the line by an SQS queue with other clusters.")
@click.option("--yes", is_flag=True, help="Do not ask before something is deleted or overwritten.")
@click.option("-m", "--mip", type=int, help="Pyramid level of the commands that name none.")
@click.option("--plugin-file", multiple=True, metavar="FILE", help="Python file with operators of your own.")
@click.pass_context
def app(ctx: click.Context, /, plugin_file: tuple[str, ...], **options: Any) -> None:
    """Set up what the commands share."""
    ctx.params["only_plan"] = options["only_plan"] or options["dry_run"]
    if level := options["log_level"] or ("debug" if options["verbose"] else None):
        logging.getLogger("daskflow").setLevel(level.upper())
    if options["log_file"]:
        _log_to(options["log_file"])
    if plugin_file:
        from daskflow.volume import load_file

        ctx.obj = {one.command: one for file in plugin_file for one in load_file(file)}


def _log_to(path: str) -> None:
    """Append all that is logged to a file, and leave what is shown as it is."""
    from daskflow.cli import Shown

    logger = logging.getLogger("daskflow")
    for shown in logger.handlers:
        shown.setLevel(logger.level or logging.WARNING)
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"--log {path}: {error.strerror}") from error
    handler.setFormatter(Shown("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


@app.result_callback()
@click.pass_context
def finish(ctx: click.Context, /, steps: list[Step | None], **options: Any) -> None:
    """Apply the commands in order, then run what the sinks have asked for in one job."""
    words = ctx.meta.get("daskflow.words", sys.argv[1:])
    command = ("daskflow", *(word for word in words if word not in ("--overwrite", "--retry-failed", "--share")))
    settings = Settings.of(options, command, ctx.meta.get("daskflow.directory"))
    chained = [step for step in steps if step is not None]
    if not chained:
        return
    check_cluster(settings)
    if options["queue"]:
        from daskflow.cli.line_tasks import with_queue

        chained = with_queue(options["queue"], chained, settings)
    if not chained:
        return
    if chained[0].generate:
        from daskflow.cli.line_tasks import run_tasks

        code = run_tasks(chained, settings)
    else:
        code = run(Chain().apply(chained), settings)
    if code:
        ctx.exit(code)


def listed() -> dict[str, list[tuple[str, str]]]:
    """Return the operators by group: (command, summary), sorted; those of other packages are last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    own = [(name, group, (ast.get_docstring(node) or "").partition("\n")[0]) for name, group, node in definitions()]
    for name, group, summary in sorted([*own, *((name, one.group, one.summary) for name, one in ALIASES.items())]):
        groups.setdefault(group, []).append((name.replace("_", "-"), summary))
    groups = dict(sorted(groups.items()))
    theirs = sorted({point.name for point in entry_points("daskflow.operators")})
    if theirs:
        groups["plugins"] = [(name.replace("_", "-"), "(plugin)") for name in theirs]
    return groups


def hint(word: str, known: Iterable[str]) -> str:
    """Return what to type instead of an unknown command."""
    if word in FORMER:
        return f"it is {FORMER[word]!r} here"
    if not ({"/", "."} & set(word) or Path(word).exists()):
        return meant(word, known).lstrip(" ;") or "see daskflow --help"
    if word.endswith(".py"):
        return f"it is a path; plugin -f {word} runs it, inference -m {word} takes a network from it"
    return f"it is a path; open {word} reads it, save {word} writes it"
