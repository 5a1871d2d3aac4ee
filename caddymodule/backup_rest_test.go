package caddymodule

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/discovery"
)

// While an app rests, its site says so and when it is back; then it serves again.
func TestRestingPage(t *testing.T) {
	b := newBackupWorld(t)
	up := b.up()
	web := object("web", off("shop.test"), backend(t, "shop"))
	web.Group = discovery.Group{Engine: b.name, Project: "shop", Service: "web"}
	web.ID = "id-web"
	web.Routes[0].Hold = time.Millisecond
	up.Replace([]discovery.Object{web})
	eventually(t, "it serves", func() bool { status, _ := b.get("http://shop.test/"); return status == 200 })
	b.platform.Downtime = 10 * time.Minute
	b.platform.Step = func(step string) error {
		if step != "read:data" {
			return nil
		}
		down := web
		down.State, down.Detail, down.Routes = discovery.Stopped, "exited", slices.Clone(web.Routes)
		down.Routes[0].Endpoints = nil
		up.Set(down)
		defer up.Set(web)
		eventually(t, "the page says what is going on", func() bool {
			resp, err := b.client.Get("http://shop.test/")
			if err != nil {
				return false
			}
			defer func() { _ = resp.Body.Close() }()
			text, _ := io.ReadAll(resp.Body)
			retry := resp.Header.Get("Retry-After")
			return resp.StatusCode == 503 && strings.Contains(string(text), "is being backed up and is expected back at") && len(retry) == 3
		})
		return nil
	}
	if got := b.call("POST", "backups?job=00000000000d", backup.BackupRequest{App: "shop", Encryption: "none"}, nil); got != 202 {
		t.Fatal(got)
	}
	if v := b.job("00000000000d"); v.State != "done" {
		t.Fatalf("job = %+v", v)
	}
	eventually(t, "it serves again", func() bool { status, _ := b.get("http://shop.test/"); return status == 200 })
	s, _ := current()
	if n := len(s.backups.rest.now); n != 0 {
		t.Errorf("%d scopes rest still", n)
	}
}

func TestRestPatience(t *testing.T) {
	b := newBackupWorld(t)
	s, _ := current()
	lr := &liveRoute{key: b.name + "/shop/*#abc", state: s}
	tests := []struct {
		name             string
		back             time.Duration // 0: it does not rest
		usual, low, high time.Duration
	}{
		{"not at rest", 0, 10 * time.Second, 10 * time.Second, 10 * time.Second},
		{"back soon", 30 * time.Second, 10 * time.Second, 30 * time.Second, 35 * time.Second},
		{"back at once", time.Second, 10 * time.Second, 10 * time.Second, 10 * time.Second},
		{"back late", time.Hour, 10 * time.Second, 10 * time.Second, 10 * time.Second},
		{"never more than a minute", 59 * time.Second, 10 * time.Second, 59 * time.Second, time.Minute},
		{"a route that does not wait", 30 * time.Second, 0, 0, 0},
		{"overdue", -time.Minute, 10 * time.Second, 10 * time.Second, 10 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := backup.Resting{Platform: b.name, App: "shop", Why: "backup", Back: time.Now().Add(tt.back), Over: tt.back == 0}
			s.backups.rest.set(&r)
			if got := s.restPatienceOf(lr, tt.usual); got < tt.low || got > tt.high {
				t.Errorf("patience = %v, want %v to %v", got, tt.low, tt.high)
			}
		})
	}
}

// A group of containers of several projects (label dentropy.app) is found by ids.
func TestRestingByID(t *testing.T) {
	b := newBackupWorld(t)
	up := b.up()
	web := object("web", off("group.test"), backend(t, "x"))
	web.ID, web.Group = "id-9", discovery.Group{Engine: b.name, Project: "other", Service: "web"}
	up.Replace([]discovery.Object{web})
	s, _ := current()
	rests := s.backups.rest
	lr := &liveRoute{key: b.name + "/other/*#abc", state: s}
	rest := backup.Resting{Platform: b.name, App: "family", Why: "restore", Containers: []string{"id-9"}, Back: time.Now().Add(time.Minute)}
	rests.set(&rest)
	if got := rests.of(lr); got == nil || got.App != "family" {
		t.Errorf("of = %+v, want family", got)
	}
	rest.Over = true
	rests.set(&rest)
	if got := rests.of(lr); got != nil {
		t.Errorf("of = %+v, want nothing", got)
	}
	up.Delete("id-9")
	rests.mu.Lock()
	defer rests.mu.Unlock()
	if n := len(rests.known[b.name]); n != 0 {
		t.Errorf("%d ids are still known", n)
	}
}

// While a restore replaces a lone container, its host stays with it: the new one serves
// though the old one, set aside under another name, is still there.
func TestHostStaysDuringRestore(t *testing.T) {
	b := newBackupWorld(t)
	s, _ := current()
	up := b.up()
	lone := func(id, name, address string) discovery.Object {
		o := object(name, off("lone.test"), address)
		o.ID, o.Group = id, discovery.Group{Engine: b.name, Service: name}
		if address == "" {
			o.State, o.Routes[0].Endpoints = discovery.Stopped, nil
		}
		return o
	}
	up.Replace([]discovery.Object{lone("old", "web", backend(t, "old"))})
	eventually(t, "the old one serves", func() bool { _, text := b.get("http://lone.test/"); return text == "old /" })
	up.Set(lone("new", "web.restore-0123456789ab", ""))
	up.Set(lone("old", "web", ""))
	up.Set(lone("old", "web.pre-restore-0123456789ab", ""))
	up.Set(lone("new", "web", backend(t, "new")))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.probe(ctx, "lone.test"); err != nil {
		t.Errorf("probe = %v, want the new one to answer", err)
	}
	if _, text := b.get("http://lone.test/"); text != "new /" {
		t.Errorf("answer = %q, want that of the new one", text)
	}
	up.Delete("old")
	if _, text := b.get("http://lone.test/"); text != "new /" {
		t.Errorf("answer = %q, want that of the new one", text)
	}
	if got := unchanged(lone("x", "shop.restore-me", "")).Group.Service; got != "shop.restore-me" {
		t.Errorf("a container of that name is taken for another: %q", got)
	}
}
