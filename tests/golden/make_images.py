#!/usr/bin/python3
"""Make the golden images: encoded files, and what Pillow makes of them.

Run by Debian 12's own Pillow (9.4, libjpeg-turbo 2.1.5), whose pixels are this project's definition of decoding and
resizing.  Every picture is procedural and seeded.  The manifest has one line a fact:

    decode FILE format width height channels bits sha256(RGB) sha256(256x256) sha256(224x224 centre crop)
    resize FILE width height sha256(RGB resized)

The one deliberate difference: of 16-bit grey the high byte is taken, where Pillow's convert("RGB") clips.
"""
import hashlib
import io
import pathlib
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image

sys.dont_write_bytecode = True
import tiny_jpeg  # noqa: E402

OUT = pathlib.Path(__file__).parent / "images"
warnings.simplefilter("ignore", UserWarning)  # palette with transparency: exactly what is tested


# --- pictures ------------------------------------------------------------------------------------------------------

def photo(width, height, seed, grain=6.0):
    """Something like a photograph: smooth light, a few edges, texture, sensor noise."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / max(width - 1, 1), y / max(height - 1, 1)
    rgb = np.stack([90 + 120 * v, 110 + 60 * u * v, 190 - 110 * v], -1)
    for _ in range(7):
        cx, cy, r = rng.rand() * width, rng.rand() * height, (0.05 + 0.2 * rng.rand()) * max(width, height)
        inside = ((x - cx) ** 2 + (y - cy) ** 2 < r * r)[..., None]
        shade = 1 - 0.5 * np.hypot(x - cx + r / 3, y - cy + r / 3)[..., None] / r
        rgb = np.where(inside, rng.randint(40, 256, 3) * shade, rgb)
    rgb += 12 * np.sin(x / 3.1 + 5 * v)[..., None] * np.sin(y / 2.3)[..., None] * (v > 0.6)[..., None]
    rgb += rng.randn(height, width, 1) * grain + rng.randn(height, width, 3) * grain / 3
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


# --- PNG -----------------------------------------------------------------------------------------------------------

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack_rows(samples, bits):
    """[h][w][channels] samples to PNG row bytes."""
    h = samples.shape[0]
    flat = samples.reshape(h, -1)
    if bits == 16:
        return [r.astype(">u2").tobytes() for r in flat]
    if bits == 8:
        return [r.astype(np.uint8).tobytes() for r in flat]
    per = 8 // bits
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % per))).reshape(h, -1, per)
    shifts = np.arange(per)[::-1] * bits
    return [r.astype(np.uint8).tobytes() for r in (padded << shifts).sum(-1)]


def filter_row(kind, row, above, bpp):
    out = bytearray()
    for i, value in enumerate(row):
        a = row[i - bpp] if i >= bpp else 0
        b = above[i]
        c = above[i - bpp] if i >= bpp else 0
        p = a + b - c
        pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
        paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
        out.append((value - [0, a, b, (a + b) // 2, paeth][kind]) & 255)
    return bytes([kind]) + bytes(out)


def png(samples, bits, colour, interlace=False, before=b"", split=None):
    """A PNG; row filters 0 to 4 in turn; split: bytes per IDAT chunk."""
    h, w = samples.shape[:2]
    bpp = max(1, CHANNELS[colour] * bits // 8)
    raw, kind = b"", 0
    for x0, y0, dx, dy in ADAM7 if interlace else [(0, 0, 1, 1)]:
        part = samples[y0::dy, x0::dx]
        if part.size == 0:
            continue
        rows = pack_rows(part, bits)
        above = bytes(len(rows[0]))
        for row in rows:
            raw += filter_row(kind % 5, row, above, bpp)
            above, kind = row, kind + 1
    z = zlib.compress(raw, 9)
    pieces = [z[i:i + split] for i in range(0, len(z), split)] if split else [z]
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, interlace)) + before +
            b"".join(chunk(b"IDAT", p) for p in pieces) + chunk(b"IEND", b""))


def png_samples(w, h, bits, colour, seed):
    """Smooth on the left, noise on the right, so that every filter and depth has something to do."""
    rng = np.random.RandomState(seed)
    n, top = CHANNELS[colour], (1 << bits) - 1
    y, x = np.mgrid[0:h, 0:w]
    ramp = np.stack([(x * (c + 2) + y * 3) * top // (5 * (w + h)) for c in range(n)], -1)
    return np.where((x < w // 2)[..., None], ramp % (top + 1), rng.randint(0, top + 1, (h, w, n)))


def make_pngs(files):
    palette = np.random.RandomState(5).randint(0, 256, 768).astype(np.uint8).tobytes()
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for bits in depths:
            for interlace in (False, True):
                plte = chunk(b"PLTE", palette[:3 << bits]) if colour == 3 else b""
                files[f"png-c{colour}-b{bits}{'-adam7' if interlace else ''}.png"] = png(
                    png_samples(37, 29, bits, colour, 100 * colour + bits), bits, colour, interlace, plte)
    s = png_samples(24, 20, 8, 3, 1)
    grey, rgb = png_samples(24, 20, 8, 0, 2), png_samples(24, 20, 8, 2, 3)
    short, alpha = chunk(b"PLTE", palette[:90]), chunk(b"tRNS", bytes(range(0, 200, 5)))
    noise = b"".join(chunk(b"tEXt", b"Comment\0" + bytes([65 + i % 26]) * 50) for i in range(40))
    profile = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"cHRM", bytes(32)) + chunk(b"sBIT", b"\5\5\5")
    files["png-palette-trns.png"] = png(s, 8, 3, False, chunk(b"PLTE", palette) + alpha)
    files["png-palette-short.png"] = png(s, 8, 3, False, short)
    files["png-palette-none.png"] = png(s, 8, 3)
    files["png-palette-long.png"] = png(png_samples(24, 20, 2, 3, 4), 2, 3, True, chunk(b"PLTE", palette))
    files["png-grey-trns.png"] = png(grey, 8, 0, False, chunk(b"tRNS", struct.pack(">H", int(grey[0, 0, 0]))))
    files["png-rgb-trns.png"] = png(rgb, 8, 2, False, chunk(b"tRNS", struct.pack(">3H", *map(int, rgb[0, 0]))))
    files["png-rgb-plte-gamma.png"] = png(rgb, 8, 2, False, profile + chunk(b"PLTE", palette))
    files["png-many-chunks.png"] = png(rgb, 8, 2, True, noise + chunk(b"prVt", bytes(5000)), split=7)
    files["png-unknown-critical.png"] = png(grey, 8, 0, False, chunk(b"ABCD", b"?"))
    files["png-idat-crc.png"] = broken_idat_crc(png(grey, 8, 0))
    files["png-no-iend.png"] = png(grey, 8, 0)[:-12]
    for w, h in ((1, 1), (1, 7), (9, 1), (3, 2), (5, 5)):
        files[f"png-{w}x{h}-adam7.png"] = png(png_samples(w, h, 8, 2, w * h), 8, 2, True)
    files["png-1x3000.png"] = png(png_samples(1, 3000, 1, 0, 9), 1, 0)
    files["png-3000x1.png"] = png(png_samples(3000, 1, 1, 0, 9), 1, 0, True)


def broken_idat_crc(data):
    at = data.rindex(b"IEND") - 5
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


# --- JPEG ----------------------------------------------------------------------------------------------------------

JFIF = tiny_jpeg.segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform):
    return tiny_jpeg.segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def pil_jpeg(array, mode="RGB", **options):
    out = io.BytesIO()
    Image.fromarray(array, mode).save(out, "JPEG", **options)
    return out.getvalue()


def make_jpegs(files):
    for name, w, h, seed, options in (
            ("photo-420-q90.jpg", 520, 390, 11, dict(quality=90)),
            ("photo-444-q75.jpg", 300, 451, 12, dict(quality=75, subsampling=0)),
            ("photo-422-q85.jpg", 641, 359, 13, dict(quality=85, subsampling=1)),
            ("photo-progressive.jpg", 417, 313, 14, dict(quality=88, progressive=True)),
            ("photo-progressive-444.jpg", 250, 310, 15, dict(quality=60, progressive=True, subsampling=0)),
            ("photo-optimised.jpg", 320, 200, 16, dict(quality=95, optimize=True))):
        files[name] = pil_jpeg(photo(w, h, seed), **options)
    for w, h in ((1, 1), (2, 3), (7, 5), (8, 8), (17, 9), (16, 16), (1, 90), (90, 1), (256, 256), (256, 90), (90, 256),
                 (255, 257)):
        files[f"jpeg-{w}x{h}.jpg"] = pil_jpeg(photo(w, h, w * 1000 + h, 3.0), quality=70)
    files["jpeg-3x5-progressive.jpg"] = pil_jpeg(photo(3, 5, 3), quality=70, progressive=True)
    files["jpeg-grey.jpg"] = pil_jpeg(photo(131, 77, 21)[..., 1], "L", quality=80)
    files["jpeg-grey-progressive.jpg"] = pil_jpeg(photo(131, 77, 22)[..., 1], "L", quality=80, progressive=True)
    files["jpeg-exif-orientation.jpg"] = pil_jpeg(
        photo(60, 40, 23), quality=80, exif=bytes.fromhex("4578696600004d4d002a000000080001011200030000000100060000") +
        b"\0\0\0\0")
    files["jpeg-no-eoi-after-data.jpg"] = files["jpeg-16x16.jpg"] + b"trailing bytes"

    cmyk = np.concatenate([photo(83, 61, 31), photo(83, 61, 32)[..., :1]], -1)
    with_adobe = pil_jpeg(cmyk, "CMYK", quality=85)
    at = with_adobe.index(b"\xff\xee")
    files["jpeg-cmyk-adobe.jpg"] = with_adobe
    files["jpeg-cmyk-bare.jpg"] = with_adobe[:at] + with_adobe[at + 16:]
    files["jpeg-ycck-adobe.jpg"] = with_adobe[:at] + adobe(2) + with_adobe[at + 16:]
    files["jpeg-cmyk-progressive.jpg"] = pil_jpeg(cmyk, "CMYK", quality=70, progressive=True)

    planes = [np.ascontiguousarray(p) for p in photo(75, 53, 41).transpose(2, 0, 1)]
    four = planes + [np.ascontiguousarray(photo(75, 53, 42)[..., 0])]
    tiny = {
        "restart": ([(2, 2), (1, 1), (1, 1)], dict(restart=3, markers=JFIF)),
        "restart-grey": ([(1, 1)], dict(restart=7, markers=JFIF)),
        "411": ([(4, 1), (1, 1), (1, 1)], dict(markers=JFIF)),
        "440": ([(1, 2), (1, 1), (1, 1)], dict(markers=JFIF)),
        "410": ([(4, 2), (1, 1), (1, 1)], dict(markers=JFIF)),
        "odd-sampling": ([(2, 2), (1, 2), (2, 1)], dict(markers=JFIF)),
        "separate-scans": ([(2, 2), (1, 1), (1, 1)], dict(markers=JFIF, interleaved=False)),
        "separate-restart": ([(2, 1), (1, 1), (1, 1)], dict(markers=JFIF, interleaved=False, restart=5)),
        "bare": ([(1, 1)] * 3, {}),
        "rgb-adobe": ([(1, 1)] * 3, dict(markers=adobe(0))),
        "rgb-ids": ([(1, 1)] * 3, dict(ids=[82, 71, 66])),
        "rgb-adobe-jfif": ([(1, 1)] * 3, dict(markers=JFIF + adobe(0))),
        "ycc-adobe": ([(2, 2), (1, 1), (1, 1)], dict(markers=adobe(1))),
        "ycck-420": ([(2, 2), (1, 1), (1, 1), (2, 2)], dict(markers=adobe(2))),
        "cmyk-odd-adobe": ([(1, 1)] * 4, dict(markers=adobe(1))),
        "comments": ([(2, 1), (1, 1), (1, 1)],
                     dict(markers=JFIF + tiny_jpeg.segment(0xFE, b"x" * 900) * 3 + tiny_jpeg.segment(0xE7, b"y" * 999))),
    }
    for name, (sampling, options) in tiny.items():
        files[f"jpeg-{name}.jpg"] = tiny_jpeg.encode(four[:len(sampling)], sampling, **options)


# --- what Pillow makes of them --------------------------------------------------------------------------------------

def expected_rgb(data):
    image = Image.open(io.BytesIO(data))
    if image.mode == "I":
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high, "L").convert("RGB")
    return image.convert("RGB")


def header(data):
    if data[:2] == b"\xff\xd8":
        return "jpeg", {"L": 1, "RGB": 3, "CMYK": 4}[Image.open(io.BytesIO(data)).mode], 8
    bits, colour = data[24], data[25]
    return "png", CHANNELS[colour], bits


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def main():
    files = {}
    make_jpegs(files)
    make_pngs(files)
    OUT.mkdir(exist_ok=True)
    for stale in OUT.iterdir():
        stale.unlink()
    lines = []
    for name, data in sorted(files.items()):
        rgb = expected_rgb(data)
        side = rgb.resize((256, 256), Image.BILINEAR)
        kind, channels, bits = header(data)
        (OUT / name).write_bytes(data)
        lines.append(f"decode {name} {kind} {rgb.width} {rgb.height} {channels} {bits} "
                     f"{digest(rgb)} {digest(side)} {digest(side.crop((16, 16, 240, 240)))}")
    for name in ("photo-420-q90.jpg", "jpeg-17x9.jpg", "png-1x3000.png"):
        rgb = expected_rgb(files[name])
        for size in ((1, 1), (3, 500), (500, 3), (rgb.width, 100), (100, rgb.height), (rgb.width, rgb.height), (333, 222)):
            lines.append(f"resize {name} {size[0]} {size[1]} {digest(rgb.resize(size, Image.BILINEAR))}")
    (OUT / "manifest.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
