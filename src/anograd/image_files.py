"""A folder of images becomes an array; a damaged one is refused by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anograd.reading import BROKEN, extra, first_line

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
NOT_READ = (".gif", ".jp2", ".jfif", ".ppm", ".pgm", ".pbm", ".heic", ".heif", ".avif", ".tga", ".dcm")
READ = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "TIFF")  # whatever the ending; some others start programs
OF_SEVERAL = ("TIFF", "PNG", "WEBP")  # formats whose files may hold several pictures, of which one is read
DEEP = re.compile(";16[BLN]")  # in Pillow's name for how pixels are stored
BITS_A_SAMPLE = 258  # the tag of a TIFF; where its colours lie apart, Pillow's name does not tell


def read_images(root: Path, found: Sequence[str], below: Iterable[Path]) -> NDArray[np.uint8]:
    """Return the images of a folder, (n, C, H, W) with C = 1 (grey) or 3 (colour), all of one size.

    Parameters
    ----------
    root : Path
    found : sequence of str
        Their paths within the folder, in order.
    below : iterable of Path
        All files of the folder.

    Raises
    ------
    ValueError
        No image, a damaged one, or images of unlike size or mode; the message names it.
    ImportError
        It needs ``pip install 'anograd[images]'``.

    Warns
    -----
    UserWarning
        Pictures of kinds that are not read lie among them.
    """
    check_pictures(root, found, below)
    stack: NDArray[np.uint8] | None = None
    for i, name in enumerate(found):
        image = read_image(root, name)
        if stack is None:
            stack = np.empty((len(found), *image.shape), dtype=np.uint8)
        if image.shape != stack.shape[1:]:
            raise ValueError(
                f"the image {name!r} is of shape (C, H, W) = {image.shape}, but {found[0]!r} of "
                f"{stack.shape[1:]}; one size and one mode (grey or colour) are wanted: resize or "
                "convert them first"
            )
        stack[i] = image
    assert stack is not None
    return stack


def check_pictures(root: Path, found: Sequence[str], below: Iterable[Path]) -> None:
    """Raise ValueError where a folder holds no image, and warn of pictures that are not read.

    Parameters
    ----------
    root : Path
    found : sequence of str
    below : iterable of Path
        All as for `read_images`.
    """
    if not found:
        raise ValueError(
            f"the folder {str(root)!r} holds no image; wanted are files in {', '.join(IMAGE_ENDINGS)}"
        )
    others = [path for path in below if path.suffix.lower() in NOT_READ and not path.name.startswith(".")]
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
        warnings.warn(
            f"{len(others)} picture{'s' * (len(others) != 1)} left out of {str(root)!r}, {kinds}: read are "
            f"{', '.join(IMAGE_ENDINGS)}; write them as such, or move them away",
            UserWarning,
            stacklevel=4,
        )


def read_image(root: Path, name: str) -> NDArray[np.uint8]:
    """Return an image, (C, H, W) with C = 1 (grey) or 3 (colour), turned as it is looked at.

    Parameters
    ----------
    root : Path
    name : str
        Its path within the folder.

    Raises
    ------
    ValueError
        It is damaged, gone, of several pictures or of more than 8 bits; the message names it.
    ImportError
        It needs ``pip install 'anograd[images]'``.
    """
    image, operations = (extra(f"PIL.{one}", "images", root) for one in ("Image", "ImageOps"))
    try:
        # By its path an uncompressed TIFF would be mapped into memory, and turned before it is read.
        with (root / name).open("rb") as file, image.open(file, formats=READ) as opened:
            mode = opened.mode
            pages = getattr(opened, "n_frames", 1) if opened.format in OF_SEVERAL else 1
            # Of colours Pillow keeps 8 bits, whatever the file has, and says so nowhere else.
            deep = mode[0] in "IF" or any(DEEP.search(str(tile)) for tile in opened.tile)
            deep |= max(getattr(opened, "tag_v2", {}).get(BITS_A_SAMPLE, (8,))) > 8
            opened.load()
            with suppress(*BROKEN):  # of damaged notes on the picture, which itself is sound
                operations.exif_transpose(opened, in_place=True)
            pixels = np.asarray(opened.convert("L" if mode in ("1", "L", "LA", "La") else "RGB"))
    except FileNotFoundError as error:
        raise ValueError(
            f"the image {str(root / name)!r} is gone since the folder was listed: run it again"
        ) from error
    except (image.DecompressionBombError, *BROKEN) as error:
        raise ValueError(
            f"the image {str(root / name)!r} could not be read, it is damaged or cut short: {_said(error)}"
        ) from error
    if deep:  # a conversion to 8 bits would clip them without a word
        raise ValueError(
            f"the image {str(root / name)!r} has more than 8 bits a pixel (mode {mode}); folders are "
            "read with 8 bits: build the array yourself and give X.npy"
        )
    if pages > 1:
        raise ValueError(
            f"the image {str(root / name)!r} holds {pages} pictures, and only the first would be seen: "
            "write each to a file of its own, or give X.npy, in which they are channels (n, C, H, W)"
        )
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _said(error: BaseException) -> str:
    unknown = type(error).__name__ == "UnidentifiedImageError"  # which shows a Python object
    return "it does not begin as a picture does" if unknown else first_line(error)
