// Make one video: node make_video.mjs AUDIO_URL MODEL_ID. The server is A2V_BASE_URL, the token A2V_TOKEN.
import { createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";

const { A2V_BASE_URL, A2V_TOKEN } = process.env;

/** Calls the API and returns the response's data, or throws. */
async function call(name, body) {
  const response = await fetch(`${A2V_BASE_URL}/v1/a2v/${name}`, {
    method: body ? "POST" : "GET",
    headers: { Authorization: `Bearer ${A2V_TOKEN}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  let reply;
  try {
    reply = JSON.parse(text);
  } catch {
    throw new Error(`${name}: HTTP ${response.status}: ${text}`);
  }
  if (Number(reply.code) !== 0) throw new Error(`${name}: ${reply.message}`);
  return reply.data;
}

/** Polls a video until it is finished. */
async function wait(videoId) {
  for (;;) {
    const video = await call(`video.get?${new URLSearchParams({ video_id: videoId })}`);
    if (video.video_url) return video;
    if (video.status === "error") throw new Error(`the render failed: ${video.message}`);
    await sleep(3000);
  }
}

async function main(audioUrl, modelId) {
  for (const character of await call("character.list")) {
    console.log(character.model_id, character.display_name);
  }

  const { video_id: videoId } = await call("video.generate", { model_id: modelId, audio_url: audioUrl });
  console.log("submitted", videoId);

  const video = await wait(videoId);
  // The file may be on another host, so the request has no token.
  const response = await fetch(video.video_url);
  if (!response.ok) throw new Error(`the download failed: HTTP ${response.status}`);
  await pipeline(Readable.fromWeb(response.body), createWriteStream(`${videoId}.mp4`));
  console.log("saved", `${videoId}.mp4`);
}

if (process.argv.length !== 4) {
  console.error("usage: node make_video.mjs AUDIO_URL MODEL_ID");
  process.exit(1);
}
try {
  await main(process.argv[2], process.argv[3]);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
