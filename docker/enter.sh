#!/bin/sh
# Puts the project into the working folder, where it is not there yet, and runs the command.
set -eu
if [ ! -f dvc.yaml ]; then
    if [ ! -w . ]; then
        echo "lever-plus: $(pwd) is not writable for user $(id -u): chown the mounted folder." >&2
        exit 1
    fi
    cp -r /opt/lever-plus/. .
fi
# Without a repository DVC is told so; the commit of the image is in GIT_COMMIT.
if ! git rev-parse --git-dir >/dev/null 2>&1; then
    dvc config --local core.no_scm true
fi
exec "$@"
