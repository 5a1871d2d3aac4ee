package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// planOp names the helpers of a plan.
const planOp = "plan"

// Plan implements backup.Platform. It changes nothing on the engine but that the helper's
// image comes to it.
func (p *Platform) Plan(ctx context.Context, m *backup.Manifest, app *backup.App, answers backup.Answers) (*backup.Plan, error) {
	p.sweepHelpers(ctx) // a process that is gone may have left some
	f, err := p.facts(ctx, app, answers.Name)
	if err != nil {
		return nil, err
	}
	// Once without paths, to know which are asked for, and once with them.
	_, d, err := planRestore(m, app, answers, f)
	if err != nil {
		return nil, err
	}
	if err := p.pathFacts(ctx, f, d); err != nil {
		return nil, err
	}
	plan, d, err := planRestore(m, app, answers, f)
	if err != nil {
		return nil, err
	}
	if plan.Detail, err = planJSON(d); err != nil {
		return nil, fmt.Errorf("write the plan: %w", err)
	}
	return plan, nil
}

// facts asks the engine for all that a plan depends on, but for paths.
func (p *Platform) facts(ctx context.Context, app *backup.App, name string) (*facts, error) {
	f := &facts{platform: p.Name(), volumes: map[string]volFact{}, imageIDs: map[string]bool{}, imageRefs: map[string]string{}, unpullable: map[string]string{}, paths: map[string]pathFact{}}
	groups, err := p.groups(ctx)
	if err != nil {
		return nil, err
	}
	var info system.Info
	err = p.call(ctx, "ask what it is", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		info, err = c.Info(ctx)
		f.api = c.ClientVersion()
		return err
	})
	if err != nil {
		return nil, err
	}
	f.os, f.arch, f.root = cmp.Or(info.OSType, "linux"), goArch(info.Architecture), info.DockerRootDir
	f.runtimes, f.hostCgroups = sortedKeys(info.Runtimes), info.CgroupVersion == "1"
	if err := p.containerFacts(ctx, f, groups); err != nil {
		return nil, err
	}
	for _, ask := range []func(context.Context, *facts) error{p.volumeFacts, p.networkFacts, p.imageFacts} {
		if err := ask(ctx, f); err != nil {
			return nil, err
		}
	}
	if err := p.autoRemoveFacts(ctx, f, cmp.Or(name, app.Name)); err != nil {
		return nil, err
	}
	p.registryFacts(ctx, f, app)
	if p.ep.Host() == "" {
		f.busy, f.lan = portBusy, lanPrefixes()
	}
	p.freeFact(ctx, f)
	return f, nil
}

func (p *Platform) containerFacts(ctx context.Context, f *facts, groups []group) error {
	var all []container.Summary
	err := p.call(ctx, "list containers", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		all, err = c.ContainerList(ctx, container.ListOptions{All: true})
		return err
	})
	if err != nil {
		return err
	}
	appOfID, self := map[string]string{}, map[string]bool{}
	for _, g := range groups {
		for _, s := range g.members {
			appOfID[s.ID], self[s.ID] = g.name, g.self
		}
	}
	for _, s := range all {
		c := contFact{id: s.ID, name: containerName(s), app: appOfID[s.ID], self: self[s.ID], running: s.State == string(backup.Running)}
		for _, m := range s.Mounts {
			switch m.Type {
			case mount.TypeVolume:
				c.volumes = append(c.volumes, m.Name)
			case mount.TypeBind:
				c.paths = append(c.paths, path.Clean(m.Source))
			}
		}
		if dir := s.Labels[labelWorkingDir]; path.IsAbs(dir) {
			c.dir = path.Clean(dir)
		}
		for _, port := range s.Ports {
			if port.PublicPort != 0 {
				c.ports = append(c.ports, portFact{ip: port.IP, port: port.PublicPort, proto: port.Type})
			}
		}
		if s.NetworkSettings != nil {
			c.networks = sortedKeys(s.NetworkSettings.Networks)
		}
		switch backup.State(s.State) {
		case backup.Running, backup.Restarting, backup.Paused:
			c.hosts, c.native = hostsIn(&backup.Container{Name: c.name}, s.Labels)
		}
		f.containers = append(f.containers, c)
	}
	return nil
}

