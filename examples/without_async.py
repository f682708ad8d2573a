"""Make one video from a plain script: python examples/without_async.py AUDIO_URL MODEL_ID.

The token comes from A2V_TOKEN, the server from A2V_BASE_URL.
"""

import sys

import a2v


def main(audio_url: str, model_id: str) -> None:
    """Submit a job, wait for the render, and save the video."""
    with a2v.A2V() as client:
        task = client.videos.generate(model_id=model_id, audio_url=audio_url)
        print(f"Submitted as {task.video_id}. The render continues even if this program stops.")
        print("Saved", task.download(f"{task.video_id}.mp4"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except a2v.A2VError as error:
        sys.exit(f"{type(error).__name__}: {error}")
