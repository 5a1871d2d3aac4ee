package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// config is what scripts/e2e has made.
var config struct {
	bin    string // dentropy, built with the race detector
	static string // dentropy, static
	server string // what the containers run, static
	engine string // the private engine's folder
	script string // scripts/docker-engine
}

func TestMain(m *testing.M) {
	for name, value := range map[string]*string{
		"DENTROPY_BIN":           &config.bin,
		"DENTROPY_STATIC_BIN":    &config.static,
		"DENTROPY_E2E_SERVER":    &config.server,
		"DENTROPY_ENGINE":        &config.engine,
		"DENTROPY_ENGINE_SCRIPT": &config.script,
	} {
		*value = os.Getenv(name)
		if *value == "" {
			fmt.Fprintf(os.Stderr, "%s is not set: these tests are run by `make e2e`\n", name)
			if os.Getenv("CI") == "true" {
				os.Exit(1)
			}
			return
		}
		// What steers the harness is not meant for the programs that it starts.
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// tool gives the path of a program that scripts/test-tools has installed.
func tool(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set", variable)
		}
		t.Skipf("%s is not set: run the tests with `make e2e`", variable)
	}
	return path
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	eventuallyWithin(t, 30*time.Second, what, check)
}

func eventuallyWithin(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-tick.C:
		}
	}
}

// always checks again and again for a time that check stays nil.
func always(t *testing.T, d time.Duration, what string, check func() error) {
	t.Helper()
	end := time.After(d)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := check(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}
