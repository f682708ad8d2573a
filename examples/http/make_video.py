"""Make one video: python3 make_video.py AUDIO_URL MODEL_ID. The server is A2V_BASE_URL, the token A2V_TOKEN."""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


def call(name: str, body: dict[str, str] | None = None) -> Any:
    """Call the API and return the response's data, or exit with the error."""
    request = urllib.request.Request(
        f"{os.environ['A2V_BASE_URL']}/v1/a2v/{name}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {os.environ['A2V_TOKEN']}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            reply = json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"{name}: HTTP {error.code}: {error.read().decode(errors='replace')}")
    if int(reply["code"]) != 0:
        sys.exit(f"{name}: {reply['message']}")
    return reply["data"]


def main(audio_url: str, model_id: str) -> None:
    """List the characters, submit a job, poll the video, and save it."""
    for character in call("character.list"):
        print(character["model_id"], character["display_name"])

    video_id = call("video.generate", {"model_id": model_id, "audio_url": audio_url})["video_id"]
    print("submitted", video_id)

    while not (video := call("video.get?" + urllib.parse.urlencode({"video_id": video_id}))).get("video_url"):
        if video.get("status") == "error":
            sys.exit(f"the render failed: {video}")
        time.sleep(3)

    # The file may be on another host, so the request has no token.
    with urllib.request.urlopen(video["video_url"], timeout=30) as response, Path(f"{video_id}.mp4").open("wb") as file:
        while block := response.read(1 << 16):
            file.write(block)
    print("saved", file.name)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
