package docker_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/docker"
)

// Behind a read-only socket proxy apps can be listed and not backed up, and it says so.
func TestWritable(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		want   string // "" is writable
		typed  bool
	}{
		{"all is allowed", 404, `{"message":"No such container: x"}`, "", false},
		{"forbidden", 403, "<html><body><h1>403 Forbidden</h1></body></html>", "read-only", true},
		{"method not allowed", 405, "Method Not Allowed", "read-only", true},
		{"broken", 500, `{"message":"out of order"}`, "out of order", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Api-Version", "1.41")
				switch {
				case r.Method == http.MethodPost:
					w.WriteHeader(tt.status)
					_, _ = w.Write([]byte(tt.body))
				case strings.HasSuffix(r.URL.Path, "/containers/json"):
					_, _ = w.Write([]byte("[]"))
				}
			}))
			defer srv.Close()
			p, err := docker.New(docker.Options{Endpoint: "tcp://" + srv.Listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Close() }()
			err = p.Writable(t.Context())
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Writable = %v, want %q", err, tt.want)
			}
			var problem *backup.Problem
			if errors.As(err, &problem) != tt.typed || tt.typed && problem.Hint == "" {
				t.Errorf("Writable = %#v, want a hint: %v", err, tt.typed)
			}
		})
	}
}
