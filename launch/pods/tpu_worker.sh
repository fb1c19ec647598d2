#!/usr/bin/env bash
# What launch.tpu_pod runs on every host of a TPU VM slice, in the folder that it copied there.
#   tpu_worker.sh install [BUCKET]   environment with Python 3.11, and the bucket mounted at /gcs
#   tpu_worker.sh start ARGUMENTS    launch.train in the background, where it survives the connection
#   tpu_worker.sh status             prints running, ended STATUS or none
#   tpu_worker.sh stop               asks the training to save and stop
#   tpu_worker.sh logs LINES         prints the end of the log and follows it
set -euo pipefail
script=$(realpath "$0")
cd "$(dirname "$script")/../.."
log=run.log
pid_file=run.pid
status_file=run.status

running() {
    # The number may belong to another program by now.
    [[ -f $pid_file ]] && grep -qs launch.train "/proc/$(cat "$pid_file")/cmdline"
}

mount_bucket() {
    if ! command -v gcsfuse >/dev/null; then
        local key=/usr/share/keyrings/gcsfuse.asc list=/etc/apt/sources.list.d/gcsfuse.list
        curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
        echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
            sudo tee "$list" >/dev/null
        sudo apt-get update -qq
        sudo apt-get install -qq -y gcsfuse
    fi
    if ! mountpoint -q /gcs; then
        sudo mkdir -p /gcs
        sudo chown "$(id -u):$(id -g)" /gcs
        gcsfuse --implicit-dirs "$1" /gcs
    fi
}

case "${1:-}" in
install)
    # The Python of a TPU VM's system is older than 3.11; uv brings one along.
    python3 -m pip install --quiet --user uv
    uv=$(python3 -m site --user-base)/bin/uv
    [[ -x .venv/bin/python ]] || "$uv" venv --quiet --python 3.11 .venv
    "$uv" pip install --quiet --python .venv/bin/python -r requirements.txt 'jax[tpu]'
    if [[ -n ${2:-} ]]; then
        mount_bucket "$2"
    fi
    echo "$(hostname): installed"
    ;;
start)
    shift
    if running; then
        echo "$(hostname): already running, process $(cat "$pid_file")"
        exit 0
    fi
    rm -f "$status_file" "$pid_file"
    nohup setsid bash "$script" foreground "$@" >>"$log" 2>&1 </dev/null &
    # Its number is there before its program is, by which it is known.
    until running || [[ -f $status_file ]]; do sleep 0.1; done
    echo "$(hostname): started, log in $PWD/$log"
    ;;
foreground)
    shift
    .venv/bin/python -u -m launch.train "$@" &
    echo $! >"$pid_file"
    status=0
    wait $! || status=$?
    echo "$status" >"$status_file.part"
    mv "$status_file.part" "$status_file"
    ;;
status)
    if [[ -f $status_file ]]; then
        echo "ended $(cat "$status_file")"
    elif running; then
        echo running
    else
        echo none
    fi
    ;;
stop)
    if running; then
        kill -TERM "$(cat "$pid_file")"
        echo "$(hostname): asked to save and stop"
    else
        echo "$(hostname): not running"
    fi
    ;;
logs)
    tail -n "$2" -F "$log"
    ;;
*)
    sed -n '3,7s/^# *//p' "$script" >&2
    exit 2
    ;;
esac
