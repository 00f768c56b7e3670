#!/usr/bin/env bash
# test_cli.sh - does the command line of dfx-engine keep its promises: keys, exit statuses, errors as lines?
#	TAP; run in the repository's root.  DFX_CLI names another program.
set -uo pipefail
. tests/tap.sh

engine=${DFX_CLI:-build/dfx-engine}
images=tests/golden/images

# run COMMAND...: its output in $work/out and $work/err, its status in $status
run() {
	"$engine" "$@" >"$work/out" 2>"$work/err"
	status=$?
}

out_has() { grep -qF -- "$1" "$work/out"; }
out_lines() { [ "$(wc -l <"$work/out")" = "$1" ]; }

# json EXPRESSION: whether a Perl expression over @d, the objects in $work/out, is true
json() {
	perl -MJSON::PP -MList::Util=all,any,max,sum -e '
		open my $f, "<:raw", shift or die;
		my @d = map { decode_json($_) } <$f>;
		my $true = eval shift;
		die $@ if $@;
		exit($true ? 0 : 1)' "$work/out" "$1"
}

run --help
ok "--help succeeds" [ $status = 0 ]
for command in classify logits trinet heatmap decode bench init train devices backbones serve; do
	ok "--help names $command" out_has "dfx-engine $command"
done

run
ok "no command: status 2" [ $status = 2 ]
run dance
ok "an unknown command: status 2" [ $status = 2 ]
run classify --model
ok "an option without its value: status 2" [ $status = 2 ]
run classify --modle x y
ok "an unknown option: status 2" [ $status = 2 ]
run bench --backbone resnet18 --out x
ok "another command's option: status 2" [ $status = 2 ]
run bench --backbone resnet18 --batch 0
ok "a number out of range: status 2" [ $status = 2 ]
run classify --model x
ok "no image: status 2" [ $status = 2 ]

run devices --json
ok "devices succeeds" [ $status = 0 ]
ok "the CPU can be used" json 'any { $_->{backend} eq "cpu" && $_->{usable} } @d'
ok "what cannot be used has a reason" json 'all { $_->{usable} || $_->{reason} } @d'

# A full disk behind a pipe or a redirection must not look like success.
"$engine" devices --json >/dev/full 2>"$work/err"
status=$?
ok "results that cannot be written: status 1" [ $status = 1 ]
ok "and it is said why" err_has "could not write"

run backbones --json
ok "backbones succeeds" [ $status = 0 ]
ok "all 15 of them" out_lines 15
ok "parameters are torchvision's without the classifier" json \
	'my %p = map { $_->{name} => $_->{parameters} } @d;
	$p{resnet50} == 25557032 - 2049000 && $p{efficientnet_b4} == 19341616 - 1793000 && $p{vit_b_16} == 86567656 - 769000'
ok "features and input sizes" json \
	'my %b = map { $_->{name} => $_ } @d;
	$b{densenet161}{features} == 2208 && $b{densenet161}{input_size} == 256 && $b{vit_b_32}{input_size} == 224'
ok "README.md lists them with these figures" json \
	'open my $r, "<", "README.md" or die; my $readme = join "", <$r>;
	all { index($readme, sprintf "| %s | %.1f | %d | %d | %.3g |", $_->{name}, $_->{parameters} / 1e6, $_->{features},
		$_->{input_size}, $_->{gflops}) >= 0 } @d'

run decode $images/photo-444-q75.jpg --out "$work/pixels"
ok "decode succeeds" [ $status = 0 ]
ok "256 x 256 x 3 bytes" [ "$(stat -c %s "$work/pixels")" = 196608 ]
run decode --fast-decode $images/photo-444-q75.jpg --out "$work/fast"
ok "decode --fast-decode succeeds" [ $status = 0 ]
ok "and a small image is as ever" cmp -s "$work/pixels" "$work/fast"
run decode --json "$0" --out "$work/none"
ok "decode of no image fails" [ $status = 1 ]
ok "and says so" json '$d[0]{sqlstate} eq "22P03" && $d[0]{image} && $d[0]{error}'

run init --backbone resnet18 --random-weights 5 --head-stride 2 --out "$work/m.safetensors"
ok "init succeeds" [ $status = 0 ]
ok "init says the version" json '$d[0]{version} =~ /^[0-9a-f]{64}$/'
version=$(sed 's/.*"version": "\([0-9a-f]*\)".*/\1/' "$work/out")

