"""Pictures as cameras and scanners write them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from anograd import data


def test_deep_colours_are_refused_rather_than_cut(tmp_path):
    def chunk(kind, content):
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)  # Pillow writes no colours of 16 bits
    rows = zlib.compress(4 * (b"\0" + bytes(range(24))))
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    with pytest.raises(ValueError, match=r"deep.png' has more than 8 bits a pixel \(mode RGB\)"):
        data.read(tmp_path)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_moving_pictures_are_refused_rather_than_seen_by_halves(tmp_path, ending):
    first, second = (Image.fromarray(np.full((8, 8), value, dtype=np.uint8)) for value in (0, 200))
    first.save(tmp_path / f"x.{ending}", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match="holds 2 pictures, and only the first would be seen"):
        data.read(tmp_path)


def test_pictures_of_other_kinds_are_left_out_with_a_word(tmp_path):
    picture = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    for name in ("a.png", "b.gif", "c.PPM", "d.png"):
        picture.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.warns(UserWarning, match=r"^2 pictures left out of '.*', \.gif, \.ppm: read are \.png"):
        assert len(data.read(tmp_path)) == 2


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_text("nothing")
    with pytest.raises(
        ValueError, match=r"a.png' could not be read, .*: it does not begin as a picture does"
    ):
        data.read(tmp_path)


@pytest.mark.parametrize("kind", ["EPS", "GIF"])
def test_an_ending_does_not_open_what_is_of_another_kind(tmp_path, kind):
    """To read some kinds Pillow starts a program; of several pictures in a GIF it reads the first."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format=kind)
    with pytest.raises(ValueError, match=r"a\.png' could not be read, .*does not begin as a picture does"):
        data.read(tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_pictures_are_turned_as_they_are_looked_at(tmp_path, ending):
    upright = np.zeros((16, 8), dtype=np.uint8)
    upright[:8] = 200
    for i, orientation in enumerate((1, 3, 6, 8)):
        turned = np.rot90(upright, (0, 2, 1, 3)[i])
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(turned).save(tmp_path / f"{i}.{ending}", exif=exif, quality=100)
    found = data.read(tmp_path).astype(int)
    assert found.shape[2:] == (16, 8)
    assert np.abs(found - upright).max() <= 5


def test_a_picture_whose_notes_are_damaged_is_read_as_it_is_stored(tmp_path):
    Image.fromarray(np.full((5, 6), 7, dtype=np.uint8)).save(tmp_path / "x.png", exif=b"nothing")
    assert (data.read(tmp_path) == 7).all()


def test_deep_colours_that_lie_apart_are_refused(tmp_path):
    """Three planes of 16 bits, whose tiles Pillow names as it does those of 8."""
    side, pixels = 4, np.arange(3 * 16, dtype="<u2").tobytes()
    tags = {
        256: (3, 1, side), 257: (3, 1, side), 258: (3, 3, 8), 259: (3, 1, 1), 262: (3, 1, 2),
        273: (4, 3, 14), 277: (3, 1, 3), 278: (3, 1, side), 279: (4, 3, 26), 284: (3, 1, 2),
    }  # fmt: skip
    before = b"II*\0" + struct.pack("<I", 38)
    tables = struct.pack("<3H", 16, 16, 16)
    first = 38 + 2 + 12 * len(tags) + 4
    counts = struct.pack("<3I", 32, 32, 32)
    starts = struct.pack("<3I", first, first + 32, first + 64)
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in tags.items())
    content = before + tables + starts + counts + struct.pack("<H", len(tags)) + entries + bytes(4) + pixels
    (tmp_path / "planes.tif").write_bytes(content)
    with Image.open(tmp_path / "planes.tif") as opened:
        assert opened.tag_v2[258] == (16, 16, 16)
    with pytest.raises(ValueError, match=r"planes.tif' has more than 8 bits a pixel"):
        data.read(tmp_path)
