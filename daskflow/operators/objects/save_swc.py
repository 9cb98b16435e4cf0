"""Skeletons as SWC files."""

from __future__ import annotations

from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.jobs import Job
from daskflow.operators.objects._line_objects import writing_job
from daskflow.stores import kvstore
from daskflow.stores.objects.located import SkeletonSet
from daskflow.stores.objects.skeleton_files import to_swc
from daskflow.volume import Flag, operator


@operator()
def save_swc(skeletons: SkeletonSet, *, output_prefix: Annotated[str, Flag("-p")] = "./") -> Job:
    """Write skeletons as SWC files, in nm, xyz, one for each label: PREFIX and LABEL.swc.

    Args:
        skeletons: the skeletons.
        output_prefix: path or URL of a directory that is there, or ends in /; or how paths of files begin.

    Returns:
        The job; its report counts files and bytes.

    Raises:
        ParameterError: there are no skeletons.
    """
    if not skeletons:
        raise ParameterError("there are no skeletons to write")
    prefix = kvstore.normalise(output_prefix)
    local = kvstore.local_path(prefix)
    if output_prefix.endswith("/") or (local is not None and local.is_dir()):
        prefix += "/"
    files = [(f"{prefix}{label}.swc", to_swc(one).encode()) for label, one in skeletons.items()]
    return writing_job("save swc", prefix.rstrip("/"), files, "directory of files")
