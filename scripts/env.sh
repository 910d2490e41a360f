# Sourced by the other scripts: makes .venv with everything mjumbe needs, once per change of the pinned versions.
# It never ends the shell that reads it, which may be a terminal.
# Usage: . scripts/env.sh run   or   . scripts/env.sh dev   (with what the checks need)
root=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)  # zsh has the name in $0
cd "$root" || return 1
venv="$root/.venv"
purpose=${1:?run or dev}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "mjumbe needs Python 3.11 or newer; set PYTHON to one." >&2
    return 1
}

# What is installed for the checks serves for running too.
wanted=$(cat setup.cfg constraints.txt pyproject.toml | cksum)
stamps=("$venv/.installed-dev")
[ "$purpose" = dev ] || stamps+=("$venv/.installed-run")
if ! grep -qsxF "$wanted" "${stamps[@]}"; then
    python=$(find_python) || return 1
    if ! [ -x "$venv/bin/python" ]; then
        echo "Making the virtual environment in .venv with $("$python" --version) …" >&2
        if ! "$python" -m venv "$venv"; then
            rm -rf "$venv"
            echo "Could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2
            return 1
        fi
    fi
    echo "Installing mjumbe$([ "$purpose" = run ] || echo " with what the checks need") …" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
        --editable ".$([ "$purpose" = run ] || echo "[$purpose]")" || return 1
    echo "$wanted" >"$venv/.installed-$purpose"
fi
PATH="$venv/bin:$PATH"
