"""Small pictures of images, made by Pillow if it is installed."""

from __future__ import annotations

import base64
import warnings
from io import BytesIO
from typing import Any

__all__ = ["HEIGHT", "ICON", "MAX_OCTETS", "MAX_PIXELS", "WIDTH", "thumbnail"]

#: The size of all thumbnails, in pixels; Mailpit's.
WIDTH, HEIGHT = 180, 120
#: Octets that an image may have.
MAX_OCTETS = 20 * 2**20
#: Pixels that an image may have: a file of some kilobytes can say that it has billions, which would fill the memory.
MAX_PIXELS = 24_000_000
# What Pillow is to read: not the rare formats, whose readers are tried less.
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_QUALITY = 75

#: What stands for an image that can't be shown, and for other files: a grey page with a folded corner.
ICON = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L2u71////m8H////6"
    "/+b9//j/wAALCAB4ALQBAREA/8QAGQABAQEBAQEAAAAAAAAAAAAAAAIDAQQF/8QAKBABAAIBAQYGAwEAAAAAAAAAAAECAzMREnFygbETMUFTY6Eh"
    "MqJh/9oACAEBAAA/APsgAAAAAAAAAAAAAAAAAAAAAAAADPLlmlqxWu9NtvrsT4uT2f6g8XJ7P9QeLk9n+oIzzFojJTcifKdu1sAAAAADHNrYuvZQ"
    "M8kVnLji+zd/O3bwKZYxWjHN4tSf1tt8v8l6AAAAABjm1sXXsoHJrW37RE8YRkpSMdpilfKfRti0qcsKAAAAAY5tbF17KATk078JaYtKnLCgAAAA"
    "GObWxdeygE5NO/CWmLSpywoAAAABjm1sXXsoBOTTvwlpi0qcsKAAAAAY5tbF17KATk078JaYtKnLCgAAAAGObWxdeygE5NO/CWmLSpywoAAAABlm"
    "pe1qWpu7a7fNzdz/AB/Zu5/j+zdz/H9m7n+P7ctTPasxPh/mNnq2pG7StZ84iIdAAAAAAAAAAAAAAAAAAAAAAAAAH//Z"
)


def thumbnail(octets: bytes) -> bytes | None:
    """A JPEG of :data:`WIDTH` times :data:`HEIGHT` pixels.

    :param octets: the image.
    :returns: the JPEG; ``None`` if Pillow is not installed, or the image is too large or none at all.
    """
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(octets), formats=_FORMATS) as image:
            # Pillow warns of large images; this program has a limit of its own.
            warnings.simplefilter("ignore")
            if image.width * image.height > MAX_PIXELS:
                return None
            return _drawn(image)
    except Exception:  # Pillow's readers raise many kinds of errors for files that are damaged or hostile
        return None


def _drawn(image: Any) -> bytes:
    from PIL import Image, ImageOps

    # A JPEG is read at a lower resolution at once.
    image.draft("RGB", (WIDTH * 2, HEIGHT * 2))
    image = ImageOps.exif_transpose(image).convert("RGBA")
    if image.width >= WIDTH and image.height >= HEIGHT:
        small = ImageOps.fit(image, (WIDTH, HEIGHT))
    else:
        image.thumbnail((WIDTH, HEIGHT))
        small = image
    # White, or transparent images would be black.
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas.paste(small, ((WIDTH - small.width) // 2, (HEIGHT - small.height) // 2), small)
    out = BytesIO()
    canvas.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
