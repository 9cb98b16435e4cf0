"""Operators under the names and options of chunkflow: a table; nothing is imported to read it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Alias(NamedTuple):
    """An operator that calls others, from which its options have their types, defaults and help.

    Attributes:
        summary: the first line of its docstring.
        steps: the operators it calls, one after the other, each with the options that are fixed. One from volume to
            volume is called only where an option of it is given.
        options: its options, with commas. ``-f file_name=url`` is `file_name`, short ``-f``, for the option `url` of
            the first step that has one; ``-p path=url/`` is joined to that, as a path; ``axes`` keeps its name;
            ``compression|gzip|none`` has a choice, first its default; what ends in ``!`` must be given.
        group: the heading it is listed under.
    """

    summary: str
    steps: dict[str, dict[str, Any]]
    options: str
    group: str = "stores"


_CAST: dict[str, dict[str, Any]] = {"astype": {"overflow": "wrap"}}

ALIASES = {
    "load_h5": Alias(
        "Open a dataset of an HDF5 file, or a part of it.",
        {"open": {"format": "hdf5"}, **_CAST, "pick_channels": {}, "crop": {}},
        "-f file_name=url, -d dataset_path=dataset, -e dtype, -l layer_type, -v voxel_offset, -x voxel_size,"
        " -c channels, -t cutout_start=start, -p cutout_stop=stop, -s cutout_size=size, axes, time",
    ),
    "load_npy": Alias(
        "Open an NPY file.",
        {"open": {"format": "npy"}},
        "-f file_name=url, -t voxel_offset, -s voxel_size, axes, time",
    ),
    "load_nrrd": Alias(
        "Open an NRRD file.",
        {"open": {"format": "nrrd"}, **_CAST},
        "-f file_name=url, -v voxel_offset, -s voxel_size, -d dtype, axes, time",
    ),
    "load_png": Alias(
        "Open PNG files: one section, or a directory of them, of which numbers in the names are z.",
        {"open": {"format": "png"}, **_CAST, "crop": {}},
        "-p path=url, -t voxel_offset, -x voxel_size, -c cutout_offset=start, -s chunk_size=size, dtype, fill_missing",
    ),
    "load_tif": Alias(
        "Open a TIFF stack: a file, or a directory with one file per section.",
        {"open": {"format": "tiff"}, **_CAST},
        "-f file_name=url, -v voxel_offset, -s voxel_size, -l layer_type, -d dtype, axes, time",
    ),
    "load_zarr": Alias(
        "Open a zarr array or an OME-Zarr image, or a part of it.",
        {"open": {}, "crop": {}},
        "-f store=url, -p path=url/, -s chunk_start=start, -z chunk_size=size, -v voxel_size, fill_missing, axes, time",
    ),
    "normalize_contrast_nkem": Alias(
        "Stretch the grey values of every section, or of the whole volume, to a range.",
        {"normalize_contrast": {}},
        "-l lower_clip_fraction, -u upper_clip_fraction, minval, maxval, per_section",
        "image",
    ),
    "normalize_section_contrast": Alias(
        "Stretch the grey values of every section to a range, by levels that were counted before.",
        {"normalize_contrast": {}},
        "-p levels_path=levels!, -l lower_clip_fraction, -u upper_clip_fraction, minval, maxval",
        "image",
    ),
    "save_h5": Alias(
        "Write a volume to an HDF5 file, with its offset and voxel size, as chunkflow does.",
        {**_CAST, "declare": {}, "translate": {}, "save": {"format": "hdf5"}},
        "-f file_name=url, -d dtype, -v voxel_size, to, -s chunk_size=chunk, -c compression|gzip|lzf|none, overwrite",
    ),
    "save_npy": Alias(
        "Write a volume to an NPY file; offset and voxel size are not kept by the format.",
        {"save": {"format": "npy"}},
        "-f file_name=url, overwrite",
    ),
    "save_nrrd": Alias(
        "Write a volume to an NRRD file, with its offset and voxel size.",
        {"save": {"format": "nrrd"}},
        "-f file_name=url, -c compression|gzip|none, overwrite",
    ),
    "save_pngs": Alias(
        "Write a volume to a directory of PNG files, one per section, each named by its z.",
        {"astype": {"unit_range": True}, "save": {"format": "png"}},
        "-o output_path=url, -t dtype|uint8|uint16, overwrite",
    ),
    "save_tif": Alias(
        "Write a volume to a TIFF stack with its voxel size.",
        {"astype": {"overflow": "wrap", "unit_range": True}, "save": {"format": "tiff"}},
        "-f file_name=url, -t dtype, -c compression|zlib|none|lzw|lzma, overwrite",
    ),
    "save_zarr": Alias(
        "Write a volume to an OME-Zarr 0.5 image.",
        {**_CAST, "declare": {}, "save": {"format": "ome-zarr"}},
        "-s store=url, dtype, -r resolution=voxel_size, -c chunk_size=chunk, shard, -m mip, bounds, shape=bounds,"
        " overwrite",
    ),
}

FORMER_NAMES = {
    "cutout": "load-precomputed",
    "fetch-task": "fetch-task-from-sqs",
    "skip-task": "skip-task-by-file",
    "delete-chunk": "delete-var",
    "load-pngs": "load-png",
    "save-png": "save-pngs",
    **{f"read-{kind}": f"load-{kind}" for kind in ("h5", "json", "npy", "nrrd", "precomputed", "tif", "zarr")},
    **{f"write-{kind}": f"save-{kind}" for kind in ("h5", "npy", "nrrd", "pngs", "precomputed", "tif", "zarr")},
    "read-pngs": "load-png",
}
"""Commands of older tutorials of chunkflow, and what they are called."""

SHIPPED: dict[str, tuple[str, dict[str, Any]]] = {
    "agglomerate": ("agglomerate", {"one_minus": True, "threshold": 0.7}),
    "clahe": ("clahe", {"clip_limit": 20.0, "tile_grid": (512, 512)}),
    "fill_segmentation_holes": ("fill_segmentation_holes", {}),
    "gaussian_filter": ("gaussian_filter", {}),
    "inverse": ("inverse", {}),
    "mapto01": ("mapto01", {}),
    "median_filter": ("median_filter", {}),
    "print_max_id": ("statistics", {}),
    "rescale_intensity": ("rescale_intensity", {}),
    "statistics": ("statistics", {}),
    "stretch_intensity": ("stretch_intensity", {}),
    "transpose": ("transpose", {}),
}
"""Chunkflow's own plugins, the operators that they are here, and the options that they stand for."""

