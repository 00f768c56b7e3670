#!/usr/bin/python3
"""make_photos.py DIRECTORY: photographs of several sizes to decode, for bench_decode.

Mosaics of a golden photograph at its own resolution, whose grain is what keeps
a decoder busy: enlarging it would make files that decode too fast.  Pieces are
turned and mirrored; repetitions are further apart than deflate can see.
"""
import sys

from PIL import Image, ImageOps

SIZES = ((256, 256), (512, 512), (1024, 1024), (2048, 2048), (4000, 3000))


def mosaic(photo, width, height):
    out = Image.new("RGB", (width, height))
    variants = [photo, ImageOps.mirror(photo), ImageOps.flip(photo), photo.rotate(180)]
    for y in range(0, height, photo.height):
        for x in range(0, width, photo.width):
            out.paste(variants[(x // photo.width + y // photo.height) % len(variants)], (x, y))
    return out


def main(directory):
    photo = Image.open("tests/golden/images/photo-420-q90.jpg").convert("RGB")
    for width, height in SIZES:
        image, name = mosaic(photo, width, height), f"{directory}/{width}x{height}"
        image.save(f"{name}.png")
        for quality in (75, 90):
            image.save(f"{name}-q{quality}.jpg", quality=quality)
    image = mosaic(photo, 1024, 1024)
    image.convert("L").save(f"{directory}/1024x1024-grey.png")
    image.quantize(256).save(f"{directory}/1024x1024-palette.png")
    image.putalpha(image.convert("L"))
    image.save(f"{directory}/1024x1024-rgba.png")
    mosaic(photo, 4000, 3000).save(f"{directory}/4000x3000-progressive.jpg", quality=90, progressive=True)


main(sys.argv[1])
