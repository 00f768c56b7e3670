#!/usr/bin/python3
"""Do a model's verdicts hold in another precision?

Classifies a folder's images twice, by the engine's command line, and compares
what comes out.  The rule by which dfx.precision = auto may pick a precision
(docs/PERFORMANCE.md): over at least 1,000 images no probability moves by more
than 0.01, and no label changes unless the two largest probabilities were
within 0.02 of each other.

    tests/bench/verdicts.py MODEL.safetensors FOLDER [--precision bf16] [--images 1000]

Images are taken evenly from the folder's, in the order of their names, so that
a run repeats.  Prints one line of JSON; exits with 0 when the verdicts hold.
"""
import argparse
import json
import os
import subprocess
import sys

ENOUGH = 1000          # images for a decision
MOST = 0.01            # that a probability may move
TIE = 0.02             # between the two largest, which may change places
PROBABILITIES = ("p_synthetic", "p_dm", "p_gan", "p_real")
AT_ONCE = 500          # images for one run of the engine: a command line has a limit


def images(folder, limit):
    """limit of the folder's images, evenly spread."""
    found = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names
                   if name.lower().endswith((".jpg", ".jpeg", ".png")))
    if len(found) <= limit:
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def classify(engine, args, precision, files):
    """What the engine says of each file; those that it cannot read are left out."""
    verdicts = {}
    for i in range(0, len(files), AT_ONCE):
        run = subprocess.run([engine, "classify", "--model", args.model, "--device", "cpu", "--precision", precision,
                              "--threads", str(args.threads), "--json", *files[i:i + AT_ONCE]],
                             capture_output=True, text=True)
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        if not lines:
            sys.exit(f"the engine failed in {precision}: {run.stderr.strip()}")
        verdicts.update((v["image"], v) for v in lines if "error" not in v)
    return verdicts


def probabilities(verdict):
    """Those that the model gives: a binary one has no p_dm and no p_gan."""
    return {name: verdict[name] for name in PROBABILITIES if verdict.get(name) is not None}


def margin(verdict):
    """Between the two most probable classes."""
    p = probabilities(verdict)
    classes = [p[name] for name in ("p_dm", "p_gan", "p_real") if name in p]
    if len(classes) < 3:
        classes = [p["p_synthetic"], p["p_real"]]
    first, second = sorted(classes)[:-3:-1]
    return first - second


def compare(before, after):
    """Figures of two precisions over the images that both could read."""
    both = [name for name in before if name in after]
    moved = {name: max(abs(p - probabilities(after[name])[which])
                       for which, p in probabilities(before[name]).items()) for name in both}
    changed = [name for name in both if before[name]["label"] != after[name]["label"]]
    worst = max(moved, key=moved.get)
    far = [name for name in changed if margin(before[name]) > TIE]
    return {
        "images": len(both),
        "largest_difference": round(moved[worst], 5),
        "mean_difference": round(sum(moved.values()) / len(both), 6),
        "over_0.01": sum(m > MOST for m in moved.values()),
        "worst_image": worst,
        "labels_changed": len(changed),
        "of_them_not_ties": len(far),
        "holds": len(both) >= ENOUGH and moved[worst] <= MOST and not far,
    }


def main():
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("folder")
    p.add_argument("--precision", default="bf16")
    p.add_argument("--against", default="fp32")
    p.add_argument("--images", type=int, default=ENOUGH)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    engine = os.path.join(top, "build", "dfx-engine")
    files = images(args.folder, args.images)
    if not files:
        sys.exit(f"there are no images in {args.folder}")
    before = classify(engine, args, args.against, files)
    after = classify(engine, args, args.precision, files)
    if not before or not after:
        sys.exit(f"none of the {len(files)} images could be read")
    result = {"model": os.path.basename(args.model), "precision": args.precision, "against": args.against,
              **compare(before, after)}
    print(json.dumps(result))
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    main()
