package docker

import (
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/discovery/sourcetest"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

func TestFindPlace(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.AddNetwork(sourcetest.Network{Name: "web", ID: "id-web"})
	ids := e.Load(
		sourcetest.Container{Name: "plain", Networks: []sourcetest.Attachment{{Network: "web", IP: "10.1.0.2", Gateway: "10.1.0.1"}}},
		sourcetest.Container{Name: "in-host-mode", NetworkMode: "host"},
	)
	ids = append(ids, e.Load(sourcetest.Container{Name: "sidecar", NetworkMode: "container:" + ids[0]})...)
	ep, err := dockerengine.Resolve(e.Endpoint(), TLS{}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context(), ep, "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	tests := []struct {
		name       string
		ids        []string
		remote     string
		inside     bool
		wantRemote string
	}{
		{name: "on the host"},
		{name: "on another machine", remote: "nas", wantRemote: "nas"},
		{name: "in a container of another engine", ids: []string{strings.Repeat("c", 64)}, remote: "nas", wantRemote: "nas"},
		{name: "in a container", ids: []string{ids[0]}, inside: true},
		{name: "in a container, by TCP through a socket proxy", ids: []string{ids[0]}, remote: "socket-proxy", inside: true},
		{name: "in a container that uses another's network", ids: []string{ids[2]}, inside: true},
		{name: "in a container that uses the host's network", ids: []string{ids[1]}, remote: "socket-proxy"},
		{name: "second guess", ids: []string{strings.Repeat("c", 64), ids[0][:12]}, inside: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findPlace(t.Context(), conn, tt.ids, tt.remote)
			if err != nil {
				t.Fatal(err)
			}
			if got.inside != tt.inside || got.remote != tt.wantRemote {
				t.Errorf("place = %+v, want inside %v, remote %q", got, tt.inside, tt.wantRemote)
			}
			if tt.inside && (got.networks["id-web"] != "web" || len(got.gateways) != 1 || got.gateways[0].String() != "10.1.0.1") {
				t.Errorf("networks %v and gateways %v, want web and 10.1.0.1", got.networks, got.gateways)
			}
		})
	}
	e.Break(sourcetest.PathInspect, sourcetest.Fault{Status: 500, Message: "broken"})
	if _, err := findPlace(t.Context(), conn, ids[:1], ""); err == nil {
		t.Error("findPlace with a broken engine succeeded, want an error: unknown is not the host")
	}
}
