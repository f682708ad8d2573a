"""Make a video of each recording, all at once: python examples/many.py FOLDER AUDIO_URL...

Jobs use the server's characters in turn. The token comes from A2V_TOKEN, the server from A2V_BASE_URL.
"""

import itertools
import sys

import anyio

import a2v


async def main(folder: str, audio_urls: list[str]) -> bool:
    """Save the videos, print the errors, and return whether all jobs succeeded."""
    async with a2v.AsyncA2V() as client:
        characters = itertools.cycle(await client.characters.list())
        jobs = [a2v.Job(next(characters).model_id, audio_url) for audio_url in audio_urls]
        all_ok = True
        async with client.batch(jobs, save_to=folder) as batch:
            async for outcome in batch:
                print(outcome.job.audio_url, "->", outcome.path if outcome.ok else outcome.error)
                all_ok &= outcome.ok
    return all_ok


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        sys.exit(not anyio.run(main, sys.argv[1], sys.argv[2:]))
    except a2v.A2VError as error:
        sys.exit(f"{type(error).__name__}: {error}")
