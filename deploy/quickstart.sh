#!/usr/bin/env bash
# From a fresh Debian 12 machine to a running cluster: installs what is missing, builds, starts a broker, two workers and a
# model, and sends a few hundred prompts of all tiers through them. Safe to run again: it restarts its own processes and keeps
# their data, so that the second run is answered from the cache.
#
#   deploy/quickstart.sh [--provider NAME] [--model NAME] [--prompts N] [--file JSONL] [--port BASE]
#   deploy/quickstart.sh --stop | --clean
#
#   --provider   sim (the simulator), openai (key in OPENAI_API_KEY), anthropic (ANTHROPIC_API_KEY), gemini (GEMINI_API_KEY),
#                or the base URL of any OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1 (key in TIERMQ_API_KEY if it needs one).
#                Without it: a local server on its usual port (Ollama 11434, llama.cpp 8080, vLLM 8000), else the simulator.
#   --model      the provider's name for the model (openai: gpt-4o-mini, anthropic: claude-3-5-haiku-latest,
#                gemini: gemini-2.5-flash, local: its first)
#   --prompts    how many prompts of the file to send (all; 30 with a provider that costs money)
#   --file       prompts to send (examples/prompts.jsonl)
#   --port       first of the ports to use on 127.0.0.1 (7700: 7700-7702, 7710, 7720, 7721 and 7790)
#   --stop       stops what it started;  --clean  stops it and removes its data
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
state=$root/.quickstart
build=$root/build-release

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

options=''
for argument in "$@"; do
    printf -v options '%s %q' "$options" "$argument" # what is printed under "Next" starts the same again
done
provider='' model='' prompts='' file=$root/examples/prompts.jsonl base=7700 action=run
needs() { [ -n "${3:-}" ] || fail "$2 needs $1; try --help"; }
while [ $# -gt 0 ]; do
    case $1 in
        --provider) needs "a name or a URL" "$@"; provider=$2; shift 2 ;;
        --model) needs "a name" "$@"; model=$2; shift 2 ;;
        --prompts) needs "a number" "$@"; prompts=$2; shift 2 ;;
        --file) needs "a path" "$@"; file=$2; shift 2 ;;
        --port) needs "a number" "$@"; base=$2; shift 2 ;;
        --stop) action=stop; shift ;;
        --clean) action=clean; shift ;;
        -h|--help) sed -n '2,17p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
        *) fail "unknown argument \"$1\"; try --help" ;;
    esac
done
[[ $base =~ ^[0-9]+$ ]] && [ "$base" -ge 1024 ] && [ "$base" -le 65000 ] || fail "--port \"$base\" is not a number from 1024 to 65000"
[[ -z $prompts || $prompts =~ ^[1-9][0-9]*$ ]] || fail "--prompts \"$prompts\" is not a positive number"
[ -r "$file" ] || fail "--file \"$file\" cannot be read"
case $provider in
    ''|sim|http://*|https://*) key_name='' ;;
    openai) key_name=OPENAI_API_KEY ;;
    anthropic) key_name=ANTHROPIC_API_KEY ;;
    gemini) key_name=GEMINI_API_KEY ;;
    *) fail "--provider \"$provider\" is unknown; use sim, openai, anthropic, gemini or a URL" ;;
esac
if [ $action = run ] && [ -n "$key_name" ]; then
    [ -n "${!key_name:-}" ] || fail "--provider $provider needs a key: export $key_name=..."
fi

