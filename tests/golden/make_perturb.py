#!/usr/bin/python3
"""Make tests/golden/perturb: small images, and what Pillow's JPEG and OpenCV make of them.

Run with Debian 12's python3-pil (9.4) and python3-opencv (4.6).  The manifest has one line a fact:

    pixels SOURCE how EXPECTED       files of this folder; how as dfx_perturb() takes it
    jpeg SOURCE how sha256           of the encoded bytes
"""
import hashlib
import io
import pathlib
import shutil
import sys

import cv2
import numpy as np
from PIL import Image

sys.dont_write_bytecode = True
from make_images import photo  # noqa: E402

OUT = pathlib.Path(__file__).parent / "perturb"


def scaled(side, percent):
    return max(1, (side * percent + 50) // 100)


def jpeg_bytes(rgb, quality):
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def perturb(rgb, how):
    name, _, parameter = how.partition(":")
    h, w = rgb.shape[:2]
    if name == "raw":
        return rgb
    if name == "jpeg":
        return np.array(Image.open(io.BytesIO(jpeg_bytes(rgb, int(parameter)))))
    if name == "blur":
        return cv2.GaussianBlur(rgb, (int(parameter), int(parameter)), 0, borderType=cv2.BORDER_REFLECT_101)
    if name == "scale":
        return cv2.resize(rgb, (scaled(w, int(parameter)), scaled(h, int(parameter))), interpolation=cv2.INTER_AREA)
    if name == "rotate":
        matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), float(parameter), 1)
        return cv2.warpAffine(rgb, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cv2.flip(rgb, {"": -1, "h": 1, "v": 0}[parameter])


def sources():
    rng = np.random.RandomState(6)
    yield "photo", photo(45, 32, 61)
    yield "wide", photo(70, 9, 62)
    yield "noise", (rng.rand(21, 26, 3) > 0.5).astype(np.uint8) * 255
    yield "tiny", photo(3, 2, 63)
    yield "dot", photo(1, 1, 64)
    yield "column", photo(1, 13, 65)


HOW = ["raw", "jpeg:1", "jpeg:50", "jpeg:75", "jpeg:90", "jpeg:100", "blur:1", "blur:3", "blur:5", "blur:7", "blur:9", "blur:15",
       "blur:31", "scale:50", "scale:33", "scale:99", "scale:200", "scale:150", "scale:1", "scale:100", "rotate:45",
       "rotate:135", "rotate:-12.5", "rotate:90", "rotate:180", "flip", "flip:h", "flip:v"]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    lines = []
    for name, rgb in sources():
        rgb = np.ascontiguousarray(rgb)
        Image.fromarray(rgb).save(OUT / f"{name}.png", optimize=True)
        for how in HOW:
            if name != "photo" and how in ("jpeg:75", "blur:5", "blur:9", "scale:99", "rotate:135", "rotate:180"):
                continue
            expected = f"{name}-{how.replace(':', '')}.png"
            Image.fromarray(np.ascontiguousarray(perturb(rgb, how))).save(OUT / expected, optimize=True)
            lines.append(f"pixels {name}.png {how} {expected}")
            if how.startswith("jpeg"):
                digest = hashlib.sha256(jpeg_bytes(rgb, int(how[5:]))).hexdigest()
                lines.append(f"jpeg {name}.png {how} {digest}")
    (OUT / "manifest.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
