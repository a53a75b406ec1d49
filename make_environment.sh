#!/bin/sh
# Makes the virtual environment of the Makefile's targets, or sees in a moment that it is there and fits.
#
#   sh make_environment.sh                   make it, mend it, or leave it as it is
#   sh make_environment.sh find 3.12 3.13    print an interpreter of one of these versions; fails if there is none
#   sh make_environment.sh remove            delete it
#
# Environment variables: PYTHON is the interpreter to make it with (empty: the first found that will do), VENV its
# folder (empty: .venv), GOAL the target of make that messages speak of.
#
# Plain sh, because it has to speak where there is no Python. Two files in the folder say how far it is: `$mark`, that
# it was made here and may be deleted (it is also the lock of whoever works there); `$finished`, written last, that the
# installation came to its end, and of what. Without it the environment is half-made, whatever stopped it.
set -u
cd "$(dirname "$0")" || exit 1
root=$(pwd -P)

versions="3.9 3.10 3.11 3.12 3.13" # As requires-python in pyproject.toml.
wanted="Python 3.9 to 3.13 will do (CPython, 64 bit, with venv and ensurepip)"
choose="make ${GOAL:-install} PYTHON=/path/to/python3.12"

# What a user has set for other purposes must not change which packages are installed, and where: it may be meant for
# another Python or another environment. Of pip's settings those stay that say how it reaches packages, which it may trust,
# and what it keeps and tells.
unset PYTHONPATH PYTHONHOME PYTHONINSPECT __PYVENV_LAUNCHER__ SETUPTOOLS_USE_DISTUTILS
for variable in $(env | sed -n 's/^\(PIP_[A-Za-z0-9_]*\)=.*/\1/p'); do
    case ${variable#PIP_} in
    INDEX_URL | EXTRA_INDEX_URL | NO_INDEX | FIND_LINKS | CONSTRAINT | CONFIG_FILE) ;;
    PROXY | CERT | CLIENT_CERT | TRUSTED_HOST | KEYRING_PROVIDER | TIMEOUT | DEFAULT_TIMEOUT | RETRIES) ;;
    ONLY_BINARY | REQUIRE_HASHES | UPLOADED_PRIOR_TO) ;;
    CACHE_DIR | NO_CACHE_DIR | USE_FEATURE | USE_DEPRECATED | VERBOSE) ;;
    *) unset "$variable" ;;
    esac
done
export PIP_USER=0 # It may stand in a configuration file, too.

fail() {
    echo "error: $*" >&2
    exit 1
}

# --- The interpreter ----------------------------------------------------------------------------------------

# Prints what there is to know of an interpreter, in words of any Python: kind, release, bits and modules; prefix; path.
# For an interpreter of a virtual environment, prefix and path are those of the one that the environment was made with.
describe='
import os, struct, sys, sysconfig
try:
    import ensurepip, venv
    modules = "complete"
except ImportError:
    modules = "incomplete"
kind = getattr(getattr(sys, "implementation", None), "name", "cpython") + getattr(sys, "abiflags", "")
if "musl" in (sysconfig.get_config_var("SOABI") or ""):
    kind += "-musl"
prefix = getattr(sys, "base_prefix", sys.prefix)
path = "%s/bin/python%d.%d" % ((prefix,) + sys.version_info[:2])
if not os.path.exists(path):
    path = sys.executable
print("%s %d.%d.%d %d %s" % ((kind,) + sys.version_info[:3] + (8 * struct.calcsize("P"), modules)))
print(prefix)
print(path)
'

# examine INTERPRETER VERSION...: sets release, version, prefix and base; if it does not serve, problem, and fails.
examine() {
    release= version= prefix= base= problem=
    if ! facts=$("$1" -E -c "$describe" 2>&1 </dev/null); then
        problem="does not start: $(echo "$facts" | sed '/^$/d' | head -n 1 | cut -c 1-100)"
        return 1
    fi
    {
        read -r kind release bits modules
        read -r prefix
        read -r base
    } <<END
$facts
END
    version=${release%.*}
    shift
    case " $* " in *" $version "*) ;; *) problem="is Python $release" ;; esac
    case $problem-$kind-$bits-$modules in
    -cpython-64-complete) ;;
    -cpython-64-*) problem="lacks venv or ensurepip (on Debian and Ubuntu: apt install python$version-venv)" ;;
    -cpython-[!m]*) problem="is a Python of $bits bit" ;;
    -*) problem="is $kind $release, for which there is no TensorFlow" ;;
    esac
    [ -z "$problem" ]
}

