#!/bin/bash
# Set up the kit natively on a Mac with Apple silicon, into .venv-m4/ beside this file.
#
# Run as:
#   ./setup_m4.sh            # check this Mac, install the locked packages, test the GPU (or: make setup-m4)
#   ./setup_m4.sh --help
#
# For the bash 3.2 and the BSD tools that macOS has. Only what must be right before a Python can start is checked
# here. scripts/check_gpu.py checks memory, disk and time, tools/setup_environment.py installs the packages, and
# scripts/validate_environment.py tests the GPU, as everywhere in the kit.
set -u
unset CDPATH

oldest_macos=14        # bfloat16 on MPS, and bitsandbytes' and torch's wheels
oldest_python_minor=10 # of Python 3; the environment itself gets 3.11, which uv fetches where it is missing
environment=.venv-m4
config=configs/training_config_m4.yaml
python=""

usage() {
  cat <<'EOF'
usage: setup_m4.sh [--check | --uninstall] [--dry-run]

Sets up QLoRA fine-tuning natively on a Mac with Apple silicon, in .venv-m4/ beside this script.
Run it again at any time: it adds what is missing and keeps the rest. It never uses sudo.

  --check      check this Mac, and the environment if there is one; change nothing
  --dry-run    show what would be done; change nothing
  --uninstall  remove .venv-m4/; data, models and outputs stay
  --help       show this

  PYTHON=…     the Python 3.10 or newer to start with, instead of the one found
  NO_COLOR=1   no colours; FORCE_COLOR=1 keeps them in a pipe

Exit codes: 0 fine, 1 a check failed, 2 wrong use or the packages cannot be installed, 130 Ctrl-C.
EOF
}

# As everywhere in the kit: talk goes to stderr, colour only where a person is looking.
set_colours() {
  bold="" red="" yellow="" blue="" green="" plain=""
  [ -z "${NO_COLOR:-}" ] || return 0
  [ -n "${FORCE_COLOR:-}" ] || { [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; } || return 0
  bold=$'\033[1m' red=$'\033[31m' yellow=$'\033[33m' blue=$'\033[34m' green=$'\033[32m' plain=$'\033[0m'
}

say() { printf '%s\n' "$*" >&2; }

ohai() { say "$blue$bold==>$plain$bold $*$plain"; }

warn() { say "${yellow}warning:$plain $*"; }

# abort MESSAGE FIX [EXIT_CODE]
abort() {
  say "$red${bold}error:$plain $1"
  say "  fix: $2"
  exit "${3:-1}"
}

fact() { sysctl -n "$1" 2>/dev/null || true; }

check_mac() {
  local system machine version major
  [ "$(id -u)" -ne 0 ] || abort "this script runs as root, so all its files would belong to root" "run it without sudo"
  system=$(uname -s)
  [ "$system" = Darwin ] ||
    abort "this is $system: $environment is for macOS on Apple silicon" "run make setup here; see README.md"
  machine=$(uname -m)
  # To a translated shell the machine looks like an Intel Mac.
  if [ "$(fact sysctl.proc_translated)" = 1 ] ||
    { [ "$machine" != arm64 ] && [ "$(fact hw.optional.arm64)" = 1 ]; }; then
    abort "this shell runs under Rosetta, and so would its Python: no MPS" \
      "arch -arm64 /bin/bash setup_m4.sh (and switch off 'Open using Rosetta' in Terminal's Get Info)"
  fi
  [ "$machine" = arm64 ] ||
    abort "this Mac has an Intel processor ($machine): no torch wheels, no 4-bit on MPS" \
      "use a Mac with an M1 or later, or a Linux machine with an NVIDIA GPU"
  # Without this variable, macOS tells a program built long ago that it is 10.16; Python is asked for it as well.
  export SYSTEM_VERSION_COMPAT=0
  version=$(sw_vers -productVersion 2>/dev/null || true)
  major=${version%%.*}
  case "$major" in
    "" | *[!0-9]*) abort "the version of macOS cannot be read: sw_vers printed '$version'" "run sw_vers to find out why" ;;
  esac
  [ "$major" -ge "$oldest_macos" ] ||
    abort "macOS $version is too old: bfloat16 on MPS and the locked wheels need macOS $oldest_macos" \
      "update in System Settings, General, Software Update"
}

# Say what a Python is: its version, what it is built for, whether it can make environments; nothing where it is none.
describe_python() {
  "$1" -I -c 'import importlib.util, platform, sys
print(sys.version_info[0], sys.version_info[1], platform.machine(), importlib.util.find_spec("ensurepip") is not None)
' 2>/dev/null || true
}

