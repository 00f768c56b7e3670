#!/usr/bin/env bash
# backbones.sh [BACKBONE]...
#	The README's table of backbones, images per second included, of this machine: one branch, and the complete
#	network of three and its head.  Medians over 3 s each, batch 8, all cores; so on a quiet machine, or not at all.
set -euo pipefail
cd "$(dirname "$0")/../.."

engine=build/dfx-engine
[ $# -gt 0 ] || set -- $("$engine" backbones --json | perl -MJSON::PP -ne 'print decode_json($_)->{name}, "\n"')

printf '%s; load %s before\n\n' "$("$engine" bench --backbone resnet18 --branches 1 --json | perl -MJSON::PP -ne 'print decode_json($_)->{device_name}')" \
	"$(cut -d' ' -f1 /proc/loadavg)"
echo '| backbone | parameters (million) | D | input | GFLOP an image | images/s | complete, images/s |'
echo '|---|---|---|---|---|---|---|'
for backbone in "$@"; do
	{
		"$engine" backbones --json | grep "\"name\": \"$backbone\""
		"$engine" bench --backbone "$backbone" --branches 1 --batch 8 --json
		"$engine" bench --backbone "$backbone" --branches 3 --batch 8 --json
	} | perl -MJSON::PP -e '
		my ($b, @runs) = map { decode_json($_) } <>;
		printf "| %s | %.1f | %d | %d | %.3g | %.3g | %.3g |\n", $b->{name}, $b->{parameters} / 1e6, $b->{features},
			$b->{input_size}, $b->{gflops}, map { $_->{images_per_second} } @runs;'
done
printf '\nload %s after\n' "$(cut -d' ' -f1 /proc/loadavg)"
