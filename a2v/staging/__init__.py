"""Stage local recordings: upload them to a bucket and get presigned URLs, to be used as ``audio_url``.

    from a2v.staging import stage

    async with stage("speech.wav", "s3://bucket/prefix") as audio_url:
        task = await client.videos.generate(model_id="eva_a0008", audio_url=audio_url)
        await task.download("speech.mp4")

Without async, use ``with stage(...)``. For many files there are ``AsyncStager`` and ``Stager``. Requires the extra ``staging``;
works with S3 and compatible stores, Google Cloud Storage and Azure. For a server that is a2v's engine, pass its client in place of the
bucket, or use ``client.upload``, which needs no extra.

An object's name is the SHA-256 of its content, so a recording that the store has already is not uploaded again. Credentials come
from the environment variables of each store's own tools.
"""

from __future__ import annotations

try:
    from a2v.staging.stager import AsyncStager, Stage, Stager, stage
except ModuleNotFoundError as _error:
    if _error.name != "obstore":
        raise
    raise ImportError('staging needs one more package (obstore): pip install "a2v[staging]"', name="obstore") from None

__all__ = ["AsyncStager", "Stage", "Stager", "stage"]