# Stops the processes of an earlier run: workers first, so that they hand in what they have.
stop_all() {
    local name pid
    for name in worker-1 worker-2 broker modelsim; do
        [ -f "$state/$name.pid" ] || continue
        pid=$(cat "$state/$name.pid")
        # The number may have been given to somebody else since.
        if [[ $(readlink "/proc/$pid/exe" 2>/dev/null || true) == "$root"/build*/* ]]; then
            kill -TERM "$pid" 2>/dev/null || true
            timeout 40 tail -s 0.1 --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
            echo "stopped $name ($pid)"
        fi
        rm -f "$state/$name.pid"
    done
}

case $action in
    stop) stop_all; exit 0 ;;
    clean) stop_all; rm -rf "$state"; echo "removed $state"; exit 0 ;;
esac

say "Packages"
deploy/packages.sh

say "Build ($build)"
if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" --buildtype=release >"$build.log" 2>&1 || { tail -n 20 "$build.log"; fail "meson setup failed"; }
    rm -f "$build.log"
fi
ninja -C "$build" broker/tiermq-broker worker/tiermq-worker client/tiermq tests/modelsim/tiermq-modelsim
export PATH=$build/broker:$build/worker:$build/client:$build/tests/modelsim:$PATH

mkdir -p "$state"

# ------------------------------------------------------------------------------------------- which model answers
is_model_server() { curl -fsS -m 1 "$1/models" 2>/dev/null | grep -q '"data"'; }
first_model() { curl -fsS -m 2 "$1/models" | /usr/bin/env grep -o '"id" *: *"[^"]*"' | head -n 1 | sed 's/.*"\([^"]*\)"$/\1/'; }

type=openai key='' costs_money=no input_price=0 output_price=0
if [ -z "$provider" ]; then
    for candidate in 11434:Ollama 8080:llama.cpp 8000:vLLM; do
        url=http://127.0.0.1:${candidate%%:*}/v1
        if is_model_server "$url"; then
            echo "found ${candidate#*:} at $url (use --provider sim for the simulator)"
            provider=$url
            break
        fi
    done
fi
case ${provider:=sim} in
    sim)
        url=http://127.0.0.1:$((base + 90))/v1 ;;
    openai)
        url=https://api.openai.com/v1 key='${OPENAI_API_KEY}' model=${model:-gpt-4o-mini} costs_money=yes input_price=0.15 output_price=0.60 ;;
    anthropic)
        type=anthropic url=https://api.anthropic.com/v1 key='${ANTHROPIC_API_KEY}' model=${model:-claude-3-5-haiku-latest}
        costs_money=yes input_price=0.80 output_price=4.00 ;;
    gemini)
        type=gemini url=https://generativelanguage.googleapis.com/v1beta key='${GEMINI_API_KEY}' model=${model:-gemini-2.5-flash}
        costs_money=yes input_price=0.30 output_price=2.50 ;;
    http://*|https://*)
        url=${provider%/}
        [ -z "${TIERMQ_API_KEY:-}" ] || key='${TIERMQ_API_KEY}'
        is_model_server "$url" || [ -n "$model" ] || fail "no model server answers at $url/models; start it, or name the model with --model"
        model=${model:-$(first_model "$url")} ;;
esac
if [ "$costs_money" = yes ] && [ -z "$prompts" ]; then
    prompts=30
fi

# ------------------------------------------------------------------------------------------------- configuration
config=$state/tiermq.yaml
{
    cat <<EOF
# Written by deploy/quickstart.sh; every key: docs/configuration.md
broker:
  listen_clients: tcp://127.0.0.1:$base
  listen_workers: tcp://127.0.0.1:$((base + 1))
  listen_events: tcp://127.0.0.1:$((base + 2))
  admin: 127.0.0.1:$((base + 10))
  data_dir: $state/broker
cache:
  mode: near            # also answers near-identical prompts; the default is exact
worker:
  brokers: [tcp://127.0.0.1:$((base + 1))]
  events: [tcp://127.0.0.1:$((base + 2))]
  name: \${TIERMQ_WORKER_NAME:-worker}
  admin: 127.0.0.1:\${TIERMQ_WORKER_ADMIN_PORT:-$((base + 20))}
  data_dir: $state/\${TIERMQ_WORKER_NAME:-worker}
client:
  brokers: [tcp://127.0.0.1:$base]
providers:
  - name: $( [ "$provider" = sim ] && echo sim || echo quickstart )
    type: $type
    base_url: $url
EOF
    [ -z "$key" ] || echo "    api_key: $key"
    echo "models:"
    if [ "$provider" = sim ]; then
        cat <<EOF
  - {name: sim-small, provider: sim, quality: 40, input_usd_per_mtok: 0.15, cached_input_usd_per_mtok: 0.075, output_usd_per_mtok: 0.60}
  - {name: sim-medium, provider: sim, quality: 70, input_usd_per_mtok: 2.50, cached_input_usd_per_mtok: 1.25, output_usd_per_mtok: 10.00}
  - {name: sim-large, provider: sim, quality: 90, input_usd_per_mtok: 10.00, cached_input_usd_per_mtok: 5.00, output_usd_per_mtok: 30.00}
routes:
  - name: auto
    models: [sim-medium]
    tiers: {realtime: [sim-small], standard: [sim-medium, sim-large], background: [sim-small]}
EOF
    else
        echo "  - {name: \"$model\", provider: quickstart, input_usd_per_mtok: $input_price, output_usd_per_mtok: $output_price}"
    fi
} >"$config"
tiermq config check --config "$config"

# --------------------------------------------------------------------------------------------------------- start
# Starts a program in the background, its log in the state folder, and waits until its address answers.
start() {
    local name=$1 health=$2
    shift 2
    # Else what answers there would be taken for what is started here.
    if curl -s -o /dev/null -m 2 "$health"; then
        stop_all
        fail "$name: something else answers at $health; stop it, or try --port"
    fi
    "$@" >"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$state/$name.pid"
    for _ in {1..200}; do
        kill -0 $! 2>/dev/null || break
        if curl -fsS -o /dev/null -m 2 "$health" 2>/dev/null; then
            echo "started $name (process $(cat "$state/$name.pid"), log $state/$name.log)"
            return
        fi
        sleep 0.1
    done
    tail -n 5 "$state/$name.log" >&2
    stop_all
    fail "$name did not start; its log is $state/$name.log (port in use? try --port)"
}

say "Start"
stop_all # not before: a wrong argument leaves what runs alone
if [ "$provider" = sim ]; then
    start modelsim "http://127.0.0.1:$((base + 90))/healthz" \
        tiermq-modelsim --listen "127.0.0.1:$((base + 90))" --first-token-ms 30 --tokens-per-s 600 --jitter 30
else
    echo "model: $model at $url"
fi
start broker "http://127.0.0.1:$((base + 10))/healthz" tiermq-broker --config "$config"
for n in 1 2; do
    TIERMQ_WORKER_NAME=worker-$n TIERMQ_WORKER_ADMIN_PORT=$((base + 19 + n)) \
        start "worker-$n" "http://127.0.0.1:$((base + 19 + n))/healthz" tiermq-worker --config "$config"
done

# ----------------------------------------------------------------------------------------------------------- run
jobs=$file
if [ -n "$prompts" ]; then
    jobs=$state/prompts.jsonl
    head -n "$prompts" "$file" >"$jobs"
fi
say "Submit $(wc -l <"$jobs") prompts from ${file#"$root"/}"
tiermq submit --config "$config" --window 24 --file "$jobs" --out "$state/answers.jsonl"

say "Next"
cat <<EOF
The cluster is running. Try:
  export PATH=$build/client:\$PATH TIERMQ_CONFIG=$config
  tiermq submit "What is a queue good for?"            # one prompt, its answer
  head -n 3 $state/answers.jsonl
  tiermq stats                                         # queues, tiers, workers
  tiermq pause route auto && tiermq resume route auto
  curl -s http://127.0.0.1:$((base + 10))/metrics | grep tiermq_
$(printf '  %-52s # again: now the cache answers' "deploy/quickstart.sh$options")
  deploy/quickstart.sh --stop                          # or --clean, which removes its data too
Read on: README.md, docs/
EOF
