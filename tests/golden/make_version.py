#!/usr/bin/python3
"""Make tests/golden/version.txt: a model's canonical stream and its hash, by hashlib and struct alone.

This is a second implementation of src/base/version.h, written from its comment; test_version.c holds the C one
against it.  The tensor bytes follow a rule that both sides know: byte i of tensor number t is (7 i + 31 t) mod 256.
"""
import hashlib
import pathlib
import struct

META = {"kind": "trinet", "backbone": "densenet121", "classes": "dm,gan,real", "head_stride": 1, "input_size": 256}
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
TENSORS = [  # as given, not sorted; names chosen so that byte order differs from a dictionary's
    ("head.classifier.0.weight", "F32", (3, 5)),
    ("Z.upper", "F16", (2, 1, 3)),
    ("a.long", "I64", ()),
    ("a.Long", "BF16", (7,)),
    ("a", "F32", (0, 4)),
    ("a-b", "F32", (1, 1, 1, 1, 1, 1, 1, 2)),
    ("\u00e9t\u00e9.poids", "F32", (1,)),
]


def stream():
    out = b"dfx1\n" + b"".join(f"{k}={META[k]}\n".encode() for k in sorted(META))
    for t, (name, dtype, shape) in enumerate(sorted(TENSORS, key=lambda x: x[0].encode())):
        n = SIZES[dtype]
        for d in shape:
            n *= d
        out += name.encode() + b"\0" + dtype.encode() + b"\0"
        out += struct.pack(f"<I{len(shape)}QQ", len(shape), *shape, n)
        out += bytes((7 * i + 31 * t) % 256 for i in range(n))
    return out


def main():
    s = stream()
    pathlib.Path(__file__).with_name("version.txt").write_text(f"{len(s)}\n{hashlib.sha256(s).hexdigest()}\n{s.hex()}\n")


if __name__ == "__main__":
    main()
