package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

const waitMost = 30 * time.Second

// dial connects to the API, to be a client that stalls.
func (b *backupWorld) dial() net.Conn {
	b.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(b.t.Context(), "tcp", strings.TrimPrefix(b.api.URL, "http://"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// until waits for a job to be so.
func (b *backupWorld) until(id string, is func(backup.JobView) bool) backup.JobView {
	b.t.Helper()
	s, err := current()
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := s.backups.get()
	if err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(waitMost); time.Now().Before(end); {
		if job, ok := m.Job(id); ok {
			if v := job.View(); is(v) {
				return v
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	b.t.Fatalf("job %s does not come to what it should: %+v", id, m.Jobs())
	return backup.JobView{}
}

// A backup that is sent to a client which takes nothing ends when it is cancelled.
func TestStreamToStalledClient(t *testing.T) {
	b := newBackupWorld(t)
	noise := make([]byte, 6<<20) // more than a connection holds
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(noise); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Write("data", "noise", base64.StdEncoding.EncodeToString(noise)); err != nil {
		t.Fatal(err)
	}
	conn := b.dial()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	body := `{"app":"shop","encryption":"none"}`
	fmt.Fprintf(conn, "POST /dentropy/backups?to=-&job=00000000000b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	last, looks := int64(0), 0
	b.until("00000000000b", func(v backup.JobView) bool { // it writes, and comes to a stop
		if looks++; v.Progress.Phase != "write" || v.Progress.Done != last {
			last, looks = v.Progress.Done, 0
		}
		return looks > 40
	})
	if got := b.call("DELETE", "jobs/00000000000b", nil, nil); got != 202 {
		t.Errorf("cancel: %d", got)
	}
	if v := b.until("00000000000b", func(v backup.JobView) bool { return v.State != "running" }); v.State != "cancelled" {
		t.Errorf("job = %+v, want it cancelled", v)
	}
	b.running()
	ended := make(chan struct{})
	go func() { defer close(ended); b.api.Close() }() // waits for all that is under way
	select {
	case <-ended:
	case <-time.After(waitMost):
		t.Error("the handler does not end")
	}
}

// A restore from a client that sends nothing any more ends when it is cancelled, also
// while the head of the archive is read.
func TestRestoreFromStalledClient(t *testing.T) {
	b := newBackupWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), "POST", b.api.URL+"/dentropy/backups?to=-", strings.NewReader(`{"app":"shop","encryption":"none"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(archive) < 10_000 {
		t.Fatalf("archive of %d bytes, %v", len(archive), err)
	}
	for i, n := range []int{100, len(archive) - 3000} {
		id := fmt.Sprintf("00000000001%d", i)
		conn := b.dial()
		fmt.Fprintf(conn, "POST /dentropy/restores?job=%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: %d\r\n\r\n", id, len(archive))
		if _, err := io.Copy(conn, bytes.NewReader(archive[:n])); err != nil {
			t.Fatal(err)
		}
		b.until(id, func(backup.JobView) bool { return true })
		if got := b.call("DELETE", "jobs/"+id, nil, nil); got != 202 {
			t.Errorf("cancel: %d", got)
		}
		if v := b.until(id, func(v backup.JobView) bool { return v.State != "running" }); v.State == "done" {
			t.Errorf("job = %+v, want it cancelled", v)
		}
		_ = conn.SetReadDeadline(time.Now().Add(waitMost))
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("after %d bytes: the handler does not end: %v", n, err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode < 400 {
			t.Errorf("after %d bytes: status %d", n, answer.StatusCode)
		}
	}
	b.running()
}

func TestBackupAPIRefuses(t *testing.T) {
	b := newBackupWorld(t)
	var failed failure
	for _, body := range []map[string]any{
		{"app": "shop", "encryption": "none", "freeze": map[string]any{"mode": "stopp"}},
		{"app": "shop", "encryption": "none", "capture": map[string]any{"images": "yes"}},
	} {
		failed = failure{}
		if got := b.call("POST", "backups", body, &failed); got != 400 || failed.Hint == "" {
			t.Errorf("%v: %d %+v, want 400 with a hint", body, got, failed)
		}
	}
	// what a form on some website can send
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		for _, path := range []string{"backups", "restores/undo"} {
			req, err := http.NewRequestWithContext(t.Context(), "POST", b.api.URL+"/dentropy/"+path, strings.NewReader(`{"app":"shop"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", kind)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnsupportedMediaType {
				t.Errorf("%s as %q: %d, want 415", path, kind, resp.StatusCode)
			}
		}
	}
	// a dry run is no event
	if got := b.call("POST", "backups", backup.BackupRequest{App: "shop", Encryption: "none", DryRun: true}, nil); got != 200 {
		t.Errorf("dry run: %d", got)
	}
	s, err := current()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.journal.last(0) {
		if e.Kind == "restore" || e.Kind == "backup" {
			t.Errorf("event %+v of a dry run", e)
		}
	}
}
