#!/usr/bin/env bash
# The benchmark by hand: container, server, client, each with the flags that vllm-bench uses.
# Nothing runs unless a step is named:  ./reference.sh STEP      PRINT=1 ./reference.sh STEP  only prints the command.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: [NAME=VALUE ...] ./reference.sh STEP

  container   create the container of vLLM and open a shell in it  (on the host)
  server      start one server                                     (in the container)
  health      ask whether the server is ready                      (in the container, another shell)
  client      measure the running server                           (in the container, another shell)
  devices     watch the devices                                    (in the container, another shell)

Variables, with their defaults:
  PRINT=            1: print the command, run nothing
  PRESET=full       full or sanity: lengths, concurrency, prompts, context
  MODEL=            openai/gpt-oss-20b (full), Qwen/Qwen3-4B-Thinking-2507 (sanity)
  TP=2              tensor parallel size
  QUANTIZATION=none none leaves the flag out; never write --quantization none or off
  EAGER=true        true or false; fp8 with false is known to fail
  PORT=8000
  RESULT=result.json                      where the client writes
  SETVARS=/opt/intel/oneapi/setvars.sh    sourced where it exists
  DEVICE=xpu        xpu, cuda, rocm or cpu: what the container gets, and its image
  IMAGE=(of DEVICE)  NAME=vllm-test  WORK=(this directory)                for the container
  HF_TOKEN, http_proxy, https_proxy       handed to the container from your environment
USAGE
}

PRINT=${PRINT:-} PRESET=${PRESET:-full} TP=${TP:-2} QUANTIZATION=${QUANTIZATION:-none} EAGER=${EAGER:-true}
PORT=${PORT:-8000} RESULT=${RESULT:-result.json} SETVARS=${SETVARS:-/opt/intel/oneapi/setvars.sh}
DEVICE=${DEVICE:-xpu} NAME=${NAME:-vllm-test} WORK=${WORK:-$PWD}

case $DEVICE in
  xpu)
    IMAGE=${IMAGE:-intel/vllm:0.14.1-xpu}
    DEVICES=(--privileged --device /dev/dri -v /dev/dri/by-path:/dev/dri/by-path)
    ;;
  cuda)
    IMAGE=${IMAGE:-vllm/vllm-openai:v0.14.1}
    DEVICES=(--gpus all)
    ;;
  rocm)
    IMAGE=${IMAGE:-rocm/vllm:latest}
    DEVICES=(--device /dev/kfd --device /dev/dri --group-add video --group-add render --cap-add SYS_PTRACE --security-opt seccomp=unconfined)
    ;;
  cpu)
    IMAGE=${IMAGE:-public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.14.1}
    DEVICES=()
    ;;
  *) echo "DEVICE is xpu, cuda, rocm or cpu, not '$DEVICE'" >&2; exit 2 ;;
esac

case $PRESET in
  full) MODEL=${MODEL:-openai/gpt-oss-20b} INPUT=1024 OUTPUT=1024 CONCURRENCY=32 PROMPTS=160 CONTEXT=10000 ;;
  sanity) MODEL=${MODEL:-Qwen/Qwen3-4B-Thinking-2507} INPUT=8 OUTPUT=8 CONCURRENCY=2 PROMPTS=4 CONTEXT=2048 ;;
  *) echo "PRESET is full or sanity, not '$PRESET'" >&2; exit 2 ;;
esac

# Runs a command, or prints it on one line.
go() {
  if [[ -n $PRINT ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    exec "$@"
  fi
}

# What server and client need around them: oneAPI, and local addresses past any proxy.
surroundings() {
  if [[ -z $PRINT && -f $SETVARS ]]; then
    set +eu # setvars.sh reads unset variables, and some of its steps fail
    # shellcheck disable=SC1090
    source "$SETVARS" --force
    set -eu
  fi
  export no_proxy=localhost,127.0.0.1,0.0.0.0${no_proxy:+,$no_proxy}
  export NO_PROXY=localhost,127.0.0.1,0.0.0.0${NO_PROXY:+,$NO_PROXY}
  export VLLM_WORKER_MULTIPROC_METHOD=spawn
}

container() {
  # -e NAME without a value hands over your variable; its value is on no command line.
  go docker run -it --name "$NAME" \
    --shm-size 10g --net=host --ipc=host "${DEVICES[@]}" \
    -v "$HOME/.cache/huggingface:/root/.cache/huggingface" \
    -v "$WORK:/work" -w /work \
    -e HF_TOKEN -e http_proxy -e https_proxy -e HTTP_PROXY -e HTTPS_PROXY \
    -e no_proxy=localhost,127.0.0.1,0.0.0.0 -e NO_PROXY=localhost,127.0.0.1,0.0.0.0 \
    --entrypoint bash "$IMAGE"
}

server() {
  surroundings
  local more=()
  [[ $QUANTIZATION == none ]] || more+=(--quantization "$QUANTIZATION")
  [[ $EAGER == false ]] || more+=(--enforce-eager)
  go vllm serve "$MODEL" \
    --port "$PORT" \
    --dtype bfloat16 \
    --block-size 64 \
    --gpu-memory-utilization 0.9 \
    --no-enable-prefix-caching \
    --trust-remote-code \
    --disable-sliding-window \
    --no-enable-log-requests \
    --max-num-batched-tokens 8192 \
    --max-model-len "$CONTEXT" \
    --tensor-parallel-size "$TP" \
    "${more[@]}"
}

client() {
  surroundings
  go vllm bench serve \
    --host 0.0.0.0 \
    --port "$PORT" \
    --model "$MODEL" \
    --trust-remote-code \
    --dataset-name random \
    --ignore-eos \
    --num-warmups 3 \
    --random-input-len "$INPUT" \
    --random-output-len "$OUTPUT" \
    --max-concurrency "$CONCURRENCY" \
    --num-prompts "$PROMPTS" \
    --temperature 0 \
    --save-result \
    --result-dir "$(dirname "$RESULT")" \
    --result-filename "$(basename "$RESULT")"
}

case ${1:-} in
  container) container ;;
  server) server ;;
  health) go curl --noproxy '*' -f -s -o /dev/null -w '%{http_code}\n' "http://localhost:$PORT/health" ;;
  client) client ;;
  devices) go xpu-smi stats -d 3 ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
