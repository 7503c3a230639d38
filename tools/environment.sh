# Sourced by the tools: a virtual environment of the project's own, made once and made again when pyproject.toml moves.
# SLG_WDS_ENV chooses another folder for it, SLG_WDS_PYTHON another interpreter, SLG_WDS_UV a uv that installs in pip's
# place.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=${SLG_WDS_ENV:-$root/.venv}

find_python() {
    local candidate
    for candidate in "${SLG_WDS_PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "slg-wds needs Python 3.10 or newer with venv; set SLG_WDS_PYTHON to one" >&2
    return 1
}

# make_environment EXTRA...: the project installed with these extras. Extras that are there already stay.
make_environment() {
    local python stamp there="" extra lacking=""
    python=$(find_python) || exit 1
    stamp="$root $(sha256sum < "$root/pyproject.toml" | cut -c 1-64)"
    if [ "$(head -n 1 "$environment/slg-wds-stamp" 2>/dev/null)" = "$stamp" ]; then
        there=$(sed -n 2p "$environment/slg-wds-stamp")
    fi
    for extra in "$@"; do
        case " $there " in *" $extra "*) ;; *) lacking="$lacking $extra" ;; esac
    done
    [ -n "$lacking" ] || return 0
    echo "making the environment $environment (a few minutes the first time)" >&2
    if [ -z "$there" ]; then
        "$python" -m venv "$environment" || exit 1
        install --upgrade pip || exit 1
    fi
    there=$(echo $there$lacking)
    install --editable "$root[${there// /,}]" || exit 1
    printf '%s\n' "$stamp" "$there" > "$environment/slg-wds-stamp"
}

install() {
    if [ -n "${SLG_WDS_UV:-}" ]; then
        "$SLG_WDS_UV" pip install --quiet --python "$environment/bin/python" "$@"
    else
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}