// autoRemoveFacts looks which containers of the app that is here remove themselves.
func (p *Platform) autoRemoveFacts(ctx context.Context, f *facts, app string) error {
	for i := range f.containers {
		c := &f.containers[i]
		if c.app != app {
			continue
		}
		err := p.call(ctx, "inspect container "+c.name, func(ctx context.Context, conn *dockerengine.Conn) error {
			in, err := conn.ContainerInspect(ctx, c.id)
			if err == nil && in.HostConfig != nil {
				c.autoRemove = in.HostConfig.AutoRemove
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Platform) volumeFacts(ctx context.Context, f *facts) error {
	return p.call(ctx, "list volumes", func(ctx context.Context, c *dockerengine.Conn) error {
		list, err := c.VolumeList(ctx, volume.ListOptions{})
		if err != nil {
			return err
		}
		for _, v := range list.Volumes {
			if v != nil {
				f.volumes[v.Name] = volFact{driver: v.Driver, options: v.Options, project: v.Labels[labelProject]}
			}
		}
		return nil
	})
}

func (p *Platform) networkFacts(ctx context.Context, f *facts) error {
	return p.call(ctx, "list networks", func(ctx context.Context, c *dockerengine.Conn) error {
		list, err := c.NetworkList(ctx, network.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range list {
			nf := netFact{id: n.ID, name: n.Name, driver: n.Driver, project: n.Labels[labelProject], options: n.Options, internal: n.Internal, ipv6: n.EnableIPv6}
			for _, cfg := range n.IPAM.Config {
				if p, err := netip.ParsePrefix(cfg.Subnet); err == nil {
					nf.subnets = append(nf.subnets, p.Masked())
				}
			}
			f.networks = append(f.networks, nf)
		}
		return nil
	})
}

func (p *Platform) imageFacts(ctx context.Context, f *facts) error {
	return p.call(ctx, "list images", func(ctx context.Context, c *dockerengine.Conn) error {
		list, err := c.ImageList(ctx, image.ListOptions{All: true})
		if err != nil {
			return err
		}
		for _, im := range list {
			f.imageIDs[im.ID] = true
			for _, d := range im.RepoDigests {
				f.imageIDs[d], f.imageRefs[d] = true, im.ID
			}
			for _, t := range im.RepoTags {
				f.imageRefs[t] = im.ID
			}
		}
		return nil
	})
}

// registryFacts asks registries for the images that are neither here nor in the
// archive.
func (p *Platform) registryFacts(ctx context.Context, f *facts, app *backup.App) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards f.unpullable
	for i := range app.Images {
		im := &app.Images[i]
		here := f.imageIDs[im.ID] || slices.ContainsFunc(im.Digests, func(d string) bool { return f.imageIDs[d] })
		if im.Include || here || len(im.Digests) == 0 {
			continue
		}
		wg.Go(func() {
			asked := *im
			limited, cancel := context.WithTimeout(ctx, registryTimeout)
			defer cancel()
			err := p.call(limited, "ask the registry", func(ctx context.Context, conn *dockerengine.Conn) error {
				_, err := conn.DistributionInspect(ctx, asked.Digests[0], "")
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			f.unpullable[asked.ID] = ""
			if err != nil {
				f.unpullable[asked.ID] = registryText(err)
			}
		})
	}
	wg.Wait()
}

// freeFact asks how much room there is where the engine keeps its volumes. A plan does
// without where that cannot be asked.
func (p *Platform) freeFact(ctx context.Context, f *facts) {
	var result struct {
		Free int64 `json:"transit_free"`
	}
	err := p.helperResult(ctx, helperTask{
		op: planOp, name: "measure", input: map[string]any{"volumes": []any{}, "transit": transitDir}, mounts: []helperMount{{target: transitDir, bind: path.Join(f.root, "volumes")}},
	}, &result)
	if err != nil {
		p.log.Debug("free space is not known", "error", err)
		return
	}
	f.free = max(result.Free, 0)
}

// pathFacts looks at the paths of the host that a plan names, and at the project's folder.
func (p *Platform) pathFacts(ctx context.Context, f *facts, d *detail) error {
	paths := []string{d.Dir}
	for i := range d.Volumes {
		if v := &d.Volumes[i]; v.Kind != backup.Named && v.Kind != backup.Tmpfs {
			paths = append(paths, v.Name)
		}
	}
	for _, at := range paths {
		if _, ok := f.paths[at]; ok || at == "" || at == "/" {
			continue
		}
		_, st, err := p.lookAt(ctx, planOp, at, "")
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.log.Debug("a path cannot be looked at", "error", err)
			continue // it stays unknown
		}
		f.paths[at] = pathFact{exists: st.Exists, dir: st.Dir || st.Link, empty: st.Empty}
	}
	return nil
}

// portBusy says whether a process of this machine listens on a port.
func portBusy(ip string, port uint16, proto string) string {
	at := net.JoinHostPort(ip, strconv.Itoa(int(port)))
	var err error
	switch proto {
	case "tcp":
		var l net.Listener
		if l, err = net.Listen("tcp", at); err == nil { //nolint:noctx // it is closed at once
			_ = l.Close()
		}
	case "udp":
		var l net.PacketConn
		if l, err = net.ListenPacket("udp", at); err == nil { //nolint:noctx // it is closed at once
			_ = l.Close()
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return "a program on this machine"
	}
	return "" // not being allowed to listen says nothing
}

// lanPrefixes are the networks that this machine is on, but for those of bridges that an
// engine has made.
func lanPrefixes() []netip.Prefix {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 || strings.HasPrefix(i.Name, "br-") || strings.HasPrefix(i.Name, "docker") || strings.HasPrefix(i.Name, "veth") {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}
