"""How often a JPEG file would make its decoder go over the picture.

Contract: reads markers only (ITU-T T.81, annex B); decodes nothing, believes no length.
"""

from __future__ import annotations

import re

# A marker within coded data: 0xFF is followed by 0 there, or by a restart marker (0xD0 to 0xD7).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA


def jpeg_scans(data: bytes) -> int:
    """Scans of a JPEG file up to its end of image; 0 for other files.

    A scan may take no more than a few bytes of the file, and always takes a pass over the picture.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return 0
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        if marker not in (0x01, _START_OF_IMAGE):  # without a length; 0x01 is TEM
            at += int.from_bytes(data[at : at + 2], "big")
    return scans
