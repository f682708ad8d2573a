// Make one video: go run make_video.go AUDIO_URL MODEL_ID. The server is A2V_BASE_URL, the token A2V_TOKEN.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Calls have a timeout of 30 s; downloads have none.
var api = http.Client{Timeout: 30 * time.Second}

// call calls the API and decodes the response's data into result.
func call(method, name string, body, result any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, os.Getenv("A2V_BASE_URL")+"/v1/a2v/"+name, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("A2V_TOKEN"))
	request.Header.Set("Content-Type", "application/json")
	response, err := api.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var reply struct {
		Code    json.Number
		Message string
		Data    json.RawMessage
	}
	if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
		return fmt.Errorf("%s: HTTP %d: %w", name, response.StatusCode, err)
	}
	if reply.Code != "0" {
		return fmt.Errorf("%s: %s", name, reply.Message)
	}
	return json.Unmarshal(reply.Data, result)
}

type video struct {
	VideoID  string `json:"video_id"`
	VideoURL string `json:"video_url"`
	Status   string `json:"status"`
	Message  string `json:"message"`
}

// wait polls a video until it is finished.
func wait(videoID string) (snapshot video, err error) {
	for {
		query := url.Values{"video_id": {videoID}}.Encode()
		if err := call("GET", "video.get?"+query, nil, &snapshot); err != nil || snapshot.VideoURL != "" {
			return snapshot, err
		}
		if snapshot.Status == "error" {
			return snapshot, fmt.Errorf("the render failed: %s", snapshot.Message)
		}
		time.Sleep(3 * time.Second)
	}
}

// download saves a video. The file may be on another host, so the request has no token.
func download(from, path string) error {
	response, err := http.Get(from)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the download failed: HTTP %d", response.StatusCode)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, response.Body); err != nil {
		return err
	}
	return file.Close()
}

func run(audioURL, modelID string) error {
	var characters []struct {
		ModelID     string `json:"model_id"`
		DisplayName string `json:"display_name"`
	}
	if err := call("GET", "character.list", nil, &characters); err != nil {
		return err
	}
	for _, character := range characters {
		fmt.Println(character.ModelID, character.DisplayName)
	}

	var submitted video
	job := map[string]string{"model_id": modelID, "audio_url": audioURL}
	if err := call("POST", "video.generate", job, &submitted); err != nil {
		return err
	}
	fmt.Println("submitted", submitted.VideoID)

	finished, err := wait(submitted.VideoID)
	if err != nil {
		return err
	}
	path := submitted.VideoID + ".mp4"
	if err := download(finished.VideoURL, path); err != nil {
		return err
	}
	fmt.Println("saved", path)
	return nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go run make_video.go AUDIO_URL MODEL_ID")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}
