"""A recording on this machine as ``audio_url``: uploaded to a bucket of yours and handed on as a presigned URL.

    from a2v.staging import stage

    async with stage("speech.wav", "s3://bucket/prefix") as audio_url:
        task = await client.videos.generate(model_id="eva_a0008", audio_url=audio_url)
        await task.download("speech.mp4")

Without async it is ``with stage(...)``. For many files there are ``AsyncStager`` and ``Stager``. All of it needs the extra
``staging``, and works with S3 and what speaks its protocol, Google Cloud Storage and Azure.

An object is named after the SHA-256 of what is in it, so a recording that is there already is not uploaded again, whoever
uploaded it. Credentials come from the environment, as the packages of each store have it.
"""

from __future__ import annotations

try:
    from a2v.staging.stager import AsyncStager, Stage, Stager, stage
except ModuleNotFoundError as _error:
    if _error.name != "obstore":
        raise
    raise ImportError('staging needs one more package (obstore): pip install "a2v[staging]"', name="obstore") from None

__all__ = ["AsyncStager", "Stage", "Stager", "stage"]