# Set $python to PATH where it serves; else add the reason to $found.
try_python() {
  local major minor machine ensurepip
  read -r major minor machine ensurepip <<EOF
$(describe_python "$1")
EOF
  if [ -z "${ensurepip:-}" ]; then
    found="$found; $1 does not start"
  elif [ "$machine" != arm64 ]; then
    found="$found; $1 is built for $machine"
  elif [ "$major" -ne 3 ] || [ "$minor" -lt "$oldest_python_minor" ]; then
    found="$found; $1 is $major.$minor"
  elif [ "$ensurepip" != True ]; then
    found="$found; $1 has no ensurepip"
  else
    python=$1
  fi
}

find_python() {
  local name folder path found=""
  if [ -n "${PYTHON:-}" ]; then
    path=$(command -v "$PYTHON") || abort "PYTHON=$PYTHON: no such program" "give the path of a Python"
    try_python "$path"
  else
    # 3.11 first: it becomes the environment's own, and nothing has to be fetched. Homebrew may not be on PATH yet.
    for name in python3.11 python3.12 python3.13 python3.14 python3.10 python3; do
      for folder in "" /opt/homebrew/bin/; do
        [ -z "$python" ] || continue
        path=$(command -v "$folder$name") || continue
        # Without the command line tools this one is no Python but a window that offers to install them.
        [ "$path" != /usr/bin/python3 ] || xcode-select -p >/dev/null 2>&1 || continue
        try_python "$path"
      done
    done
  fi
  [ -n "$python" ] ||
    abort "no Python 3.$oldest_python_minor or newer, built for arm64, was found${found:+ (${found#; })}" \
      "brew install python@3.11, then run this again; or name one: PYTHON=/path/to/python3 ./setup_m4.sh"
  say "starting with $python"
}

uninstall() {
  if [ -n "$dry_run" ]; then
    say "would remove $root/$environment"
  elif [ -e "$environment" ] || [ -L "$environment" ]; then
    # Of a link, the link goes and what it points to stays.
    rm -rf "./${environment:?}" || abort "$environment cannot be removed" "check its owner: ls -ld $environment" 2
    say "removed $root/$environment"
  else
    say "no $environment to remove"
  fi
  say "kept: data/, models/, outputs/ and the caches; make clean removes the kit's own caches,"
  say "and downloaded packages and weights are in ~/.cache/uv and ~/.cache/huggingface"
}

validate() {
  ohai "The GPU: tested in a separate process"
  "$environment/bin/python" scripts/validate_environment.py --require m4
}

show_limits() {
  ohai "What to expect"
  # One place says it: the closing comment of the configuration.
  sed -n '/^# Expected time/,$ s/^# \{0,1\}//p' "$config" >&2
}

main() {
  local mode=install dry_run="" root code
  set_colours
  while [ $# -gt 0 ]; do
    case "$1" in
      --check) mode=check ;;
      --dry-run) dry_run=yes ;;
      --uninstall) mode=uninstall ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) abort "$1: no such option" "run setup_m4.sh --help" 2 ;;
    esac
    shift
  done
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || exit 2
  cd "$root" || exit 2
  if [ "$mode" = uninstall ]; then
    uninstall
    return
  fi
  # Python would leave its compiled files beside the scripts.
  if [ "$mode" = check ] || [ -n "$dry_run" ]; then
    export PYTHONDONTWRITEBYTECODE=1
  fi

  ohai "This Mac"
  check_mac
  find_python
  "$python" scripts/check_gpu.py ||
    abort "this Mac cannot train Mistral-7B as it is" "fix the errors above, then run this again"

  ohai "The packages: requirements-m4.txt into $environment; no flash-attn, which is CUDA only"
  if [ "$mode" = check ] || [ -n "$dry_run" ]; then
    "$python" -m tools.setup_environment --m4 --dry-run || exit $?
  else
    "$python" -m tools.setup_environment --m4 || exit $?
  fi
  if [ -n "$dry_run" ]; then
    say "would run $environment/bin/python scripts/validate_environment.py --require m4"
  elif [ -x "$environment/bin/python" ]; then
    validate || {
      code=$?
      [ "$code" -ne 130 ] || exit "$code"
      abort "the environment is installed, but this Mac cannot train with it yet" "fix the errors above" "$code"
    }
  else
    warn "there is no $environment yet, so the GPU was not tested"
  fi
  show_limits
  if [ "$mode" = check ] || [ -n "$dry_run" ]; then
    ohai "Nothing was changed. Next: ./setup_m4.sh"
  else
    say "$green${bold}Ready.$plain Next: make validate CONFIG=$config, then make train-m4"
  fi
}

main "$@"
