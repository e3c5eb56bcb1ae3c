# What code of a node has at hand in Bash. Each function asks whoever runs it, and waits for the answer; it fails, with
# the reason on standard error, where there is none.

flowkit_ask() {
    local LC_ALL=C verb=$1 lengths= size answer
    shift
    for answer in "$@"; do lengths+=" ${#answer}"; done
    {
        printf '%s%s\n' "$verb" "$lengths"
        (($# == 0)) || printf '%s' "$@"
    } >&4 || return
    IFS= read -r -u 4 size || return
    IFS= read -r -N "$size" -u 4 answer || return
    if [[ $answer == '!'* ]]; then
        printf '%s\n' "flowkit: ${answer:1}" >&2
        return 1
    fi
    printf '%s' "${answer:1}"
}

# A part of the inputs: a text as it is, anything else as JSON. flowkit_input rows[0].name
flowkit_input() { flowkit_ask input "${1-}"; }

# flowkit_log LEVEL MESSAGE, where LEVEL is debug, info, warning or error.
flowkit_log() { flowkit_ask log "$1" "${*:2}"; }

# flowkit_progress DONE [TOTAL [MESSAGE]]
flowkit_progress() { flowkit_ask progress "${1-}" "${2-}" "${3-}"; }

# The value of a secret that the node names.
flowkit_secret() { flowkit_ask secret "$1"; }

# Whether the node is to stop.
flowkit_cancelled() { [[ -n $(flowkit_ask cancelled) ]]; }

# flowkit_batch JSON: hands a batch of the node's stream on, once there is room for it.
flowkit_batch() { flowkit_ask batch "$1"; }

# flowkit_result JSON [NEXT...]: the node's output, and which of its successors run. Once.
flowkit_result() {
    local output=$1
    shift
    if (($#)); then flowkit_ask result "$output" "$*"; else flowkit_ask result "$output"; fi
}
