"""Make one video and print each change of its status: python examples/generate.py AUDIO_URL MODEL_ID.

The token comes from A2V_TOKEN, the server from A2V_BASE_URL.
"""

import sys

import anyio

import a2v


async def main(audio_url: str, model_id: str) -> None:
    """Submit a job, print each status, and save the video."""
    async with a2v.AsyncA2V() as client:
        task = await client.videos.generate(model_id=model_id, audio_url=audio_url)
        print(f"Submitted as {task.video_id}. The render continues even if this program stops.")
        async for video in task.watch():
            print(video.status)
        print("Saved", await task.download(f"{task.video_id}.mp4"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        anyio.run(main, sys.argv[1], sys.argv[2])  # backend="trio" works too
    except a2v.A2VError as error:
        sys.exit(f"{type(error).__name__}: {error}")
