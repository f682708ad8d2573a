#!/bin/sh
# Make one video: sh make_video.sh AUDIO_URL MODEL_ID. Needs curl; the server is A2V_BASE_URL, the token A2V_TOKEN.
set -eu
audio_url=${1:?"usage: sh make_video.sh AUDIO_URL MODEL_ID"}
model_id=${2:?"usage: sh make_video.sh AUDIO_URL MODEL_ID"}
api=${A2V_BASE_URL:?"set A2V_BASE_URL"}/v1/a2v

# The token goes through a pipe: other users of the machine can read command lines.
call() {
    reply=$(printf 'Authorization: Bearer %s\n' "${A2V_TOKEN:?"set A2V_TOKEN"}" | curl -sS --max-time 30 -H @- "$@")
    case $reply in
        *'"code":0,'* | *'"code": 0,'*) printf '%s\n' "$reply" ;;
        *) printf '%s\n' "$reply" >&2; exit 1 ;;
    esac
}

# Print the value of a JSON key. This is enough for these short responses; use jq for anything more complex.
field() {
    sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | sed 's/\\u0026/\&/g; s,\\/,/,g'
}

characters=$(call "$api/character.list")
printf '%s\n' "$characters" | tr '{' '\n' | field model_id

submitted=$(call "$api/video.generate" -H 'Content-Type: application/json' \
    -d "{\"model_id\": \"$model_id\", \"audio_url\": \"$audio_url\"}")
video_id=$(printf '%s' "$submitted" | field video_id)
echo "submitted $video_id"

while :; do
    video=$(call -G "$api/video.get" --data-urlencode "video_id=$video_id")
    video_url=$(printf '%s' "$video" | field video_url)
    if [ -n "$video_url" ]; then break; fi
    if [ "$(printf '%s' "$video" | field status)" = error ]; then
        printf '%s\n' "$video" >&2
        exit 1
    fi
    sleep 3
done

# The file may be on another host, so the request has no token.
curl -sSf -o "$video_id.mp4" "$video_url"
echo "saved $video_id.mp4"
