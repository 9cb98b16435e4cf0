import numpy as np
import pytest

from daskflow.errors import ModelError
from daskflow.inference.network import ModelFile, Network

HEAD = "from pathlib import Path\nimport numpy as np\n"


@pytest.fixture
def build(tmp_path):
    """Load the engine of a universal model file."""

    def build(body, input_patch=(4, 6, 6), output_patch=(2, 4, 4), channels=1, weights=None):
        path = tmp_path / "model.py"
        path.write_text(HEAD + body)
        return Network(
            "universal", input_patch, output_patch, channels=channels, model=ModelFile.at(path), weights=weights
        ).engine()

    return build


INFERENCER = """
class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        self.weight_path, self.mask = weight_path, output_patch_mask

    def __call__(self, patches):
        {body}
"""


def test_it_is_given_its_weights_and_a_mask_of_ones_of_the_output_patch(build, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"2.5")
    body = "return float(Path(self.weight_path).read_text()) * np.ones((len(patches), 1, *self.mask.shape)) * self.mask"
    engine = build(
        INFERENCER.format(body=body),
        weights=ModelFile.at(tmp_path / "w.bin"),
    )
    outputs = engine(np.ones((3, 1, 4, 6, 6), np.float32))
    assert outputs.shape == (3, 1, 2, 4, 4)
    assert outputs.dtype == np.float32
    assert (outputs == 2.5).all()


def test_a_file_that_wants_the_crop_margin_gets_it(build):
    engine = build(
        "class PatchInferencer:\n"
        "    def __init__(self, weight_path, output_patch_mask, crop_output_patch_margin=None):\n"
        "        self.margin = crop_output_patch_margin\n"
        "    def __call__(self, patches):\n"
        "        z, y, x = self.margin\n"
        "        return patches[:, :, z:-z, y:-y, x:-x]\n"
    )
    assert engine(np.ones((1, 1, 4, 6, 6), np.float32)).shape == (1, 1, 2, 4, 4)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("raise ValueError('not today')", "does not run.*not today"),
        ("def broken(:", "does not run.*SyntaxError"),
        ("InstantiatedModel = None", "framework='pytorch'"),
        ("class PatchInferencer:\n    pass", "cannot be made"),
        (INFERENCER.format(body="raise OSError('no TPU')"), r"failed on patches of shape \(1, 1, 4, 6, 6\).*no TPU"),
        (INFERENCER.format(body="return patches"), r"shape \(1, 1, 4, 6, 6\).*expected \(1, 1, 2, 4, 4\)"),
        (INFERENCER.format(body="return patches[0]"), r"expected \(1, 1, 2, 4, 4\)"),
    ],
)
def test_a_file_that_breaks_the_protocol_is_named(build, body, match):
    with pytest.raises(ModelError, match=match) as caught:
        build(body)(np.ones((1, 1, 4, 6, 6), np.float32))
    assert "model.py" in str(caught.value)