odd="$work/a \"quoted\" 	name.jpg"
cp $images/photo-444-q75.jpg "$odd"
run classify --model "$work/m.safetensors" --device cpu --json $images/jpeg-255x257.jpg "$0" "$odd" /nonexistent
ok "classify with bad images among good ones: status 1" [ $status = 1 ]
ok "a line for each" json '@d == 4'
ok "the good ones have every key" json 'all { my $o = $_; all { defined $o->{$_} } qw(image label confidence p_synthetic
	p_dm p_gan p_real model version) } @d[0, 2]'
ok "probabilities add up" json 'abs(sum(@{$d[0]}{qw(p_dm p_gan p_real)}) - 1) < 1e-6
	&& abs(sum(@{$d[0]}{qw(p_dm p_gan)}) - $d[0]{p_synthetic}) < 1e-6'
ok "confidence is the label's probability" json '$d[0]{confidence} == $d[0]{"p_$d[0]{label}"}
	&& $d[0]{confidence} == max(@{$d[0]}{qw(p_dm p_gan p_real)})'
ok "the version is the one that init gave" json "\$d[0]{version} eq '$version'"
ok "a name with quotes and a tab survives" json '$d[2]{image} =~ m{/a "quoted" \tname\.jpg$}'
ok "no image: 22P03" json '$d[1]{sqlstate} eq "22P03"'
ok "no file: 58030" json '$d[3]{sqlstate} eq "58030"'

run classify --model "$work/m.safetensors" --device cpu $images/jpeg-255x257.jpg
ok "without --json: ten values between tabs" [ "$(awk -F '\t' '{print NF}' "$work/out")" = 10 ]
run classify --model $images/jpeg-255x257.jpg x
ok "a model file that is none: status 1" [ $status = 1 ]
ok "diagnostics go to stderr" [ -s "$work/err" ]
ok "and not to stdout" out_lines 0
run classify --model "$work/m.safetensors" --device cuda:63 x
ok "a device that is not there: status 1" [ $status = 1 ]
ok "with its SQLSTATE" err_has 58000
run classify --model "$work/m.safetensors" --device gpu x
ok "a device that cannot be: 22023" err_has 22023
run classify --model "$work/m.safetensors" --precision fp16 --device cpu $images/jpeg-255x257.jpg
ok "a precision the CPU lacks: 0A000" err_has 0A000
run classify --model "$work/m.safetensors" --precision int8 --device cpu $images/jpeg-255x257.jpg
ok "int8, and the model is not calibrated: 0A000" err_has 0A000

run trinet --backbone resnet18 --random-weights 5 --head-stride 2 --device cpu --json $images/jpeg-255x257.jpg
ok "trinet succeeds" [ $status = 0 ]
ok "3 x D features, 3 logits" json '@{$d[0]{features}} == 3 * 512 && @{$d[0]{logits}} == 3'
cp "$work/out" "$work/trinet"
run classify --model "$work/m.safetensors" --device cpu --json $images/jpeg-255x257.jpg
cat "$work/trinet" >>"$work/out"
ok "the formula in memory and in a file give one verdict" json 'abs($d[0]{p_real} -
	exp($d[1]{logits}[2]) / sum(map { exp } @{$d[1]{logits}})) < 1e-6'

run logits --backbone resnet18 --random-weights 5 --device cpu --json $images/jpeg-255x257.jpg
ok "logits: D features, 1000 logits" json '@{$d[0]{features}} == 512 && @{$d[0]{logits}} == 1000'
run logits --backbone resnet18 $images/jpeg-255x257.jpg
ok "logits without weights: status 2" [ $status = 2 ]
run logits --backbone resnet18 --weights "$work/m.safetensors" $images/jpeg-255x257.jpg
ok "weights of another network: 22P03" err_has 22P03
for name in bn1.bias layer4.1.bn2.running_var dm.layer3.0.conv1.weight head.convs.12.weight; do
	ok "... and all that is missing or unexpected, $name for one" err_has " $name,"
done
run trinet --backbone resnet17 --random-weights 5 x
ok "an unknown backbone: 22023" err_has 22023

