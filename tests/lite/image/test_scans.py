"""A JPEG is decoded in as many passes as it says, so they are counted first."""

import io
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite.errors import BadInput
from lite.image import loading
from lite.image.loading import MAX_SCANS, load_image
from lite.image.scans import jpeg_scans
from tests.image_files import NOISE, encoded

START_OF_SCAN = b"\xff\xda"


def repeated(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    starts = [match.start() for match in re.finditer(START_OF_SCAN, data)]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (scans - len(starts)) + data[-2:]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100}])
def test_scans_of_ordinary_files_are_counted(options: dict[str, bool]) -> None:
    data = encoded(Image.fromarray(NOISE), "JPEG", **options)
    # Pillow writes neither previews nor comments with that marker.
    assert jpeg_scans(data) == data.count(START_OF_SCAN) == (10 if "progressive" in options else 1)


def test_previews_and_restarts_are_no_scans() -> None:
    inside, noise = repeated(40), Image.fromarray(NOISE)
    data = encoded(noise, "JPEG", comment=inside, exif=inside, restart_marker_blocks=1)
    assert data.count(START_OF_SCAN) > 1
    assert b"\xff\xd0" in data
    assert jpeg_scans(data) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_other_files_have_none(kind: str) -> None:
    assert jpeg_scans(encoded(Image.fromarray(NOISE), kind)) == 0


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xda", b"\xe0\xff", b"\xda\xff\xff"])
def test_cut_files_end_the_counting(tail: bytes) -> None:
    assert jpeg_scans(b"\xff\xd8\xff" + tail) <= 1


def test_a_file_of_many_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = repeated(400, 2000)
    assert len(data) < 60_000
    (tmp_path / "scans.jpg").write_bytes(data)
    for source in (data, tmp_path / "scans.jpg", io.BytesIO(data), Image.open(io.BytesIO(data))):
        start = time.process_time()
        with pytest.raises(BadInput, match=f"is a JPEG of 400 scans, .* {MAX_SCANS} are read"):
            load_image(source)
        assert time.process_time() - start < 0.5  # decoding takes 10 s


def test_a_large_picture_may_have_fewer() -> None:
    loading._check_scans("a.jpg", 12, 100_000_000)
    with pytest.raises(BadInput, match="a JPEG of 13 scans, but of this size 12 are read"):
        loading._check_scans("a.jpg", 13, 100_000_000)


@pytest.mark.parametrize("scans", [11, MAX_SCANS])
def test_a_file_of_some_more_scans_is_read(scans: int) -> None:
    assert load_image(repeated(scans)).rgb.shape == (64, 64, 3)


def test_a_large_picture_does_not_keep_others_waiting() -> None:
    with loading._DECODING_LARGE:  # as while one is decoded
        loaded: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: loaded.append(load_image(repeated(10)).rgb))
        thread.start()
        thread.join(20)
        assert len(loaded) == 1
