"""What comes before a job runs: whether it is the one of its directory, and may run; what runs again; its claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daskflow.errors import AlreadyStoredError
from daskflow.jobs.batch import Verb
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.evaluate import warn
from daskflow.jobs.fingerprint import changed, changes, describe_stages, starts_afresh
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, Journal
from daskflow.jobs.outputs import forget_replaced, jobs_of, refuse_files
from daskflow.jobs.progress import Progress
from daskflow.jobs.report import Finish, Report
from daskflow.stores import kvstore
from daskflow.stores.kvstore import rehearsing
from daskflow.volume.stage import Output, Scopes, Stage, place_of

if TYPE_CHECKING:
    from daskflow.jobs.job import Job


@dataclass(frozen=True)
class Options:
    """How a job is run; the arguments of `Job.run`."""

    progress: bool | Progress | None = None
    retries: int = 2
    fail_fast: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    share: bool = False
    verb: Verb = "run"


@dataclass
class Prepared:
    """A job that may run, its stages bound.

    Attributes:
        earlier: the report of the run that did all of it, if one did.
        killed: whether the last run left no report.
    """

    stages: list[Stage]
    scopes: Scopes
    journal: Journal
    earlier: Report | None = None
    killed: bool = False


def prepare(job: Job, options: Options) -> Prepared:
    """Compare, check and claim a job that this driver has alone."""
    directory, outputs = job.home, job.outputs
    description = describe_stages(job.stages)
    renew = job.renewable and options.verb == "run"
    replaced = options.overwrite or _starts_over(job, directory)
    if replaced:
        _check_anew(job, directory)  # what is refused must not cost the record of what is there
    if options.overwrite:
        _delete_objects(directory, outputs)
    fresh = replaced or starts_afresh(directory, description, renew=renew, command=job.command)
    if fresh:
        directory.clear()
    made = directory.outputs if renew or not fresh else []
    scopes, stages = _bound(job, directory)
    journal = Journal(directory, stages)
    earlier = directory.load_report()
    complete = earlier is not None and earlier.ok
    killed = earlier is None and directory.read("job.json") is not None
    if options.verb == "run" and not options.overwrite:
        _refuse_to_replace(stages, outputs, made, description)
    theirs = _replaced_since(outputs, directory.outputs)
    if _reopen(job, stages, journal, options, theirs, complete=complete) and options.verb == "run":
        directory.forget_report()  # not before: it says that the scratch data are gone
    if fresh and not replaced and len(outputs) > 1:
        _check_anew(job, directory)  # what is refused of one output leaves nothing of another
    for stage in stages:
        stage.task.check()
    if options.verb == "run" and journal.finished and complete:
        return Prepared(stages, scopes, journal, earlier)
    if options.verb == "run":
        warn(job.warnings)
        forget_replaced([one for one in outputs if one.overwrite or options.overwrite], directory)
    anew = complete or options.overwrite
    owned = outputs if options.verb == "run" else [one for one in outputs if one not in theirs]
    directory.claim(job.name, description, job.command, outputs=owned, anew=anew)
    return Prepared(stages, scopes, journal, killed=killed)


def join(job: Job) -> Prepared:
    """Compare and check a job that other drivers have prepared, and share with this one."""
    directory = job.home
    known, description = directory.read("job.json"), describe_stages(job.stages)
    if changes(known["stages"], description):
        remedy = "Other drivers are running it: write to another output, or wait for them"
        raise changed(directory, known, description, job.command, remedy)
    scopes, stages = _bound(job, directory)
    with rehearsing():
        for stage in stages:
            stage.task.check()
    warn(job.warnings)
    return Prepared(stages, scopes, Journal(directory, stages))


def _bound(job: Job, directory: JobDirectory) -> tuple[Scopes, list[Stage]]:
    scopes = Scopes(directory.scratch)
    return scopes, [replace(stage, task=stage.task.bind(scopes)) for stage in job.stages]


def check_job(job: Job, *, overwrite: bool) -> None:
    """Raise what running a job would refuse before it computes; see `Job.check`."""
    directory = job.home
    made = directory.outputs
    description = describe_stages(job.stages)
    with rehearsing():
        if not overwrite and not _starts_over(job, directory):
            other = starts_afresh(directory, description, renew=job.renewable, command=job.command)
            made = [] if other and not job.renewable else made
        _, stages = _bound(job, directory)
        if not overwrite:
            _refuse_to_replace(stages, job.outputs, made, description)
        for stage in stages:
            stage.task.check()


def _check_anew(job: Job, directory: JobDirectory) -> None:
    """Raise what running a job from its start would refuse, scratch data of earlier runs aside; nothing is stored."""
    scopes = Scopes(kvstore.join(directory.url, "anew"))
    with rehearsing():
        for stage in job.stages:
            stage.task.bind(scopes).check()


def _starts_over(job: Job, directory: JobDirectory) -> bool:
    """Return whether the job replaces what another has made in its place."""
    known = directory.read("job.json")
    replaces = bool(job.outputs) and all(one.overwrite for one in job.outputs)
    return replaces and known is not None and bool(changes(known["stages"], describe_stages(job.stages)))


def _refuse_to_replace(
    stages: Sequence[Stage], outputs: Sequence[Output], made: Sequence[Output], description: dict[str, Any]
) -> None:
    """Raise when the stages would replace what neither they nor an earlier run of the job has made.

    What another job has made by the same stage is its own: a line of tasks, run again, makes a job of those that are
    not skipped.
    """
    refuse_files(outputs, made)
    levels = {(one.url, one.mip) for one in made if one.kind == "level"}
    for stage in stages:
        try:
            stage.task.refuse_to_replace(stage.grid.box, lambda url, mip: (place_of(url), mip) in levels)
        except AlreadyStoredError:
            if not _made_alike(stage, description[stage.name]):
                raise


def _made_alike(stage: Stage, described: dict[str, Any]) -> bool:
    """Return whether a job states that it has made all that a stage makes, by one that does the same."""
    places = {(place_of(one.url), one.mip) for one in stage.task.makes()}
    for job in (job for one in stage.task.makes() for job in jobs_of(one.url)):
        for name, other in job.read("job.json")["stages"].items():
            alike = {**other, "after": None} == {**described, "after": None}
            if alike and places <= {(one.url, one.mip) for one in job.outputs if one.stage == name}:
                return True
    return False


def _delete_objects(directory: JobDirectory, outputs: Sequence[Output]) -> None:
    """Delete meshes and skeletons that an earlier run made where this one makes some, which would be mixed."""
    made = {one.url for one in directory.outputs}
    for one in outputs:
        if one.kind in ("mesh", "skeletons") and one.layer != one.url and one.url in made:
            kvstore.delete_tree(one.url)


def _replaced_since(outputs: Sequence[Output], made: Sequence[Output]) -> list[Output]:
    """Return the outputs that the job's record does not state any more, as `forget_replaced` leaves it."""
    known = {(one.kind, one.url, one.mip, one.dataset) for one in made}
    return [one for one in outputs if known and (one.kind, one.url, one.mip, one.dataset) not in known]


