package docker

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

func TestIsLost(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		text string
		want bool
	}{
		{"task " + id + ": already exists", true},
		{"docker engine at unix:///x: start container: Error response from daemon: failed to create task for container: task \"" + id + "\": already exists", true},
		{"id already in use", true},
		{"container \"" + id + "\": already exists", true},
		{"container with id " + id + " already exists", true},
		{"failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/" + id + ": file exists: unknown", true},
		{"task " + strings.Repeat("cd", 32) + ": already exists", false},
		{"endpoint with name shop-db-1 already exists in network shop_default", false},
		{"driver failed programming external connectivity: port is already allocated", false},
		{"Address already in use", false},
		{"mkdir /data: file exists", false},
		{"no such container: " + id, false},
	} {
		if got := isLost(errors.New(tt.text), id); got != tt.want {
			t.Errorf("isLost(%q) = %v, want %v", tt.text, got, tt.want)
		}
	}
	if isLost(nil, id) {
		t.Error("isLost(nil) = true")
	}
}

// A container that the engine has lost track of, where nothing can be done about it from
// here: whoever reads it is told what to do.
func TestLostForGood(t *testing.T) {
	f, p := newFake(t)
	p.opts.HelperBinary = "/nowhere/dentropy"
	f.on("GET /containers/x/json", exited)
	starts := 0
	f.on("POST /containers/x/start", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		starts++
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"message":"task x: already exists"}`)
	}))
	back, err := p.bringBack(t.Context(), []halted{{ID: "x", Name: "shop-db-1", Mode: backup.Stop, State: backup.Running}}, 0, nil)
	if !errors.Is(err, backup.ErrLeftStopped) || starts != startAttempts {
		t.Fatalf("bringBack = %+v, %v after %d starts, want that it is left stopped", back, err, starts)
	}
	if hint := backup.HintOf(err); !strings.Contains(hint, "systemctl restart containerd docker") || !strings.Contains(hint, "shop-db-1") {
		t.Errorf("hint %q, want what to do", hint)
	}
	for _, part := range []string{"lost track of shop-db-1", "task x: already exists", "/nowhere/dentropy"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want %q in it", err, part)
		}
	}
	if len(back.Warnings) > 0 {
		t.Errorf("warnings %q of what was not done", back.Warnings)
	}
}

// The helper that ends what runs of a container sees the host's processes, and no other
// does; it may send signals, and no more.
func TestReapConfig(t *testing.T) {
	_, host, err := helperConfig("i", helperTask{name: "reap", caps: []string{"KILL"}, processes: true})
	if err != nil {
		t.Fatal(err)
	}
	if !host.PidMode.IsHost() || host.Privileged || len(host.CapAdd) != 1 || !host.ReadonlyRootfs || !host.NetworkMode.IsNone() {
		t.Errorf("it is made with %+v", host)
	}
	_, host, err = helperConfig("i", helperTask{name: "read"})
	if err != nil {
		t.Fatal(err)
	}
	if host.PidMode != "" || strings.Contains(strings.Join(host.SecurityOpt, " "), "apparmor") {
		t.Errorf("another is made with %+v", host)
	}
}
