package docker

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"slices"
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

// fullID is how engines name containers in paths.
var fullID = regexp.MustCompile(`[0-9a-f]{64}`)

// shortID is the host name that a container has by default.
var shortID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// ownIDs returns what our own container's id may be, best guess first; none where
// nothing suggests that we run in a container. root is the file system of this
// machine.
//
// mountinfo is the surest sign: an engine mounts its own files over these three,
// and their source names the container. (The other lines name other containers,
// where a host's mounts are seen.) The control group is the sign of version 1, the
// host name the last resort: it can be anything.
func ownIDs(root fs.FS, hostname string) []string {
	var ids []string
	add := func(id string) {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if text, err := fs.ReadFile(root, "proc/self/mountinfo"); err == nil {
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) > 4 && slices.Contains([]string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}, f[4]) {
				add(fullID.FindString(f[3]))
			}
		}
	}
	if text, err := fs.ReadFile(root, "proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(text)) {
			if i := strings.LastIndexByte(line, '/'); i >= 0 && strings.Count(line, ":") >= 2 {
				add(fullID.FindString(line[i:]))
			}
		}
	}
	if shortID.MatchString(hostname) {
		add(hostname)
	}
	return ids
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
