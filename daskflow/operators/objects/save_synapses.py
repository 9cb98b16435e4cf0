"""Synapses as files."""

from __future__ import annotations

from typing import Annotated, Literal

from daskflow.jobs import Job
from daskflow.operators.objects._line_objects import file_to_write, writing_job
from daskflow.stores.objects.synapses import Synapses, encode_synapses
from daskflow.volume import Flag, operator


@operator()
def save_synapses(
    synapses: Synapses,
    *,
    file_path: Annotated[str, Flag("-f")],
    format: Annotated[Literal["chunkflow", "dvid"], Flag("-t")] = "chunkflow",  # noqa: A002
) -> Job:
    """Write synapses to an HDF5 or JSON file, as chunkflow does, or as the list that DVID takes.

    JSON has more than chunkflow's: also resolution and users. `load-synapses` reads all of them.

    Args:
        synapses: the synapses.
        file_path: path or URL that ends in .h5 or .json; .h5 is added to others. In a line of several tasks the name
            gets the box of each.
        format: dvid for DVID's list of sites, with places xyz, in JSON.

    Returns:
        The job.
    """
    url = file_to_write(file_path)
    kind = "dvid" if format == "dvid" else "json" if url.endswith(".json") else "h5"
    return writing_job("save synapses", url, [(url, encode_synapses(synapses, kind))])
