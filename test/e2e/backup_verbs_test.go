package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// verbResult is what a verb said.
type verbResult struct {
	stdout, stderr string
	exit           int
}

func (r verbResult) String() string {
	return fmt.Sprintf("exit %d\n--- stdout\n%.3000s\n--- stderr\n%.6000s", r.exit, r.stdout, r.stderr)
}

// verb runs a verb against this dentropy, or beside it where it does not run.
func (d *dentropy) verb(args ...string) verbResult {
	d.t.Helper()
	return d.verbIn(nil, args...)
}

// verbIn gives the verb a standard input.
func (d *dentropy) verbIn(stdin []byte, args ...string) verbResult {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), config.bin, append(args, "--data-dir", d.data)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		d.t.Fatalf("dentropy %s: %v", strings.Join(args, " "), err)
	}
	if strings.Contains(errs.String(), "DATA RACE") {
		d.t.Errorf("dentropy %s: the race detector has found something:\n%s", strings.Join(args, " "), errs.String())
	}
	return verbResult{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must runs a verb that has to succeed.
func (d *dentropy) must(args ...string) verbResult {
	d.t.Helper()
	r := d.verb(args...)
	if r.exit != 0 {
		d.t.Fatalf("dentropy %s: %v", strings.Join(args, " "), r)
	}
	return r
}

// refuses runs a verb that has to fail, and to say why in these words.
func (d *dentropy) refuses(words []string, args ...string) verbResult {
	d.t.Helper()
	r := d.verb(args...)
	refusal(d.t, args, r, words)
	return r
}

func refusal(t *testing.T, args []string, r verbResult, words []string) {
	t.Helper()
	if r.exit == 0 {
		t.Errorf("dentropy %s succeeds: %v", strings.Join(args, " "), r)
	}
	for _, w := range words {
		if !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(w)) {
			t.Errorf("dentropy %s does not mention %q: %v", strings.Join(args, " "), w, r)
		}
	}
	if strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine ") {
		t.Errorf("dentropy %s panics: %v", strings.Join(args, " "), r)
	}
}

// archives lists the archives of the local store, oldest first.
func (d *dentropy) archives() []string {
	d.t.Helper()
	found, err := filepath.Glob(filepath.Join(d.data, "backups", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// backup backs an app up and gives the archive's path.
func (d *dentropy) backup(app string, flags ...string) string {
	d.t.Helper()
	before := d.archives()
	d.must(append([]string{"backup", app, "--yes"}, flags...)...)
	for _, a := range d.archives() {
		if !slices.Contains(before, a) {
			return a
		}
	}
	d.t.Fatalf("no new archive of %s beside %q", app, before)
	return ""
}

// manifest shows an archive.
func (d *dentropy) manifest(archive string) (m struct {
	App struct {
		Name       string
		Containers []struct{ Name string }
	}
	Trees   map[string]struct{ Entries, Bytes, Stored int64 }
	Quiesce struct {
		Stopped      []struct{ Name, Mode string }
		Downtime     int64
		DataDowntime int64 `json:"data_downtime"`
	}
	Encryption string
}) {
	d.t.Helper()
	r := d.must("archive", "show", archive, "--json")
	var envelope struct{ Manifest json.RawMessage }
	raw := []byte(r.stdout)
	if err := json.Unmarshal(raw, &envelope); err == nil && envelope.Manifest != nil {
		raw = envelope.Manifest
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		d.t.Fatalf("archive show: %v: %v", err, r)
	}
	return m
}

// keepCopy takes an archive out of the store.
func keepCopy(t *testing.T, archive string) string {
	t.Helper()
	b, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), filepath.Base(archive))
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
