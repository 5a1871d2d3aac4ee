# shellcheck shell=bash
# What the scripts of this folder share. To be sourced, not run.

# Debian keeps dockerd, ip, iptables and knotd where a plain user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
mkdir -p "$cache"

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

# as_root CMD… runs a command as root, through sudo where we are somebody else.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo env "PATH=$PATH" "$@"
	else
		die "$1 needs root, and there is no sudo: run this as root"
	fi
}

# packages WHAT=PACKAGE[,PACKAGE]… installs the Debian packages of what is missing.
# WHAT is a command, or a file where it holds a slash. What is there already, from
# wherever it came, is left alone.
packages() {
	local missing=()
	absent "$@" || return 0
	command -v apt-get >/dev/null || die "missing here: ${missing[*]} (names of Debian packages): install them and try again"
	say "installs ${missing[*]}"
	local log=$cache/apt.log
	if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		die "apt-get could not install ${missing[*]}; the whole output is in $log"
	fi
}

# absent WHAT=PACKAGE… tells whether anything is missing, and names its packages in
# the variable missing of its caller.
absent() {
	local pair names
	missing=()
	for pair in "$@"; do
		case $pair in
		*/*=*) [ -e "${pair%%=*}" ] && continue ;;
		*) command -v "${pair%%=*}" >/dev/null && continue ;;
		esac
		IFS=, read -ra names <<<"${pair#*=}"
		missing+=("${names[@]}")
	done
	[ ${#missing[@]} -gt 0 ]
}

# quiet_packages is packages, without the services that Debian would start at once: a
# test needs the program of a DNS server, the machine does not need the server.
quiet_packages() {
	local missing policy=/usr/sbin/policy-rc.d
	if [ -e $policy ] || ! absent "$@"; then
		packages "$@"
		return
	fi
	(
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
		as_root chmod 755 $policy
		trap 'as_root rm -f "$policy"' EXIT
		packages "$@"
	)
}

# wait_for SECONDS CMD… tries a command ten times a second until it succeeds.
wait_for() {
	local tries=$(($1 * 10))
	shift
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.1
	done
}

# runs PID WORD tells whether PID is a process whose command line holds WORD. A pid
# file may be left from before a crash, and its number may be somebody else's now.
runs() {
	[ -n "$1" ] && [ -r "/proc/$1/cmdline" ] && { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF -- "$2"
}

# end PID WORD asks a process to end, and insists after 10 seconds.
end() {
	runs "$1" "$2" || return 0
	as_root kill "$1" 2>/dev/null || return 0
	wait_for 10 gone "$1" "$2" || as_root kill -9 "$1" 2>/dev/null || true
	wait_for 5 gone "$1" "$2" || say "process $1 ($2) does not end"
}
gone() { ! runs "$@"; }
