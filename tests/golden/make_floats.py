#!/usr/bin/python3
"""Make tests/golden/floats.txt: 16-bit floats and the binary32 they stand for, by struct and exact fractions.

Lines "f16|bf16 HHHH BBBBBBBB" in hexadecimal; NaN as "nan", because only its being one is promised.
"""
import pathlib
import struct


def value(bits, exponent_bits, fraction_bits):
    """IEEE 754 by its definition, exact in Python's doubles."""
    sign = -1.0 if bits >> (exponent_bits + fraction_bits) else 1.0
    exponent = bits >> fraction_bits & (1 << exponent_bits) - 1
    fraction = bits & (1 << fraction_bits) - 1
    bias = (1 << exponent_bits - 1) - 1
    if exponent == (1 << exponent_bits) - 1:
        return float("nan") if fraction else sign * float("inf")
    if exponent == 0:
        return sign * fraction * 2.0 ** (1 - bias - fraction_bits)
    return sign * (1 + fraction / 2 ** fraction_bits) * 2.0 ** (exponent - bias)


def main():
    lines = []
    edges = [0, 1, 2, 3, 0x7F, 0x80, 0x81, 0x3FE, 0x3FF, 0x400, 0x401, 0x3BFF, 0x3C00, 0x3C01, 0x3F80, 0x7BFF, 0x7C00,
             0x7C01, 0x7E00, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0, 0x7FFF]
    patterns = sorted({e | s for e in edges + list(range(5, 0x8000, 613)) for s in (0, 0x8000)})
    for name, exponent, fraction in (("f16", 5, 10), ("bf16", 8, 7)):
        for p in patterns:
            v = value(p, exponent, fraction)
            text = "nan" if v != v else struct.pack(">f", v).hex()
            lines.append(f"{name} {p:04x} {text}")
    pathlib.Path(__file__).with_name("floats.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