TWINS = {
    "download-mesh": "download_meshes",
    "downsample": "downsample_volume",
    "mesh": "mesh_fragments",
    "save": "save_precomputed",
}
"""Commands that chunkflow calls like another operator here; an option that only the second one has means that one."""

UNUSED_OPTIONS = {
    "aggregate-skeleton-fragments": ("-i --input-name",),
    "downsample-upload": ("--fill-missing/--no-fill-missing",),
    "load-h5": ("--set-bbox/--no-set-bbox", "--remove-empty/--do-not-remove"),
    "load-synapses": ("--set-bbox/--not-set-bbox",),
    "load-png": ("-d --digit-num",),
    **dict.fromkeys(
        ("generate-tasks", "load-precomputed", "skip-task-by-blocks-in-volume"), ("--use-https/--use-credential",)
    ),
    "load-zarr": ("-b --driver",),
    "mesh-fragments": ("-f --simplification-factor", "-m --mip"),
    "save-h5": ("--with-offset/--keep-offset", "--touch/--no-touch"),
    "save-zarr": ("-o --order", "--infer-dtype/--no-infer-dtype"),
    "save-precomputed": ("-p --parallel", "--nproc", "--fill-missing/--no-fill"),
}
"""Options of chunkflow, by command, that are understood and have no effect.

They are of how it works: digits of names, processes of a writer, which are `--workers`, and
drivers. No file is deleted because it is empty, and arrays of zarr are stored zyx.
"""

FORMER_LETTERS = {
    "-c": ("clip_fraction", "clip_limit", "coverage"),
    "-d": ("dataset",),
    "-e": ("max_error",),
    "-f": ("format",),
    "-l": ("labels", "levels"),
    "-m": ("mapping",),
    "-o": ("output",),
    "-p": ("plot",),
    "-s": ("offset", "shape", "size"),
    "-t": ("table", "tile_grid", "to"),
    "-u": ("unmapped",),
    "-v": ("value",),
}
"""Letters that options have had, and that are understood where a command has no other use for them; help has only
those that mean one thing, but for chunkflow's."""

FORMER_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "agglomerate": {
        "--aff-threshold-low": ("--one-minus", "--low"),
        "--aff-threshold-high": ("--one-minus", "--high"),
        "--flip-channel": ("--one-minus", "--order", "xyz"),
        "--no-flip-channel": ("--one-minus", "--order", "zyx"),
        "--fragments-chunk": ("--one-minus", "--fragments"),
    },
    "normalize-contrast": {"--whole": ("--no-per-section",)},
    "normalize-contrast-nkem": {"--whole": ("--no-per-section",)},
    "contrast-levels": {"--directory": ("--output",), "-d": ("--output",)},
    "copy-objects": {
        "--sharded": ("--format", "sharded"),
        "--no-sharded": ("--format", "same"),
        "--dir": ("--directory",),
    },
    "skip-all-zero": {"--task-bbox": ("--no-chunk-bbox",)},
    "generate-tasks": {
        "--respect-stop": ("--no-respect-chunk-size",),
        "-l": ("--volume-path",),
        "-o": ("--roi-start",),
    },
    "inference": {"--patch-size": ("--input-patch-size",), "--patch-overlap": ("--output-patch-overlap",)},
    "load-json": {"-n": ("--name",)},
    "load-synapses": {"--f-order": ("--no-c-order",), "--keep-all": ("--no-remove-outside",)},
    "load-precomputed": {"--start": ("--chunk-start",), "--stop": ("--chunk-stop",), "--size": ("--chunk-size",)},
    "mesh": {
        "--sharded": ("--format", "sharded"),
        "--compress-level": ("--draco-level",),
        "--no-fill-holes": ("--fill-holes", "0"),
    },
    "save-h5": {"--without-offset": ("--to", "0,0,0")},
    "skeletonize": {
        "--sharded": ("--format", "sharded"),
        "--no-sharded": ("--format", "files"),
        "--output-path": ("--output",),
        "--no-fill-holes": ("--fill-holes", "0"),
    },
    "watershed": {"--aff-threshold-low": ("--low",), "--aff-threshold-high": ("--high",)},
}
"""Words of a command that are still understood, igneous's among them, and what they stand for."""
