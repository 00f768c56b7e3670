#!/usr/bin/env bash
# test_convert.sh - does tools/convert_weights.py make files with which dfx-engine computes what PyTorch does?
#	TAP; run in the repository's root.  Skipped without PyTorch and torchvision; PYTHON names another interpreter.
set -uo pipefail
. tests/tap.sh

python=${PYTHON:-/usr/bin/python3}
engine=${DFX_CLI:-build/dfx-engine}

if ! "$python" -c 'import torch, torchvision' 2>/dev/null; then
	echo "1..0 # SKIP needs PyTorch and torchvision"
	exit 0
fi

convert() { OMP_NUM_THREADS=1 "$python" tools/convert_weights.py "$@" 2>"$work/err"; }
err_has() { grep -q -- "$1" "$work/err"; }

# same NAME: the engine's logits are PyTorch's
same() {
	local backbone
	backbone=$(perl -MJSON::PP -0ne 'print decode_json($_)->{backbone}' "$work/$1.json")
	"$engine" logits --backbone "$backbone" --weights "$work/$1.safetensors" --json "$work/image.png" >"$work/out" || return 1
	perl -MJSON::PP -MList::Util=max -e '
		my ($want, $got) = map { local (@ARGV, $/) = $_; decode_json(<>)->{logits} } @ARGV;
		my $scale = max map { abs } @$want;
		my $worst = max map { abs($want->[$_] - $got->[$_]) } 0 .. $#$want;
		exit 0 if @$want == @$got && $worst < 1e-4 * $scale;
		die sprintf "# %d logits up to %.3g, off by %.1e\n", scalar @$want, $scale, $worst / $scale' "$work/$1.json" "$work/out"
}

OMP_NUM_THREADS=1 "$python" tests/unit/convert_models.py "$work" || exit 1
ok "a state_dict" convert "$work/plain.pt" "$work/plain.safetensors"
ok "... computes the same" same plain
ok "one of DataParallel, among other things" convert "$work/wrapped.pt" "$work/wrapped.safetensors"
ok "... is the same file" cmp -s "$work/plain.safetensors" "$work/wrapped.safetensors"
ok "NVIDIA's EfficientNet" convert "$work/nvidia.pt" "$work/nvidia.safetensors"
ok "... computes the same, eps included" same nvidia
ok "... in the branches of a complete model" convert "$work/authors.pt" "$work/authors.safetensors"
for name in model1.features.0.0.weight model3.features.0.1.running_var model2.features.7.0.block.2.fc2.weight \
	model2.classifier.1.bias convs.0.weight classifier.0.bias; do
	ok "... which has $name now" grep -qaF "\"$name\": " "$work/authors.safetensors"
done
ok "... and nothing else" [ "$(grep -ao data_offsets "$work/authors.safetensors" | wc -l)" = 14 ]
ok "a ViT of other mean and deviation" convert --mean 0.5 --std 0.5 "$work/half.pt" "$work/half.safetensors"
ok "... computes the same" same half
ok "all types" convert "$work/types.pt" "$work/types.safetensors"
ok "... byte for byte as kept" cmp "$work/types.safetensors" tests/golden/names/converted.safetensors

refused() { ! convert "$@" && [ ! -e "$work/no" ]; }
ok "a file with code in it is refused" refused "$work/evil.pt" "$work/no"
ok "... and not run" [ ! -e "$work/evil_was_run" ]
ok "a file without a state_dict is refused" refused "$work/list.pt" "$work/no"
ok "... with a reason" err_has state_dict
ok "normalisation of a network with padding is refused" refused --mean 0.5 --std 0.5 "$work/plain.pt" "$work/no"
ok "... with a reason" err_has "ViT only"

done_testing
