"""Messages as the command line has them."""

import pytest

from daskflow.cli.wording import as_typed


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("open it with layer_type='image' (--layer-type image)", "open it with --layer-type image"),
        ("replace it: --overwrite (overwrite=True in Python)", "replace it: --overwrite"),
        ("again (in Python: job.run(client, retry_failed=True))", "again"),
        ("volume_path, fill_missing=False, block=(1, 2, 3)", "--volume-path, --no-fill-missing, --block 1 2 3"),
        ("make it coarser with downsample_volume, levels=", "make it coarser with downsample-volume, --levels"),
        ("file:///a/layer_type/mip_0, a_b=3, walltime=2h", "file:///a/layer_type/mip_0, a_b=3, walltime=2h"),
    ],
)
def test_messages_name_options_as_they_are_typed(said, typed):
    assert as_typed(said) == typed
