"""A small JPEG encoder for test files that Pillow cannot write.

It does what the golden images need and no more: baseline Huffman coding with the standard tables, any sampling
factors, restart intervals, interleaved or separate scans, markers chosen by the caller.  Speed and quality do not
matter; determinism does, so all arithmetic after the DCT is in integers.
"""
import struct

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))

# ITU-T T.81 annex K.3: code length counts and values, luminance tables (used for every component).
DC_COUNTS = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
DC_VALUES = list(range(12))
AC_COUNTS = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D]
AC_VALUES = bytes.fromhex(
    "0102030004110512213141061351610722711432 8191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738"
    "393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4"
    "a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    .replace(" ", ""))


def codes(counts, values):
    """Huffman value -> (code, length), by T.81 annex C."""
    table, code, k = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            table[values[k]] = (code, length)
            code, k = code + 1, k + 1
        code <<= 1
    return table


DC, AC = codes(DC_COUNTS, DC_VALUES), codes(AC_COUNTS, AC_VALUES)
DCT = np.array([[(0.5 if u else 0.5 / np.sqrt(2)) * np.cos((2 * x + 1) * u * np.pi / 16) for x in range(8)]
                for u in range(8)])


class Bits:
    """Entropy-coded bits, with the stuffing of 0xFF."""

    def __init__(self):
        self.out, self.acc, self.n = bytearray(), 0, 0

    def put(self, value, length):
        self.acc, self.n = self.acc << length | value, self.n + length
        while self.n >= 8:
            byte = self.acc >> (self.n - 8) & 0xFF
            self.out += b"\xff\x00" if byte == 0xFF else bytes([byte])
            self.n -= 8
        self.acc &= (1 << self.n) - 1

    def flush(self):
        if self.n:
            self.put((1 << (8 - self.n)) - 1, 8 - self.n)


def magnitude(v):
    """Size category and the bits that follow it (T.81 F.1.2)."""
    size = int(abs(v)).bit_length()
    return size, v if v >= 0 else v + (1 << size) - 1


def put_block(bits, block, previous):
    """One quantised block in zigzag order; returns its DC value."""
    size, extra = magnitude(block[0] - previous)
    bits.put(*DC[size])
    bits.put(extra, size)
    run = 0
    for v in block[1:]:
        if v == 0:
            run += 1
            continue
        while run > 15:
            bits.put(*AC[0xF0])
            run -= 16
        size, extra = magnitude(v)
        bits.put(*AC[run << 4 | size])
        bits.put(extra, size)
        run = 0
    if run:
        bits.put(*AC[0])
    return block[0]


def component_blocks(plane, bw, bh, quant):
    """The plane, padded to bw x bh blocks by repeating its edge, as quantised zigzag blocks [bh][bw][64]."""
    h, w = plane.shape
    p = np.pad(plane, ((0, bh * 8 - h), (0, bw * 8 - w)), mode="edge").astype(np.float64) - 128
    p = p.reshape(bh, 8, bw, 8).transpose(0, 2, 1, 3)
    coefficients = np.rint(DCT @ p @ DCT.T / quant).astype(int)
    return coefficients.reshape(bh, bw, 64)[:, :, ZIGZAG].tolist()


def segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def encode(planes, sampling, restart=0, interleaved=True, markers=b"", ids=None, step=12):
    """Full-size planes (uint8, one per component) to a JPEG.

    sampling: (h, v) per component.  restart: MCUs per restart interval, 0 for none.  markers: raw segments put after
    SOI.  step: the quantiser of every coefficient.
    """
    height, width = planes[0].shape
    hmax, vmax = max(h for h, _ in sampling), max(v for _, v in sampling)
    mcu_w, mcu_h = -(-width // (8 * hmax)), -(-height // (8 * vmax))
    ids = ids or list(range(1, len(planes) + 1))
    blocks, sizes = [], []
    for plane, (h, v) in zip(planes, sampling):
        sx, sy = hmax // h, vmax // v
        small = np.pad(plane, ((0, -height % sy), (0, -width % sx)), mode="edge").astype(int)
        small = small.reshape(small.shape[0] // sy, sy, small.shape[1] // sx, sx).sum((1, 3)) // (sx * sy)
        blocks.append(component_blocks(small, mcu_w * h, mcu_h * v, step))
        sizes.append((-(-(-(-width * h // hmax)) // 8), -(-(-(-height * v // vmax)) // 8)))

    out = b"\xff\xd8" + markers + segment(0xDB, b"\0" + bytes([step] * 64))
    out += segment(0xC0, struct.pack(">BHHB", 8, height, width, len(planes)) +
                   b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in zip(ids, sampling)))
    out += segment(0xC4, b"\0" + bytes(DC_COUNTS) + bytes(DC_VALUES))
    out += segment(0xC4, b"\x10" + bytes(AC_COUNTS) + AC_VALUES)
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    every = range(len(planes))
    for scan in [every] if interleaved else [[c] for c in every]:
        out += segment(0xDA, bytes([len(scan)]) + b"".join(bytes([ids[c], 0]) for c in scan) + b"\0\x3f\0")
        out += scan_data(blocks, sizes, sampling, list(scan), mcu_w, mcu_h, restart)
    return out + b"\xff\xd9"


def scan_data(blocks, sizes, sampling, scan, mcu_w, mcu_h, restart):
    single = len(scan) == 1  # then an MCU is one block, and padding blocks are not sent
    nx, ny = sizes[scan[0]] if single else (mcu_w, mcu_h)
    data, bits, previous = b"", Bits(), dict.fromkeys(scan, 0)
    for m in range(nx * ny):
        if restart and m and m % restart == 0:
            bits.flush()
            data += bytes(bits.out) + bytes([0xFF, 0xD0 + (m // restart - 1) % 8])
            bits, previous = Bits(), dict.fromkeys(scan, 0)
        my, mx = divmod(m, nx)
        for c in scan:
            h, v = (1, 1) if single else sampling[c]
            for y in range(v):
                for x in range(h):
                    previous[c] = put_block(bits, blocks[c][my * v + y][mx * h + x], previous[c])
    bits.flush()
    return data + bytes(bits.out)
