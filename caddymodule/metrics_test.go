package caddymodule

import (
	"strings"
	"testing"
)

// TestMetrics finds ours where Caddy shows its own, and after a reload as they were.
func TestMetrics(t *testing.T) {
	w := newWorld(t, nil)
	servers := w.config["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)
	plain := servers["http"].(map[string]any)
	plain["routes"] = append([]any{map[string]any{
		"match": []any{map[string]any{"host": []string{"metrics.test"}}}, "handle": []any{map[string]any{"handler": "metrics"}},
	}}, plain["routes"].([]any)...)
	w.load()
	up := w.up()
	up.Replace(nil)
	snippet := off("snippet.test")
	snippet.Caddyfile = "header X-From snippet"
	up.Set(object("app", off("app.test"), backend(t, "app")))
	up.Set(object("snippet", snippet, backend(t, "snippet")))
	short := off("short.test")
	short.Hold = 1
	up.Set(object("short", short, ""))
	eventually(t, "served", func() bool { status, _ := w.get("http://app.test/"); return status == 200 })
	if status, _ := w.get("http://short.test/"); status != 503 {
		t.Fatalf("status = %d, want 503", status)
	}
	for _, when := range []string{"at first", "after a reload"} {
		_, body := w.get("http://metrics.test/metrics")
		for _, want := range []string{
			`dentropy_routes{state="serving"}`, `dentropy_routes{state="holding"} 1`, `dentropy_source_up{source="` + w.name + `"} 1`,
			`dentropy_source_objects{source="` + w.name + `"} 3`, `dentropy_source_events_total{source="` + w.name + `"} 3`, `dentropy_source_lists_total`,
			`dentropy_held_requests_total{result="gave_up"} 1`, `dentropy_held_requests 0`, `dentropy_certificates{state="ready"}`,
			`dentropy_event_to_route_seconds_count`, `dentropy_route_provision_seconds_count{result="ok"}`, `dentropy_config_generations 1`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s, /metrics does not have %s", when, want)
			}
		}
		if t.Failed() {
			t.Logf("%s", body)
		}
		w.load()
		eventually(t, "the old config is gone", func() bool {
			_, body := w.get("http://metrics.test/metrics")
			return strings.Contains(body, "dentropy_config_generations 1")
		})
	}
}
