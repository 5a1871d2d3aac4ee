package docker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// TestManyPorts: no archive keeps a plan busy with its ports.
func TestManyPorts(t *testing.T) {
	many := func(n int, binding string) string {
		return strings.Repeat(binding+",", n-1) + binding
	}
	for _, test := range []struct {
		name, bindings string
		open           string // not settled
		err            string
	}{
		{name: "the last port", bindings: `{"HostPort":"65535"}`},
		{name: "up to the last port", bindings: `{"HostPort":"65000-65535"}`},
		{name: "all ports", bindings: `{"HostPort":"1-65535"}`},
		{name: "all ports twice", bindings: many(2, `{"HostPort":"1-65535"}`), err: "more ports than a host has"},
		{name: "half of them twice", bindings: many(2, `{"HostPort":"1-32767"}`), open: "port 1/tcp"},
		{name: "one port often", bindings: many(mostBindings+1, `{"HostIp":"127.0.0.1","HostPort":"80"}`), err: "more ports than a host has"},
		{name: "no port", bindings: `{"HostPort":"65536"}`, err: "publishes port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, app := archived("")
			app.Containers[1].Settings = json.RawMessage(`{"Config":{},"HostConfig":{"PortBindings":{"80/tcp":[` + test.bindings + `]}},"Networks":{}}`)
			type result struct {
				p   *backup.Plan
				err error
			}
			done := make(chan result, 1)
			go func() {
				p, _, err := planRestore(m, app, backup.Answers{}, bare())
				done <- result{p, err}
			}()
			select {
			case got := <-done:
				if test.err != "" {
					if got.err == nil || !strings.Contains(got.err.Error(), test.err) {
						t.Errorf("planRestore = %v, want %q", got.err, test.err)
					}
					return
				}
				if got.err != nil || open(got.p) != test.open {
					t.Errorf("planRestore = %v, open %q, want %q", got.err, open(got.p), test.open)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the plan does not end")
			}
		})
	}
	t.Run("each on its own address", func(t *testing.T) {
		var list []string
		for i := range mostBindings {
			list = append(list, fmt.Sprintf(`{"HostIp":"127.0.%d.%d","HostPort":"80"}`, i/250, 1+i%250))
		}
		m, app := archived("")
		app.Containers[1].Settings = json.RawMessage(`{"Config":{},"HostConfig":{"PortBindings":{"80/tcp":[` + strings.Join(list, ",") + `]}},"Networks":{}}`)
		if p, _, err := planRestore(m, app, backup.Answers{}, bare()); err != nil || open(p) != "" {
			t.Errorf("planRestore = %v, open %q", err, open(p))
		}
	})
}