def _reopen(
    job: Job, stages: list[Stage], journal: Journal, options: Options, replaced: Sequence[Output], *, complete: bool
) -> bool:
    """Set back to pending, in storage too, what must run again although an earlier run had settled it.

    That is stored before any check recreates an output, which would then be taken for what an earlier run made. Where
    a complete run has deleted its scratch data, those that such stages come after, or all if a finish function reads
    scratch data, run again, too. Return whether anything was marked as pending.
    """
    again: set[str] = set()
    places = {one.stage for one in replaced}  # "" is that of what no stage has made alone
    for stage in stages:
        if options.retry_failed and journal.forget(stage.name, FAILED):
            again.add(stage.name)
        gone = not places.isdisjoint((stage.name, "")) or not stage.task.intact()
        if gone and journal.forget(stage.name, DONE, EMPTY, FAILED):
            again.add(stage.name)
    unfinished = [stage for stage in stages if not journal.ledgers[stage.name].finished]
    if complete and unfinished and options.verb == "run":
        reads = any(isinstance(finish, Finish) and finish.reads_scratch for finish in job.finish)
        needed = set(journal.ledgers) if reads else set().union(*map(all_before, unfinished))
        again |= {name for name in needed if journal.forget(name, DONE, EMPTY, FAILED)}
    if again:
        journal.save(*again)
    return bool(again)


def all_before(stage: Stage) -> set[str]:
    """Return the names of the stages that one comes after, at once or by others."""
    found: set[str] = set()
    left = list(stage.after)
    while left:
        one = left.pop()
        if one.name not in found:
            found.add(one.name)
            left += one.after
    return found
