#!/usr/bin/env bash
# test_train_cli.sh - does `dfx-engine train` make a model of image files, go on from a checkpoint, and say what is wrong?
#	TAP; run in the repository's root, with the engine that knows test_tiny.  DFX_ENGINE names another one.
set -uo pipefail

engine=${DFX_ENGINE:-build/test/dfx-engine}
images=tests/golden/images
. tests/tap.sh

# train OPTION...: its output in $work/out and $work/err, its status in $status
train() {
	"$engine" train --backbone test_tiny --threads 2 --device cpu --json "$@" >"$work/out" 2>"$work/err"
	status=$?
}


# json EXPRESSION: whether a Perl expression over $d, the object in $work/out, is true
json() {
	perl -MJSON::PP -e '
		open my $f, "<:raw", shift or die;
		my $d = decode_json(<$f>);
		my $true = eval shift;
		die $@ if $@;
		exit($true ? 0 : 1)' "$work/out" "$1"
}

# A JPEG's decoder stops at its end: a number behind it makes another file of the same picture.
mkdir -p "$work"/set/{dm/a,gan,real}
for i in $(seq 40); do
	{ cat $images/jpeg-255x257.jpg; echo "$i"; } >"$work/set/dm/a/$i.jpg"
	{ cat $images/photo-420-q90.jpg; echo "$i"; } >"$work/set/gan/$i.jpg"
	{ cat $images/jpeg-grey.jpg; echo "$i"; } >"$work/set/real/$i.jpg"
done
echo nonsense >"$work/set/real/broken.jpg"
learn=(--kind classifier --epochs 3 --batch 16 --learning-rate 0.003 --seed 2)

train --samples "$work/set" --out "$work/m.safetensors" --checkpoint "$work/m.checkpoint" "${learn[@]}"
ok "a directory trains" [ $status = 0 ]
ok "one line of JSON says what was made" json '$d->{kind} eq "classifier" && $d->{backbone} eq "test_tiny"
	&& $d->{classes} eq "dm,gan,real" && $d->{version} =~ /^[0-9a-f]{64}$/'
ok "with the samples and those left out" json '$d->{samples} == 120 && $d->{unreadable} == 1'
ok "which stderr names" err_has 'broken.jpg" is left out: not a JPEG or PNG image (22P03)'
ok "and the figures" json '$d->{metrics}{three}{accuracy}{value} > 0.9 && $d->{metrics}{binary}{auc}{high} <= 1'
ok "an epoch is a line on stderr" err_has "classifier epoch 3/3: loss "
version=$(sed 's/.*"version": "\([0-9a-f]*\)".*/\1/' "$work/out")
ok "the model classifies" "$engine" classify --model "$work/m.safetensors" $images/jpeg-255x257.jpg
ok "no part of a file is left" [ -z "$(ls "$work" | grep part)" ]

cp "$work/m.checkpoint" "$work/last.checkpoint"
train --samples "$work/set" --out "$work/n.safetensors" --resume "$work/last.checkpoint" "${learn[@]}"
ok "it goes on from the last checkpoint" [ $status = 0 ]
ok "to the same version" json "\$d->{version} eq '$version'"
ok "and the same file" cmp "$work/m.safetensors" "$work/n.safetensors"
train --samples "$work/set" --out "$work/n.safetensors" --resume "$work/last.checkpoint" "${learn[@]}" --gamma 0.5
ok "with other options it does not" [ $status = 1 ]
ok "and says so" err_has "other options"

# The same as a list, in another order, quoted, with Windows' line ends and a column of somebody else's.
{
	printf 'label,"path",note\r\n'
	for class in real gan dm; do
		find "$work/set/$class" -name '*.jpg' ! -name broken.jpg | sort -r | sed "s/.*/$class,\"&\",\"a \"\"note\"\", it is\"\r/"
	done
} >"$work/list.csv"
train --samples "$work/list.csv" --out "$work/c.safetensors" "${learn[@]}"
ok "a CSV list trains" [ $status = 0 ]
ok "to the same version: the order of rows is of no consequence" json "\$d->{version} eq '$version'"

sed 's/,note/,group/; s/,"a [^\r]*/,g/' "$work/list.csv" >"$work/one.csv"
train --samples "$work/one.csv" --out "$work/x" "${learn[@]}"
ok "one group for all leaves nothing to test with" err_has "too few images"
for bad in "path,colour" "path,label
x.jpg,cat" "path,label
x.jpg" "path,label,split
x.jpg,dm,nowhere" 'path,label
"x.jpg,dm' ""; do
	echo -n "$bad" >"$work/bad.csv"
	train --samples "$work/bad.csv" --out "$work/x" "${learn[@]}"
	ok "a list that is wrong: $(tail -n 1 <<<"$bad")" [ $status = 1 ]
	ok "is named" err_has "bad.csv"
done

train --samples "$work/set" --out "$work/d/x" --epochs 1 --kind classifier --seed 2
ok "a model that cannot be written: status 1" [ $status = 1 ]
ok "and it is said why" err_has "could not create"
train --samples "$work/set" --out "$work/x" --cache-limit 1000000 "${learn[@]}"
ok "a cache that is too small is named" err_has "do not fit the cache of 1000000 bytes"
train --samples "$work/set" --out "$work/x" --init "$work/list.csv" "${learn[@]}"
ok "weights that are none are refused" err_has "22P03"
train --samples "$work/set" --out "$work/x" --epoch 3
ok "an unknown option: status 2" [ $status = 2 ]
train --samples "$work/set" --out "$work/x" --epochs 0
ok "a value out of range: status 2" [ $status = 2 ]
train --out "$work/x"
ok "no samples: status 2" [ $status = 2 ]
train --samples "$work/set" --out "$work/x" --kind base
ok "a Base Model of no class: status 2" [ $status = 2 ]

done_testing