# Every kind of model that classifies, against PyTorch (tests/golden/make_verdicts.py).
golden=tests/golden/nets/verdicts.txt
models=0
while read -r kind classes backbone seed; do
	models=$((models + 1))
	run init --kind "$kind" --classes "$classes" --backbone "$backbone" --random-weights "$seed" --out "$work/k.safetensors"
	grep -F "$kind $classes $backbone $seed " $golden >"$work/want"
	# shellcheck disable=SC2046 # names without blanks
	run classify --model "$work/k.safetensors" --device cpu --json $(awk -v d=$images '{print d "/" $5}' "$work/want")
	ok "$kind of $backbone, $classes, seed $seed: PyTorch's verdicts" json '
		open my $f, "<", "'"$work"'/want" or die;
		my @want = map { [ (split)[5 .. 10] ] } <$f>;
		@want == 3 && @d == 3 && all { my ($w, $o) = ($want[$_], $d[$_]);
			my @got = (@$o{qw(label p_synthetic p_dm p_gan p_real generator)});
			abs($o->{confidence} - ($o->{"p_$o->{label}"})) < 1e-9 && all {
				!defined $got[$_] ? $w->[$_] eq "-" : $got[$_] eq $w->[$_] || $w->[$_] =~ /\d/ && abs($got[$_] - $w->[$_]) < 2e-5
			} 0 .. 5 } 0 .. 2'
done < <(grep -v '^#' $golden | cut -d' ' -f1-4 | uniq)
ok "of all eleven models" [ $models = 11 ]

run init --backbone resnet18 --random-weights 5 --kind base --classes others,gan --out "$work/k.safetensors"
ok "init says kind and classes" json '$d[0]{kind} eq "base" && $d[0]{classes} eq "others,gan" && $d[0]{head_stride} == 0'
run classify --model "$work/k.safetensors" --device cpu $images/jpeg-255x257.jpg
ok "a Base Model of gan gives no verdict: status 1" [ $status = 1 ]
ok "with its SQLSTATE and what to do" eval 'err_has 22023 && err_has dfx_features'
run init --backbone resnet18 --random-weights 5 --kind base --classes gan,others --out "$work/x"
ok "classes that a kind has not: 22P03" err_has 22P03
run init --backbone resnet18 --random-weights 5 --kind base --classes others,gan --head-stride 2 --out "$work/x"
ok "a head stride without a head: 22023" err_has 22023
run init --backbone resnet18 --random-weights 5 --kind hierarchy --classes "$(printf 'x%.0s' {1..1024})" --out "$work/x"
ok "classes too long: 54000" err_has 54000

# What a verdict rests on (tests/golden/make_heatmap.py).
read -r kind classes backbone seed image class odds < <(sed -n 2p tests/golden/nets/heatmap.txt)
run init --kind "$kind" --classes "$classes" --backbone "$backbone" --random-weights "$seed" --out "$work/k.safetensors"
run heatmap --model "$work/k.safetensors" --device cpu --json "$images/$image" --out "$work/heat.png"
ok "heatmap succeeds" [ $status = 0 ]
ok "heatmap: class, log odds and what hiding each part does are PyTorch's" json '
	open my $f, "<", "tests/golden/nets/heatmap.txt" or die;
	my @want = split " ", (<$f>, <$f>, <$f>)[2];
	my @fall = @{$d[0]{fall}};
	@fall == 225 && @want == 225 && $d[0]{class} eq "'"$class"'" && abs($d[0]{log_odds} - '"$odds"') < 1e-4
		&& all { abs($fall[$_] - $want[$_]) < 1e-4 } 0 .. 224'
run decode "$work/heat.png" --out "$work/pixels"
ok "it is a picture of what the network sees" [ "$(stat -c %s "$work/pixels")" = 196608 ]
run heatmap --model "$work/k.safetensors" --class dm --device cpu "$images/$image" --out "$work/heat.png"
ok "heatmap of a class that the model does not know: 22023" err_has 22023
run heatmap --model "$work/k.safetensors" --class cat --device cpu "$images/$image" --out "$work/heat.png"
ok "of no class: 22023" err_has 22023
run heatmap --model "$work/k.safetensors" --device cpu "$0" --out "$work/heat.png"
ok "of no image: 22P03" err_has 22P03

