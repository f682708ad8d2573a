// Make one video: java MakeVideo.java AUDIO_URL MODEL_ID. The server is A2V_BASE_URL, the token A2V_TOKEN.
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class MakeVideo {
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    /** Calls the API and returns the response, or throws. */
    private static String call(String name, String body) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("A2V_BASE_URL") + "/v1/a2v/" + name))
                .header("Authorization", "Bearer " + System.getenv("A2V_TOKEN"))
                .header("Content-Type", "application/json")
                .timeout(Duration.ofSeconds(30))
                .method(body == null ? "GET" : "POST", body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body))
                .build();
        String reply = HTTP.send(request, BodyHandlers.ofString()).body();
        if (!Pattern.compile("\"code\"\\s*:\\s*\"?0\"?\\s*[,}]").matcher(reply).find()) {
            throw new IOException(name + ": " + reply);
        }
        return reply;
    }

    /** Returns the value of a JSON key, or null. Java has no JSON parser; use a library for anything more complex. */
    private static String field(String json, String key) {
        Matcher found = Pattern.compile("\"" + key + "\"\\s*:\\s*\"((?:[^\"\\\\]|\\\\.)*)\"").matcher(json);
        return found.find() ? found.group(1).replace("\\/", "/").replace("\\u0026", "&").replace("\\\"", "\"") : null;
    }

    /** Returns a value as a JSON string. */
    private static String quoted(String value) {
        return "\"" + value.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }

    /** Polls a video until it is finished, and returns its URL. */
    private static URI await(String videoId) throws IOException, InterruptedException {
        while (true) {
            String video = call("video.get?video_id=" + URLEncoder.encode(videoId, StandardCharsets.UTF_8), null);
            String url = field(video, "video_url");
            if (url != null && !url.isEmpty()) {
                return URI.create(url);
            }
            if ("error".equals(field(video, "status"))) {
                throw new IOException("the render failed: " + video);
            }
            Thread.sleep(3000);
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length != 2) {
            System.err.println("usage: java MakeVideo.java AUDIO_URL MODEL_ID");
            System.exit(1);
        }
        try {
            for (String character : call("character.list", null).split("\\},")) {
                System.out.println(field(character, "model_id") + " " + field(character, "display_name"));
            }

            String job = "{\"model_id\": " + quoted(arguments[1]) + ", \"audio_url\": " + quoted(arguments[0]) + "}";
            String videoId = field(call("video.generate", job), "video_id");
            System.out.println("submitted " + videoId);

            // The file may be on another host, so the request has no token.
            HttpRequest download = HttpRequest.newBuilder(await(videoId)).build();
            Path path = Path.of(videoId + ".mp4");
            int status = HTTP.send(download, BodyHandlers.ofFile(path)).statusCode();
            if (status != 200) {
                throw new IOException("the download failed: HTTP " + status);
            }
            System.out.println("saved " + path);
        } catch (IOException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }
}
