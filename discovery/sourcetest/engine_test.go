package sourcetest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// The engine is asked without the Docker client here: what that cannot say must
// come out right, too.

func get(t *testing.T, e *sourcetest.Engine, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(e.Endpoint(), "tcp://", "http://", 1)+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// actions reads events until the stream ends, as "type action".
func actions(t *testing.T, r io.Reader, most int) (out []string) {
	t.Helper()
	lines := bufio.NewScanner(r)
	for len(out) < most && lines.Scan() {
		var ev struct{ Type, Action string }
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			t.Fatal(err)
		}
		out = append(out, ev.Type+" "+ev.Action)
	}
	return out
}

func TestVersions(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{API: "1.52", MinAPI: "1.44", TCP: true})
	e.Load(sourcetest.Container{Name: "one", HasHealth: true, Health: "healthy"})
	for _, tt := range []struct {
		path   string
		status int
		want   string
	}{
		{"/_ping", 200, "OK"},
		{"/v1.43/containers/json", 400, "client version 1.43 is too old. Minimum supported API version is 1.44"},
		{"/v1.53/containers/json", 400, "client version 1.53 is too new. Maximum supported API version is 1.52"},
		{"/v1.52/containers/json", 200, `"Health":{"Status":"healthy"`},
		{"/v1.44/containers/json", 200, `(healthy)"`},
		{"/v1.44/containers/one/json", 200, `"IPAddress"`},
		{"/v1.44/containers/two/json", 404, "No such container: two"},
		{"/v1.44/images/json", 404, "page not found"},
	} {
		resp := get(t, e, tt.path)
		text := body(t, resp)
		if resp.StatusCode != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("GET %s = %d %s, want %d and %q", tt.path, resp.StatusCode, text, tt.status, tt.want)
		}
		if got := resp.Header.Get("Api-Version"); got != "1.52" {
			t.Errorf("Api-Version = %q, want 1.52", got)
		}
	}
	if text := body(t, get(t, e, "/v1.51/containers/json")); strings.Contains(text, `"Health"`) {
		t.Errorf("a list of API 1.51 tells the health: %s", text)
	}
}

func TestEvents(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{TCP: true})
	begin := time.Now()
	id := e.Run(sourcetest.Container{Name: "one"})
	e.Exec(id)
	e.Health(id, "healthy")
	e.Stop(id)
	e.Destroy(id)
	ask := func(filters string, more string) string {
		return "/v1.41/events?filters=" + url.QueryEscape(filters) + more
	}
	past := fmt.Sprintf("&since=%d.%09d&until=%d.%09d", begin.Unix(), begin.Nanosecond(), time.Now().Unix(), time.Now().Nanosecond())
	for _, tt := range []struct {
		filters string
		want    []string
	}{
		{
			`{"type":{"container":true},"event":{"start":true,"die":true,"health_status":true}}`,
			[]string{"container start", "container health_status: healthy", "container die"},
		},
		{`{"type":{"network":true}}`, []string{"network connect", "network disconnect"}},
		{`{"event":{"start":true}}`, []string{"container start"}},
		{
			`{}`,
			[]string{
				"container create", "network connect", "container start", "container exec_create: /health", "container exec_start: /health", "container exec_die",
				"container health_status: healthy", "container kill", "container die", "network disconnect", "container stop", "container destroy",
			},
		},
	} {
		if diff := cmp.Diff(tt.want, actions(t, get(t, e, ask(tt.filters, past)).Body, 99)); diff != "" {
			t.Errorf("events with %s (-want +got):\n%s", tt.filters, diff)
		}
	}
	if resp := get(t, e, ask(`{"image":{"x":true}}`, past)); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a filter that is not scripted gives %d, want 400", resp.StatusCode)
	}

	live := get(t, e, ask(`{"event":{"create":true}}`, ""))
	e.RepeatEvents(2)
	e.Create(sourcetest.Container{Name: "two"})
	if got := actions(t, live.Body, 2); len(got) != 2 {
		t.Errorf("live events %q, want one twice", got)
	}
	e.DropEvents(true)
	e.Create(sourcetest.Container{Name: "three"})
	e.CutEvents()
	if got := actions(t, live.Body, 9); len(got) != 0 {
		t.Errorf("events %q came through a silent stream", got)
	}
	if got := e.Subscribers(); got != 0 {
		t.Errorf("%d subscribers after all were cut", got)
	}
}

func TestFaults(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{TCP: true})
	ids := e.Load(sourcetest.Container{Name: "one"}, sourcetest.Container{Name: "two"})
	status := func(path string) int { return get(t, e, path).StatusCode }
	e.Break(sourcetest.PathList, sourcetest.Fault{Status: 500, Message: "x", Times: 2})
	e.BreakContainer(ids[0], sourcetest.Fault{Status: 503, Message: "y"})
	got := []int{
		status("/v1.44/containers/json"), status("/v1.44/containers/json"), status("/v1.44/containers/json"),
		status("/v1.44/containers/one/json"), status("/v1.44/containers/two/json"),
	}
	e.HealContainer(ids[0])
	got = append(got, status("/v1.44/containers/one/json"))
	if diff := cmp.Diff([]int{500, 500, 200, 503, 200, 200}, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if got := e.Inspects(ids[0]); got != 2 {
		t.Errorf("%d inspections, want 2", got)
	}

	e.Break(sourcetest.PathList, sourcetest.Fault{Stall: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(e.Endpoint(), "tcp://", "http://", 1)+"/v1.44/containers/json", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("a stalled call was answered")
	}
	e.Heal()

	before := e.Endpoint()
	e.Down()
	req = req.WithContext(t.Context())
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("an engine that is down answered")
	}
	if err := e.Up(); err != nil {
		t.Fatal(err)
	}
	if e.Endpoint() != before || status("/v1.44/containers/json") != 200 {
		t.Errorf("endpoint %s after Up, want %s and an answer", e.Endpoint(), before)
	}
}
