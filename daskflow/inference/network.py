"""A network by its files and its declared shape; loaded once per process."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from daskflow.errors import ModelError, ParameterError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.inference.bumps import Bump
from daskflow.inference.engine import Array, Engine, Slices
from daskflow.inference.python_file import neighbours
from daskflow.volume.description import Option, describe

Framework = Literal["universal", "identity", "pytorch", "onnx", "prebuilt"]
Precision = Literal["float32", "float16", "bfloat16"]
Blend = Literal["bump", "none"]
Augment = Literal["none", "channels", "affinities"]

_ENGINES = {
    "universal": ("engine", "UniversalEngine"),
    "identity": ("engine", "IdentityEngine"),
    "pytorch": ("pytorch", "TorchEngine"),
    "onnx": ("onnx_file", "OnnxEngine"),
    "prebuilt": ("engine", "PrebuiltEngine"),
}
_LATER = ("compile", "bump", "augment", "inputs", "outputs", "prebuilt")  # options that came later than the first jobs
_KEPT = 4
_FEATURES = 64
_engines: OrderedDict[Network, Engine] = OrderedDict()
_loading = threading.Lock()


@dataclass(frozen=True)
class ModelFile(Option):
    """A local file that a network is made of, by path and content.

    Attributes:
        path: where it lies, on this machine and on every worker.
        sha256: hash of its content.
        neighbours: the files that a Python file needs from beside itself: modules by dotted name, others by "/path".
    """

    path: str
    sha256: str
    neighbours: tuple[tuple[str, ModelFile], ...] = ()

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> ModelFile:
        """Return the file at a path (`~` is the home directory)."""
        full = Path(path).expanduser().absolute()
        sha256 = _sha256(full)
        found = neighbours(full) if full.suffix == ".py" else {}
        files = tuple((name, cls(str(file), _sha256(file))) for name, file in sorted(found.items()))
        return cls(str(full), sha256, files)

    @property
    def token(self) -> str:
        """16 hexadecimal digits that stand for the content of the file and of its neighbours."""
        if not self.neighbours:
            return self.sha256[:16]
        contents = [self.sha256, *(f"{name} {file.sha256}" for name, file in self.neighbours)]
        return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:16]

    def content(self) -> bytes:
        """Return the bytes of the file, after checking that they are still the same."""
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        self._compare(hashlib.sha256(content).hexdigest())
        return content

    def verified(self) -> Path:
        """Return the path after checking that the content is still the same."""
        self._compare(_sha256(Path(self.path)))
        return Path(self.path)

    def describe(self) -> dict[str, Any]:
        """Return path and hash, and the hashes of its neighbours, as JSON."""
        described: dict[str, Any] = {"path": self.path, "sha256": self.sha256}
        if self.neighbours:
            described["neighbours"] = {name: file.sha256 for name, file in self.neighbours}
        return described

    def _compare(self, found: str) -> None:
        if found != self.sha256:
            raise ModelError(
                f"model file {self.path} has sha256 {found[:16]}..., not {self.sha256[:16]}... as planned;"
                " put the planned file in its place, or plan the job again"
            )


@dataclass(frozen=True)
class Network(Option):
    """What to run on each patch (zyx), and what it is declared to answer.

    Attributes:
        framework: who runs it: a chunkflow `PatchInferencer` file (universal), torch (pytorch), onnxruntime (onnx), an
            object of this process (prebuilt), or nobody (identity).
        output_patch: voxels it answers for (zyx), from the middle of those it sees.
        batch_size: patches per call.
        dtype: what torch computes in where precision allows (autocast); outputs are float32.
        device: where torch computes: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        blend: what becomes of answers that overlap: "bump", their weighted mean, float32; or "none", where each voxel
            takes the answer of the patch in which it lies deepest, in the type that the network answers.
        compile: whether torch compiles the network where it is run.
        net_output: index or name of the answer that counts, of a network that gives several; or some of them, with
            commas, whose channels follow each other.
        bump: how answers are weighted where they overlap, see `daskflow.inference.bumps`.
        augment: whether answers are means over the eight turns and mirror images of a patch in y and x: not (none), of
            each channel by itself (channels), or with the first three being affinities to the voxel before in x, y
            and z (affinities).
        inputs: channels of each input, of a network that takes several arrays; their sum is `input_channels`.
        outputs: channels of each answer, where `net_output` names several; their sum is `channels`.
        prebuilt: the object that is called with each batch.
    """

    framework: Framework
    input_patch: Zyx
    output_patch: Zyx
    channels: int = 3
    input_channels: int = 1
    model: ModelFile | None = None
    weights: ModelFile | None = None
    batch_size: int = 1
    dtype: Precision = "float32"
    device: str = "auto"
    blend: Blend = "bump"
    net_output: str | None = None
    compile: bool = False
    bump: Bump = "wu"
    augment: Augment = "none"
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    prebuilt: Callable[..., Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        known_words = {"framework": Framework, "dtype": Precision, "blend": Blend, "bump": Bump, "augment": Augment}
        for name, known in known_words.items():
            if getattr(self, name) not in get_args(known):
                raise ParameterError(f"{name} {getattr(self, name)!r} is none of {', '.join(get_args(known))}")
        if self.compile and self.framework != "pytorch":
            raise ParameterError(f"compile is for framework 'pytorch', not {self.framework!r}: leave it out")
        if (self.framework == "prebuilt") != (self.prebuilt is not None):
            raise ParameterError("framework 'prebuilt' takes an object as convnet_model, in Python; others do not")
        if self.framework not in ("identity", "prebuilt") and self.model is None:
            raise ParameterError(f"framework {self.framework!r} needs a model file: give convnet_model (-m)")
        for name in ("channels", "input_channels", "batch_size"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} {getattr(self, name)} must be at least 1")
        if self.augment != "none":
            self._check_augment()

    def _check_augment(self) -> None:
        if self.blend == "none":
            raise ParameterError("augment is the mean of eight answers, and blend 'none' keeps single ones: drop one")
        if self.augment == "affinities" and self.channels < 3:
            raise ParameterError(f"augment_affinities needs channels x, y and z, and the net answers {self.channels}")
        (_, *seen), (_, *answered) = self.input_patch, self.output_patch
        if seen[0] != seen[1] or answered[0] != answered[1] or (seen[0] - answered[0]) % 2:
            raise ParameterError(
                f"augment turns patches in y and x, so these must be equal in both the input patch {self.input_patch}"
                f" and the output patch {self.output_patch} zyx, which must lie in its very middle"
            )

    @property
    def name(self) -> str:
        """Names the network to people."""
        if self.prebuilt is not None:
            return getattr(self.prebuilt, "__name__", type(self.prebuilt).__name__)
        return self.model.path if self.model else self.framework

    @property
    def gpu(self) -> bool:
        """Whether it may compute on a GPU, wherever it is run."""
        return self.framework != "identity" and (self.device == "auto" or self.device.startswith("cuda"))

    @property
    def middle(self) -> Slices:
        """The part of an input patch that is the output patch (zyx)."""
        z, y, x = (
            slice((i - o) // 2, (i - o) // 2 + o) for i, o in zip(self.input_patch, self.output_patch, strict=True)
        )
        return z, y, x

    def split(self, patches: Array) -> list[Array]:
        """Return the inputs that patches of all channels (batch, channels, zyx) hold."""
        return np.split(patches, np.cumsum(self.inputs)[:-1], axis=1) if self.inputs else [patches]

    def engine(self) -> Engine:
        """Return the loaded network; this process loads it at the first call and keeps the last few."""
        with _loading:
            if self not in _engines:
                module, engine = _ENGINES[self.framework]
                _engines[self] = getattr(importlib.import_module(f"daskflow.inference.{module}"), engine)(self)
            _engines.move_to_end(self)
            if len(_engines) > _KEPT:
                _engines.popitem(last=False)
            return _engines[self]

    def check(self) -> None:
        """Load the network here and run it on one patch of seeded noise, as `answer_dtype` does."""
        self.answer_dtype()

    def answer_dtype(self) -> np.dtype[Any]:
        """Return the type that the network answers on one patch of seeded noise; float32 where answers are blended."""
        engine = self.engine()
        noise = np.random.default_rng(0).random((1, self.input_channels, *self.input_patch), np.float32)
        with engine.guard:
            (answer,) = engine(noise)
            engine.release()
        return np.dtype(np.float32) if self.blend == "bump" else answer.dtype

    def memory(self, box: BoundingBox) -> float:
        """Return about how many bytes it takes to answer for `box`, the image and the result apart.

        A batch holds its inputs and outputs, and 64 float32 features per voxel that the network sees, which is what
        U-Nets of common widths take; the sum over patches takes as much as the result.
        """
        features = self.input_channels + self.channels + (0 if self.framework == "identity" else _FEATURES)
        batch = self.batch_size * math.prod(self.input_patch) * features
        return 4.0 * (batch + self.channels * box.size)

    def describe(self) -> dict[str, Any]:
        """Return what the answers depend on, as JSON: not the batch size, nor where they are computed."""
        said = {one.name: (getattr(self, one.name), one.default) for one in fields(self)}
        described = {
            name: describe(value)
            for name, (value, default) in said.items()
            if name not in ("batch_size", "device") and not (name in _LATER and value == default)
        }
        files = {"model": self.model, "weights": self.weights}
        described |= {name: file.describe() for name, file in files.items() if file is not None}
        return described


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> ModelError:
    return ModelError(f"model or weight file {path} cannot be read: {error.strerror}; give a local file")