# The interpreters to try, one a line: what the user calls python3, then by version, also where some programs install
# them without changing the PATH. Not only the first on the PATH: pyenv's python3.12 may not start, and hide one that
# does.
candidates() {
    executables "$PATH" python3 python
    beyond=$PATH:/opt/homebrew/bin:/opt/conda/bin
    for folder in "$HOME"/*conda3/bin "$HOME"/miniforge3/bin "$HOME"/.local/share/uv/python/*/bin \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin; do
        beyond=$beyond:$folder
    done
    executables "$beyond" python3.11 python3.12 python3.13 python3.10 python3.9
}

# executables FOLDER:FOLDER... NAME...
executables() (
    folders=$1
    shift
    IFS=:
    set -f
    for name; do
        for folder in $folders; do
            [ -f "$folder/$name" ] && [ -x "$folder/$name" ] && echo "$folder/$name"
        done
    done
)

# find_python VERSION...: examines interpreters until one serves; if none does, sets others to what there is.
find_python() {
    others=
    while read -r candidate; do
        [ -n "$candidate" ] || continue
        examine "$candidate" "$@" && return
        case $others in *"$problem"*) ;; *) others="$others$candidate $problem; " ;; esac
    done <<END
$(candidates)
END
    return 1
}

# Examines PYTHON, and no other if it is given.
choose_python() {
    if [ -z "${PYTHON:-}" ]; then
        find_python $versions || fail "no Python that will do was found. ${others}$wanted: $choose"
        return
    fi
    [ ! -d "$PYTHON" ] || fail "PYTHON=$PYTHON is a folder; give the interpreter in it: $choose"
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: there is no such program. $wanted: $choose"
    examine "$PYTHON" $versions || fail "PYTHON=$PYTHON $problem. $wanted: $choose"
}

# --- The folder ---------------------------------------------------------------------------------------------

locate() {
    shown=${VENV:-.venv}
    case $shown in
    "~"*) fail "VENV=$shown: the shell has left ~ as it is; write \$HOME in its place" ;;
    *[!A-Za-z0-9_/.,+@%\ -]*) fail "VENV=$shown: expected a path of letters, digits, spaces and / . _ - + @ % ," ;;
    /*) folder=$shown ;;
    *) folder=$root/$shown ;;
    esac
    mark=$folder/.made_by_make
    finished=$folder/.finished_by_make
    log=$folder/installation.log
}

# Refuses a folder that holds anything but an environment made here: deleting it would lose somebody's work.
require_ours() {
    [ -e "$folder" ] || return 0
    [ -d "$folder" ] || fail "VENV=$shown is a file, not the folder of a virtual environment; choose another"
    [ -e "$mark" ] && return
    kind="no virtual environment"
    if [ -e "$folder/pyvenv.cfg" ]; then
        # `installed` is what the Makefile of version 0.1 left there.
        { [ -e "$folder/installed" ] || nothing_installed; } && return
        kind="a virtual environment that make has not made"
    fi
    [ -z "$(ls -A "$folder")" ] ||
        fail "VENV=$shown is $kind, and stays as it is. Choose another folder (make ${GOAL:-install}" \
            "VENV=.venv-make), or delete this one"
}

# Whether a virtual environment holds no more than `python -m venv` puts there.
nothing_installed() {
    for entry in "$folder"/lib/python*/site-packages/*; do
        case ${entry##*/} in
        "*" | pip | pip-* | setuptools* | wheel* | pkg_resources | _distutils_hack | distutils-* | __pycache__) ;;
        *) return 1 ;;
        esac
    done
}

