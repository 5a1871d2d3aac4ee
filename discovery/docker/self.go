package docker

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
)

// place is where we stand, seen from the containers of an engine.
type place struct {
	// inside says that we are a container of this very engine, with networks of our
	// own; id and name are ours then.
	inside   bool
	id, name string
	networks map[string]string // id → name of the networks that we are on
	gateways []netip.Addr      // the engine's host, seen from inside
	// remote is the engine's host when that is another machine, else "".
	remote string
}

// findPlace asks the engine who we are. At most one call for each guess, and one
// more where we use another container's network.
func findPlace(ctx context.Context, eng engine, ids []string, remote string) (place, error) {
	for _, id := range ids {
		f, err := inspect(ctx, eng, id)
		if errdefs.IsNotFound(err) {
			continue // a container of another engine, or no container at all
		}
		if err != nil {
			return place{}, fmt.Errorf("inspect our own container: %w", err)
		}
		p := place{id: f.id, name: f.name}
		if f.mode == "host" {
			return p, nil // as good as on the host
		}
		if ref, ok := strings.CutPrefix(f.mode, "container:"); ok {
			target, err := inspect(ctx, eng, ref)
			if err != nil && !errdefs.IsNotFound(err) {
				return place{}, fmt.Errorf("inspect the container whose network we use: %w", err)
			}
			f.networks = target.networks
		}
		p.inside = true
		p.networks = map[string]string{}
		for _, n := range f.networks {
			p.networks[n.id] = n.name
			if n.gateway.IsValid() {
				p.gateways = append(p.gateways, n.gateway)
			}
		}
		return p, nil
	}
	return place{remote: remote}, nil
}