run bench --backbone resnet18 --branches 1 --batch 2 --device cpu --threads 1 --json
ok "bench succeeds" [ $status = 0 ]
ok "bench has every key" json 'all { defined $d[0]{$_} } qw(backbone branches batch device precision threads
	images_per_second median_ms peak_rss_mb)'
ok "bench's figures agree" json 'abs($d[0]{images_per_second} * $d[0]{median_ms} / 2000 - 1) < 1e-6'

# A device library is looked for beside the program; whatever is wrong with it is a reason, not a failure.
cp "$engine" "$work/dfx-engine"
echo "no library at all" >"$work/dfx_cuda.so"
engine="$work/dfx-engine" run devices --json
ok "a library that cannot be loaded is refused with a reason" json 'any { $_->{reason} =~ /could not load/ } @d'
echo 'const struct { int api; } dfx_backend = {999};' | ${CC:-cc} -shared -fPIC -x c - -o "$work/dfx_cuda.so"
engine="$work/dfx-engine" run devices --json
ok "one of another interface version too" json 'any { $_->{reason} =~ /another version/ } @d'
engine="$work/dfx-engine" run trinet --backbone resnet18 --random-weights 5 --device auto --json $images/jpeg-255x257.jpg
ok "auto goes on to the CPU" [ $status = 0 ]
engine="$work/dfx-engine" run trinet --backbone resnet18 --random-weights 5 --device cuda --json $images/jpeg-255x257.jpg
ok "cuda does not" [ $status = 1 ]

# The real library, where it was built, on a machine whose driver is what the test says it is.
if [ -e build/dfx_cuda.so ]; then
	cp build/dfx_cuda.so "$work/dfx_cuda.so"
	# driver VERSION STATUS: a libcuda.so.1 whose version and cuInit() are these
	driver() {
		printf 'int cuDriverGetVersion(int *v) { *v = %s; return 0; } int cuInit(unsigned f) { (void) f; return %s; }
			int cuGetErrorString(int e, const char **s) { (void) e; *s = "made up"; return 0; }' "$1" "$2" |
			${CC:-cc} -shared -fPIC -x c - -o "$work/libcuda.so.1"
	}
	# refused PATTERN: devices, which succeeds, gives it as the reason for not using cuda
	refused() {
		LD_LIBRARY_PATH=$work engine="$work/dfx-engine" run devices --json
		[ $status = 0 ] && json 'any { $_->{backend} eq "cuda" && !$_->{usable} && $_->{reason} =~ /'"$1"'/ } @d'
	}
	if ! ldconfig -p | grep -qF libcuda.so.1; then
		ok "without a driver cuda is refused with that reason" refused 'NVIDIA driver is missing: libcuda'
		run trinet --backbone resnet18 --random-weights 5 --device cuda --json $images/jpeg-255x257.jpg
		ok "which an explicit --device cuda gives, and a hint" err_has "the NVIDIA driver is missing"
	fi
	driver 12040 0
	ok "a driver that is too old is refused with its version" refused 'driver is too old: it is for CUDA 12\.4'
	driver 13000 100
	ok "a driver without a GPU too" refused 'driver finds no GPU'
	driver 13000 999
	ok "one that does not start too" refused 'driver does not start: made up'
	driver 13000 34
	ok "and the stub that is for linking" refused 'is a stub for linking'
	driver 13000 0
	echo 'int none;' | ${CC:-cc} -shared -fPIC -x c - -o "$work/libcublasLt.so.13"
	ok "so is a library without what is needed" refused 'libcublasLt\.so\.13 is too old'
	export LD_LIBRARY_PATH=$work
	engine="$work/dfx-engine" run trinet --backbone resnet18 --random-weights 5 --device auto --json $images/jpeg-255x257.jpg
	ok "auto goes on to the CPU" [ $status = 0 ]
	engine="$work/dfx-engine" run trinet --backbone resnet18 --random-weights 5 --device cuda:1 --json $images/jpeg-255x257.jpg
	ok "an explicit cuda is an error" err_has 'device "cuda:1" cannot be used'
	unset LD_LIBRARY_PATH
fi

ok "the installed program has no fault triggers" [ "$(grep -c DFXTEST "$engine")" = 0 ]
done_testing