# Deletes what the folder holds, but not the mark, which is the lock.
empty() {
    rm -f "$finished"
    for entry in "$folder"/* "$folder"/.[!.]*; do
        [ "$entry" = "$mark" ] || rm -rf "$entry"
    done
}

# Holds the lock until this process and those it has started have ended: if make is killed and pip goes on, pip keeps
# it. The lock belongs to the open file 9, which the interpreter shares with this shell.
lock() {
    mkdir -p "$folder" && exec 9>>"$mark" || fail "VENV=$shown: cannot be written"
    "$base" -E -c '
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another make (or the pip of one that was killed) works on %s: waiting for its end" % sys.argv[1], flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # A file system without locks.
' "$shown"
}

# --- The environment in it ----------------------------------------------------------------------------------

checksum() {
    cat pyproject.toml setup.py | cksum
}

# Sets reason to why the environment cannot be used as it is, and mend to "make" or "update". No reason: it fits.
inspect() {
    reason= mend=make
    if [ ! -e "$finished" ]; then
        [ -e "$folder/bin" ] || [ -e "$folder/pyvenv.cfg" ] || { reason=missing && return; }
        reason="half-made: its installation has not come to its end"
        [ -e "$folder/installed" ] && reason="one of an earlier Makefile"
        return
    fi
    {
        read -r made_in
        read -r made_of
        read -r made_from
        read -r made_by
    } <"$finished"
    runs=$("$folder/bin/python" -E -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    if [ "$made_in" != "$folder" ]; then
        reason="moved or copied from $made_in"
    elif [ -z "$runs" ]; then
        reason="without an interpreter that starts (it was Python $made_by)"
    elif [ "$runs" != "${made_by%% *}" ]; then
        reason="of Python ${made_by%% *}, and its interpreter is $runs now"
    elif [ -n "${PYTHON:-}" ] && choose_python && [ "$version $prefix" != "$made_by" ]; then
        reason="of Python $made_by, and PYTHON=$PYTHON is $version $prefix"
    elif [ "$made_of" != "$root" ]; then
        reason="of the checkout $made_of" mend=update
    elif [ "$made_from" != "$(checksum)" ]; then
        reason="older than pyproject.toml or setup.py" mend=update
    fi
}

make_environment() {
    inspect
    [ -n "$reason" ] || return 0
    require_ours
    choose_python
    lock
    inspect # Again: another make may have done it meanwhile.
    [ -n "$reason" ] || return 0
    if [ $mend = update ]; then
        echo "$shown is $reason: bringing it up to date ($shown/installation.log tells what pip does)"
        examine "$folder/bin/python" $versions
        mv "$finished" "$finished.before"
    else
        [ "$reason" = missing ] || echo "$shown is $reason: making it anew"
        choose_python
        empty
    fi
    install
}

install() {
    tensorflow=2.15 size="3 GB"
    case $version in 3.12 | 3.13) tensorflow=2.20 size="3.5 GB" ;; esac
    [ $mend = update ] ||
        echo "installing TensorFlow $tensorflow and what else deeplab2_kmax needs for Python $release into $shown:" \
            "about $size of disk, one to four minutes on a fast network ($shown/installation.log tells what pip does)"
    begin=$(date +%s) from=$(checksum) # Now: files that are edited meanwhile have not been installed.
    trap 'echo "stopped: $shown is half-made, and the same command makes it anew" >&2; exit 130' HUP INT TERM
    : >"$log"
    # venv and pip unpack here: /tmp is often small, a TMPDIR may be gone, and a killed pip would leave it there.
    mkdir -p "$folder/tmp" && export TMPDIR="$folder/tmp"
    [ $mend = update ] || "$base" -m venv "$folder" >>"$log" 2>&1 || explain_failure "python -m venv"
    echo "*" >"$folder/.gitignore" # For git, and for ruff, which passes over what git ignores.
    # Older ones, as Python 3.9 and 3.10 bring them, can search for half an hour for versions that fit together.
    pip_install "pip>=23.1" && pip_install -e ".[dev]" || explain_failure pip
    rm -rf "$folder/tmp"
    [ -e "$folder/bin/deeplab2-kmax" ] ||
        fail "pip has put the packages elsewhere, or has left some out. $folder/bin/python -m pip config list shows what" \
            "its configuration files say: a target, prefix, root, python or dry-run there must go"
    printf '%s\n' "$folder" "$root" "$from" "$version $prefix" >"$finished.part" &&
        mv "$finished.part" "$finished" || fail "$shown cannot be written; is the disk full?"
    trap - HUP INT TERM
    echo "finished in $(($(date +%s) - begin)) s; $shown takes $(du -sh "$folder" | cut -f 1)"
}

pip_install() {
    "$folder/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar=off "$@" >>"$log" 2>&1
}

# explain_failure PROGRAM: its last lines, and what to do.
explain_failure() {
    # What pip could not bring up to date, it has left as it was.
    [ $mend = update ] && mv "$finished.before" "$finished"
    tail -n 12 "$log" >&2
    advice="the same command tries again; $shown/installation.log holds all that it said"
    if grep -q "No space left" "$log"; then
        advice="the disk is full: make room for $size, or choose a folder on another disk (VENV=/big/disk/venv)"
    elif grep -qE "Temporary failure in name|NewConnectionError|ConnectTimeout|Network is unreachable" "$log"; then
        advice="the package index cannot be reached: try again, or see docs/installation.md, \"Without a network\""
    elif grep -q "from versions: none" "$log"; then
        advice="the package index does not have what is needed, or is not asked (PIP_NO_INDEX, PIP_INDEX_URL): see"
        advice="$advice docs/installation.md, \"Without a network\""
    elif [ -n "${PIP_CONSTRAINT:-}" ] && grep -q "ResolutionImpossible" "$log"; then
        advice="PIP_CONSTRAINT=$PIP_CONSTRAINT asks for other versions than deeplab2_kmax; try again without it"
    fi
    fail "$1 failed: $advice"
}

locate
case ${1:-make} in
make) make_environment ;;
find)
    shift
    find_python "$@" && echo "$base"
    ;;
remove)
    require_ours
    rm -rf "$folder"
    ;;
*) fail "expected make, find or remove, got $1" ;;
esac
