from __future__ import annotations

import numpy as np
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.boxes import Box, cut_box, parse_boxes


def test_a_cell_holds_one_box_or_several() -> None:
    assert parse_boxes("0,68,400,400", "t") == (Box(0, 68, 400, 400),)
    assert parse_boxes(" 10, 0, 20, 30 ;0,0,5,5", "t") == (Box(10, 0, 20, 30), Box(0, 0, 5, 5))


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3", "1,2,3,4,5", "1,2,3,4;", ";1,2,3,4", "-1,2,3,4", "1.0,2,3,4", "a,b,c,d", "1;2;3;4",
        "1,2,3,\u0664", "1,2\n3,4",
    ],
)  # fmt: skip
def test_another_form_is_an_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_boxes(text, "t.csv line 7")
    assert str(caught.value) == (
        "Expected `boxes` as left,top,right,bottom in whole pixels, several separated by ';', "
        f"got {text!r} (t.csv line 7)."
    )


@pytest.mark.parametrize("text", ["5,0,5,9", "6,0,5,9", "0,9,5,9", "0,0,5,0"])
def test_a_box_without_area_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"with left < right and top < bottom, got '\d,\d,\d,\d' \(t.csv line 7\)\."):
        parse_boxes(f"0,0,9,9;{text}", "t.csv line 7")


def test_the_same_box_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Expected each box once, got '1,2,3,4' again \(t.csv line 7\)\."):
        parse_boxes("1,2,3,4;0,0,9,9;1, 2, 3, 4", "t.csv line 7")


def test_a_cut_is_the_pixels_of_the_box() -> None:
    image_HWC = np.arange(30 * 40 * 3, dtype=np.uint16).astype(np.uint8).reshape(30, 40, 3)
    cut_HWC = cut_box(image_HWC, Box(4, 7, 40, 30), "t")
    assert cut_HWC.shape == (23, 36, 3)
    for y in range(23):
        for x in range(36):
            assert (cut_HWC[y, x] == image_HWC[7 + y, 4 + x]).all()


@pytest.mark.parametrize("box", [Box(0, 0, 41, 30), Box(0, 0, 40, 31), Box(50, 50, 60, 60)])
def test_a_box_that_leaves_the_image_is_an_error_with_its_size(box: Box) -> None:
    with pytest.raises(ConfigError) as caught:
        cut_box(np.zeros((30, 40, 3), np.uint8), box, "t.csv line 7")
    assert str(caught.value) == (
        "Expected `boxes` as left,top,right,bottom in whole pixels, several separated by ';', inside the image of "
        f"40 x 30 px, got {str(box)!r} (t.csv line 7)."
    )
