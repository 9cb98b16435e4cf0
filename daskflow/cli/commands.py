"""The commands that are not operators."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from daskflow.cli.chain import Settings, agree, asked, client_for, say
from daskflow.cli.cluster_commands import clusters, submit, worker
from daskflow.cli.completion import completion
from daskflow.cli.options import Numbers, WordCommand
from daskflow.cli.task_commands import COMMANDS as OF_TASKS
from daskflow.cli.view_commands import COMMANDS as VIEWERS

if TYPE_CHECKING:
    from daskflow.geometry import LayerType

_SHOWN = 5


@click.command(cls=WordCommand, short_help="Show how far a job is, what failed, and what to type next.")
@click.argument("job", metavar="JOB")
def status(job: str) -> None:
    """Show how far a job is, what failed, and what to type next.

    JOB is the job's directory, or an output: then all jobs are shown that made it or parts of it, e.g. its meshes.
    """
    from daskflow.jobs import status as read_status
    from daskflow.jobs.status import find_all

    say("\n\n".join(str(read_status(one.url)) for one in find_all(job)))


@click.command(cls=WordCommand, short_help="Run the failed blocks of a job again.")
@click.argument("job", metavar="JOB")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def retry(ctx: click.Context, job: str, yes: bool) -> None:
    """Run the failed blocks of a job again, with the command line that it was started with, after asking.

    JOB is the job's directory, OUTPUT.daskflow, or an output. The command line is run only if you alone can have
    written it, on a disk of this machine.
    """
    from daskflow.cli.app import app
    from daskflow.jobs import status as read_status
    from daskflow.jobs.status import own_command

    command = own_command(job)
    shown = f"this runs, with the blocks that failed:\n  {shlex.join(command)}"
    planned = _only_plan()
    if yes or planned or ctx.find_root().params.get("yes"):
        say(shown, err=True)
    else:
        agree([shown])
    with app.make_context("daskflow", command[1:]) as fresh:
        fresh.meta.update({"daskflow.words": command[1:], "daskflow.directory": read_status(job).directory})
        fresh.params.update(retry_failed=True, overwrite=False, only_plan=planned or fresh.params["only_plan"])
        app.invoke(fresh)
    ctx.exit(0)


@click.command(cls=WordCommand, short_help="Read back all that is stored, and list what is missing or damaged.")
@click.argument("output", metavar="OUTPUT")
@click.option("-m", "--mip", type=int, help="Pyramid level of a layer; by default all.")
@click.option("--fill-missing", is_flag=True, help="Missing chunks are background; look for damaged ones alone.")
@click.option("--list", "listed", metavar="FILE", help="CSV file for every bad chunk: mip, box, error, message.")
@click.pass_context
def verify(ctx: click.Context, output: str, mip: int | None, fill_missing: bool, listed: str | None) -> None:
    """Read back all that is stored, and list what is missing or damaged; the exit status is 2 if anything is.

    OUTPUT is a layer, whose chunks, also those in shards, are read at every level, or a file. Without options, what
    else the same line has written is read, too. Blocks of a job that wrote what is bad are marked as not done: the same
    line, run again, recreates only them. --cluster and --workers before the command say what reads.
    """
    from daskflow.config import format_bytes
    from daskflow.layers.verify import verify as read_volumes
    from daskflow.layers.verify import volumes_beside

    alone = mip is not None or fill_missing or listed is not None
    name, volumes = (output, (output,)) if alone else volumes_beside(output)
    settings = replace(Settings.of(ctx.find_root().params), only_plan=False)
    with client_for(settings) as client:
        report = read_volumes(
            *volumes,
            name=name,
            mip=mip,
            fill_missing=fill_missing,
            output=listed,
            client=client,
            progress=False if settings.quiet else None,
        )
    if not (settings.quiet and report.ok):
        size = format_bytes(sum(stage.bytes_read for stage in report.stages))
        say(f"{report.headline}\nread {', '.join(volumes)}: {size} of voxels\n{report.details}")
    for name, chosen in (("missing", True), ("damaged", False)):
        total = report.counts.get(f"{name}_chunks", 0)
        bad = [one for one in report.failures if (one.exception == "MissingChunkError") == chosen]
        if bad:
            say(f"{total:,} chunk{'s' * (total != 1)} {name} (z0-z1_y0-y1_x0-x1):")
        for one in bad[:_SHOWN]:
            say(f"  {one.stage} {one.box}: {one.message}")
        if total > _SHOWN:
            say(f"  and {total - _SHOWN:,} more; {f'see {listed}' if listed else '--list FILE lists all'}")
    for twin in report.results.get("chunks_of_two_names", ()):
        say(f"{twin}: several files (.gz, .br, plain) hold this chunk, of which the newest counts")
    for job, blocks in report.results.get("set_back", {}).items():
        marked = f"{blocks:,} block{'s are' if blocks != 1 else ' is'} marked as not done in {job}"
        say(f"{marked}: run that job again to recreate only {'them' if blocks != 1 else 'it'}")
    ctx.exit(0 if report.ok else 2)


class _OpeningCommand(WordCommand):
    """A command that takes the options of `open` beside its own; they are imported when it is typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of this command and leave the rest of the chain."""
        from daskflow.cli.options import opening_options

        known = {param.name for param in self.params}
        self.params += [option for option in opening_options() if option.name not in known]
        return super().parse_args(ctx, args)


@click.command(
    cls=_OpeningCommand, short_help="Show what a layer is: levels, chunks, what is stored, meshes, skeletons."
)
@click.argument("layer", metavar="LAYER")
@click.option("--scan/--no-scan", default=None, help="Count what is stored; on a local disk by default.")
def info(layer: str, scan: bool | None, **opening: Any) -> None:
    """Show what a layer is: levels, chunks, how many of them are stored, meshes and skeletons, bytes on disk.

    LAYER is the path or URL of anything that `open` opens: also what is stated, and where, is shown, and the datasets
    of a file or group that holds several.
    """
    from daskflow.layers.info import layer_info

    say(str(layer_info(layer, scan=scan, **opening)))


@click.command(cls=WordCommand, short_help="Remove a layer, or levels, boxes, meshes or skeletons of it, after asking.")
@click.argument("layer", metavar="LAYER")
@click.option("-m", "--mip", "mips", type=Numbers(int), default=(), metavar="MIPS", help="Levels, with commas.")
@click.option("-s", "--start", type=Numbers(int), help="First voxel of a box, of the finest of these levels.")
@click.option("-z", "--size", type=Numbers(int), help="Voxels of the box; chunks inside it go.")
@click.option("--mesh", is_flag=True, help="The meshes, and the info's key.")
@click.option("--skeletons", is_flag=True, help="The skeletons, and the info's key.")
@click.option("--forget", is_flag=True, help="Take the levels out of the info too; the coarsest ones only.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(
    layer: str,
    mips: tuple[int, ...],
    start: tuple[int, ...] | None,
    size: tuple[int, ...] | None,
    mesh: bool,
    skeletons: bool,
    forget: bool,
    yes: bool,
) -> None:
    """Remove a layer with the jobs that made it, or what options name of it: what will go is shown first.

    Levels keep their entries in the info, so that they can be written again. Nothing outside the layer is touched but
    the records of jobs; no link inside it is followed.
    """
    from daskflow.errors import ParameterError
    from daskflow.geometry import BoundingBox, as_zyx
    from daskflow.layers.remove import plan_removal

    if (start is None) != (size is None):
        raise ParameterError("give both start and size of a box")
    box = None if start is None or size is None else BoundingBox.from_size(as_zyx(start), as_zyx(size))
    removal = plan_removal(layer, mips=mips, box=box, mesh=mesh, skeletons=skeletons, forget=forget)
    say(str(removal))
    if _only_plan():
        return
    if not (yes or click.get_current_context().find_root().params.get("yes")):
        click.confirm("Remove this?", abort=True)
    removed = removal.run()
    say(f"removed {removed:,} file{'s' * (removed != 1)}")


def _only_plan() -> bool:
    """Return whether the line shows what it would do, and does nothing."""
    return bool(click.get_current_context().find_root().params.get("only_plan"))


@click.command("set", cls=WordCommand, short_help="Correct what a layer says of itself, or choose its meshes.")
@click.argument("layer", metavar="LAYER")
@click.option("-l", "--layer-type", metavar="TYPE", help="image, segmentation, affinity_map or probability_map.")
@click.option("-v", "--voxel-size", type=Numbers(float), help="Of the finest level, in nm (zyx).")
@click.option("-o", "--voxel-offset", type=Numbers(int), help="First voxel of the finest level (zyx).")
@click.option("--mesh", metavar="NAME", help="Directory in the layer, of those that info lists, with its meshes.")
@click.option("--skeletons", metavar="NAME", help="And the one with its skeletons.")
@click.option("--undo", is_flag=True, help="Put back what the last correction changed.")
def set_layer(
    layer: str,
    layer_type: LayerType | None,
    voxel_size: tuple[float, ...] | None,
    voxel_offset: tuple[int, ...] | None,
    mesh: str | None,
    skeletons: str | None,
    undo: bool,
) -> None:
    """Correct what a layer says of itself, at every level: no voxel changes, and nothing else of the metadata.

    LAYER is a precomputed, zarr or OME-Zarr layer. Coarser levels keep their factors, and chunks stay where they are;
    so the offset of a precomputed layer whose chunk files are named by it is refused. What was there is kept in the
    provenance, for --undo. Files of other formats are saved anew instead. A layer with several directories of meshes
    or skeletons, which `daskflow info` lists, says which of them are its own: viewers and downloads take those.
    """
    from daskflow.errors import ParameterError
    from daskflow.layers.correct import Correction, correct
    from daskflow.layers.correct import undo as put_back
    from daskflow.stores.kvstore import rehearsing

    asked = (layer_type, voxel_size, voxel_offset, mesh, skeletons)
    if undo and set(asked) != {None}:
        raise ParameterError("undo stands alone: say what to set, or --undo")
    with rehearsing() if _only_plan() else nullcontext():
        lines = put_back(layer) if undo else correct(layer, Correction(*asked))  # type: ignore[arg-type]
    say("\n".join(lines))


@click.command(cls=WordCommand, short_help="Memory for a shape of blocks, or a shape for memory, of a layer.")
@click.argument("layer", metavar="LAYER")
@click.option("-m", "--mip", type=int, default=0, show_default=True, help="Pyramid level that is worked on.")
@click.option("--memory", default="3.5GB", show_default=True, metavar="SIZE", help="What a block may take, e.g. 4GB.")
@click.option("--shape", type=Numbers(int), help="Voxels of a block: show the memory of such a block.")
@click.option("--factor", type=Numbers(int), default=(1, 2, 2), help="Voxels per window of a coarser level.")
@click.option("--levels", type=click.IntRange(0), default=5, show_default=True, help="The most levels of interest.")
def plan(
    layer: str, mip: int, memory: str, shape: tuple[int, ...] | None, factor: tuple[int, ...], levels: int
) -> None:
    """Show the memory that blocks of a shape and their levels take, or the shape that gives the most levels.

    What any command line would do and take is shown by --plan before its first command.
    """
    from daskflow.config import format_bytes, parse_bytes
    from daskflow.geometry import BlockGrid, as_zyx
    from daskflow.operators.stores.downsample.levels import levels_within, memory_for, shape_within
    from daskflow.stores.opening import open_store

    store = open_store(layer, mip=mip)
    spec = store.spec
    window = as_zyx(factor, name="factor")
    voxel = spec.dtype.itemsize * (spec.channels or 1)
    unit = spec.write_unit or (64, 64, 64)
    if shape is None:
        block = shape_within(parse_bytes(memory), unit, voxel, window, levels=levels)
    else:
        block = as_zyx(shape, name="shape")
    needed = memory_for(block, voxel, window)
    made = 0 if window == (1, 1, 1) else min(levels, levels_within(needed, unit, voxel, window))
    z, y, x = block
    say(
        f"block zyx {z} {y} {x}: {format_bytes(needed)} with its levels, {made} level{'s' * (made != 1)} in one pass,"
        f" {len(BlockGrid(spec.box, block, spec.chunk_origin)):,} blocks of mip {store.mip}"
    )


@click.command(
    cls=WordCommand, short_help="Segment a synthetic volume: image, network, components, evaluation, viewer."
)
@click.option("-d", "--directory", default="daskflow-demo", show_default=True, help="Where the layers go.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes.")
@click.option("--view/--no-view", default=True, help="Serve the result in Neuroglancer until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, directory: str, workers: int | None, view: bool) -> None:
    """Run the whole pipeline on a synthetic volume of neurite-like tubes.

    Image, a small network's prediction, segmentation and truth are written as Neuroglancer layers, and the segmentation
    is compared with the truth. --cluster before the command says where; it must see the directory.
    """
    from daskflow.demo import run

    settings = Settings.of(ctx.find_root().params)
    cluster, options = asked(settings) or ("local", {})
    said = {} if workers is None else {"workers": workers}

    def tell(text: str) -> None:
        if not settings.quiet or "://" in text:
            click.echo(text)

    run(directory, cluster, {**options, **said}, view=view, say=tell)


COMMANDS = (
    OF_TASKS
    | VIEWERS
    | {
        one.name: one
        for one in (clusters, completion, demo, info, plan, remove, retry, set_layer, status, submit, verify, worker)
        if one.name
    }
)
