from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.stores.stated import is_no_length, nm_per, parse_length

METRE = 1e9
OME_TIFF = {
    "Ym": 1e24,
    "Zm": 1e21,
    "Em": 1e18,
    "Pm": 1e15,
    "Tm": 1e12,
    "Gm": 1e9,
    "Mm": 1e6,
    "km": 1e3,
    "hm": 1e2,
    "dam": 1e1,
    "m": 1,
    "dm": 1e-1,
    "cm": 1e-2,
    "mm": 1e-3,
    "µm": 1e-6,
    "nm": 1e-9,
    "pm": 1e-12,
    "fm": 1e-15,
    "am": 1e-18,
    "zm": 1e-21,
    "ym": 1e-24,
    "Å": 1e-10,
    "thou": 2.54e-5,
    "li": 0.0254 / 12,
    "in": 0.0254,
    "ft": 0.3048,
    "yd": 0.9144,
    "mi": 1609.344,
    "ua": 149597870700,
    "ly": 9460730472580800,
    "pc": 3.0856775814913673e16,
    "pt": 0.0254 / 72,
}
OME_ZARR = {
    "angstrom": 1e-10,
    "attometer": 1e-18,
    "centimeter": 1e-2,
    "decimeter": 1e-1,
    "exameter": 1e18,
    "femtometer": 1e-15,
    "foot": 0.3048,
    "gigameter": 1e9,
    "hectometer": 1e2,
    "inch": 0.0254,
    "kilometer": 1e3,
    "megameter": 1e6,
    "meter": 1,
    "micrometer": 1e-6,
    "mile": 1609.344,
    "millimeter": 1e-3,
    "nanometer": 1e-9,
    "parsec": 3.0856775814913673e16,
    "petameter": 1e15,
    "picometer": 1e-12,
    "terameter": 1e12,
    "yard": 0.9144,
    "yoctometer": 1e-24,
    "yottameter": 1e24,
    "zeptometer": 1e-21,
    "zettameter": 1e21,
}


@pytest.mark.parametrize(("unit", "metres"), [*OME_TIFF.items(), *OME_ZARR.items()])
def test_every_unit_of_ome_is_a_length(unit, metres):
    assert nm_per(unit) == pytest.approx(metres * METRE, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        *[(name, 1.0) for name in ("nm", "NM", "nanometer", "nanometers", "Nanometre", " nm ", np.array(["nm"]))],
        *[(name, 1e3) for name in ("um", "µm", "μm", "micron", "microns", "Micrometers", "\\u00B5m", "Âµm")],
        *[(name, 1e3) for name in ("µm".encode(), "µm".encode("latin-1"), np.bytes_(b"um"), b"um")],
        *[(name, 0.1) for name in ("Angstroms", "\\u00C5", "\u212b", "Å", "Å", "A")],
        *[(name, 2.54e7) for name in ("Inch", "inches")],
        *[(name, None) for name in ("pixel", "reference frame", "second", "furlong", "", None)],
    ],
)
def test_a_unit_goes_by_any_of_its_names(unit, nm):
    assert nm_per(unit) == nm


def test_what_is_no_length_is_told_from_what_is_misspelt():
    assert [is_no_length(unit) for unit in ("pixel", "Pixels", "reference frame", "", None)] == [True] * 5
    assert not is_no_length("furlong")


@given(value=st.floats(0.001, 1e6), unit=st.sampled_from(("nm", "um", "mm")))
def test_a_length_is_a_number_and_a_unit(value, unit):
    assert parse_length(f"{value!r} {unit}") == pytest.approx(value * nm_per(unit), rel=1e-11)


@pytest.mark.parametrize("text", ["", "nm", "4", "4 pixels", "4 nm 5"])
def test_other_texts_are_no_length(text):
    assert parse_length(text) is None
