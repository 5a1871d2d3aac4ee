package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/system"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/backoff"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// guardEngine is where the guard finds the folder of the engine's socket. It is the
	// folder, since an engine that is restarted makes a new socket.
	guardEngine = "/engine"
	// guardReady is how long a guard may take to say that it stands guard.
	guardReady = 20 * time.Second
	// guardDone is what it is told when all is well, guardHere what it says itself.
	guardDone = "done"
	guardHere = "ready"
)

// guardSpec is the guard's argument.
type guardSpec struct {
	Op     string        `json:"op"`
	Socket string        `json:"socket"`
	Halt   []halted      `json:"halt"`
	Health time.Duration `json:"health"`
}

// guard is the container that brings an app back where this program is gone.
type guard struct {
	id   string
	conn types.HijackedResponse
	lost chan struct{} // closed when the connection to it has ended
}

// startGuard starts a guard for containers that are about to come to rest.
func (p *Platform) startGuard(ctx context.Context, op string, halt []halted, health time.Duration) (*guard, error) {
	img, err := p.EnsureHelper(ctx)
	if err != nil {
		return nil, err
	}
	var info system.Info
	err = p.call(ctx, "ask what it is", func(ctx context.Context, c *dockerengine.Conn) error {
		info, err = c.Info(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	socket, err := p.guardSocket(ctx)
	if err != nil {
		return nil, err
	}
	spec := guardSpec{Op: op, Socket: path.Join(guardEngine, path.Base(socket)), Halt: halt, Health: health}
	arg, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cfg, host := p.guardConfig(img, op, string(arg), path.Dir(socket), slices.Contains(info.SecurityOptions, "name=userns"))
	g := &guard{lost: make(chan struct{})}
	name := "dentropy-" + op + "-guard-" + randomHex()
	err = p.call(ctx, "create guard", func(ctx context.Context, c *dockerengine.Conn) error {
		made, err := c.ContainerCreate(ctx, cfg, host, nil, nil, name)
		g.id = made.ID
		return err
	})
	if err != nil {
		if gone(err) { // it may have been made all the same
			err = errors.Join(err, p.removeContainer(ctx, name))
		}
		return nil, notMounted(err)
	}
	if err := p.meetGuard(ctx, g); err != nil {
		if g.conn.Conn != nil {
			g.conn.Close()
			<-g.lost
		}
		return nil, errors.Join(err, p.removeContainer(ctx, g.id))
	}
	return g, nil
}

// guardSocket is where the engine's socket is on the engine's own host.
func (p *Platform) guardSocket(ctx context.Context) (string, error) {
	at := p.ep.Socket()
	switch {
	case p.opts.GuardSocket != "":
		return p.opts.GuardSocket, nil
	case at == "":
		return defaultSocket, nil
	}
	own, err := p.ownMounts(ctx)
	if err != nil || own == nil {
		return at, err
	}
	// We are in a container, where it may have another path than outside.
	if out := onHost(at, own); out.path != "" {
		return out.path, nil
	}
	return defaultSocket, nil
}

// defaultSocket is where an engine listens that nobody has told otherwise.
const defaultSocket = "/var/run/docker.sock"

// guardConfig is the guard's container.
func (p *Platform) guardConfig(img, op, arg, folder string, userns bool) (*container.Config, *container.HostConfig) {
	cfg := &container.Config{
		Image: img, Cmd: []string{roleGuard, arg}, User: "0:0",
		Labels:          map[string]string{labelJob: op, labelRole: roleGuard},
		NetworkDisabled: true, AttachStdin: true, AttachStdout: true, AttachStderr: true, OpenStdin: true, StdinOnce: true,
	}
	host := &container.HostConfig{
		NetworkMode: "none", IpcMode: "none", ReadonlyRootfs: true, CapDrop: []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges:true", "label=disable"},
		LogConfig:   container.LogConfig{Type: "none"},
		// It ends well only when there is nothing left to do: after a reboot it runs again.
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyOnFailure},
		Resources:     container.Resources{Memory: helperMemory},
		Mounts: []mount.Mount{
			{Type: mount.TypeBind, Source: folder, Target: guardEngine, ReadOnly: true, BindOptions: &mount.BindOptions{NonRecursive: true}},
			{Type: mount.TypeVolume, Source: p.opts.TransitVolume, Target: transitDir, VolumeOptions: &mount.VolumeOptions{NoCopy: true}},
		},
	}
	if userns {
		host.UsernsMode = "host" // the socket is the host's root's
	}
	return cfg, host
}

// meetGuard starts the guard and waits until it says that it reaches the engine.
func (p *Platform) meetGuard(ctx context.Context, g *guard) error {
	conn, err := p.attach(ctx, g.id, true)
	if err != nil {
		return err
	}
	g.conn = conn
	ready := make(chan struct{})
	d := &demux{r: conn.Reader}
	var once sync.Once
	d.line = func([]byte) { once.Do(func() { close(ready) }) }
	go func() { // it ends when the connection does
		defer close(g.lost)
		_, _ = io.Copy(io.Discard, d)
	}()
	err = p.call(ctx, "start guard", func(ctx context.Context, c *dockerengine.Conn) error {
		return c.ContainerStart(ctx, g.id, container.StartOptions{})
	})
	if err != nil {
		return notMounted(err)
	}
	limit := time.NewTimer(guardReady)
	defer limit.Stop()
	select {
	case <-ready:
		return nil
	case <-g.lost:
		return fmt.Errorf("it ended: %s", d.tail())
	case <-limit.C:
		return errors.New("it does not reach the engine")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guards keeps a guard as long as an app rests.
type guards struct {
	p      *Platform
	op     string
	halt   []halted
	health time.Duration
	cancel context.CancelFunc
	over   chan struct{} // closed when keep has ended

	mu  sync.Mutex // guards the next
	now *guard
}

// keepGuard starts a guard, and another where that one is lost: an engine that is
// restarted ends what its guard hears.
func (p *Platform) keepGuard(ctx context.Context, op string, halt []halted, health time.Duration) (*guards, error) {
	first, err := p.startGuard(ctx, op, halt, health)
	if err != nil {
		return nil, err
	}
	k := &guards{p: p, op: op, halt: slices.Clone(halt), health: health, now: first, over: make(chan struct{})}
	// It is there until release is called, whatever is cancelled before.
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(k.over)
		k.keep(ctx)
	}()
	return k, nil
}

// keep replaces a guard that is lost.
func (k *guards) keep(ctx context.Context) {
	wait := backoff.Backoff{Max: retryMax}
	for {
		k.mu.Lock()
		g := k.now
		k.mu.Unlock()
		if g != nil {
			select {
			case <-g.lost:
			case <-ctx.Done():
				return
			}
			g.conn.Close()
		}
		// The old one would take it that we are gone.
		if g != nil && k.p.removeContainer(ctx, g.id) != nil || ctx.Err() != nil {
			if wait.Wait(ctx) != nil {
				return
			}
			continue
		}
		next, err := k.p.startGuard(ctx, k.op, k.halt, k.health)
		if err != nil {
			k.p.log.Warn("no guard stands by", "operation", k.op, "error", err)
		}
		k.mu.Lock()
		k.now = next
		k.mu.Unlock()
		if next == nil && wait.Wait(ctx) != nil {
			return
		}
	}
}

// id is the container of the guard that stands by.
func (k *guards) id() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == nil {
		return ""
	}
	return k.now.id
}

// release ends the watch. Where all is well the guard is told so, and removed; else it is
// left to do what it is there for.
func (k *guards) release(ctx context.Context, well bool) {
	k.cancel()
	<-k.over
	k.mu.Lock()
	g := k.now
	k.mu.Unlock()
	if g == nil {
		return
	}
	if well {
		// What it does not hear it does not need to: it is removed.
		_, _ = io.WriteString(g.conn.Conn, guardDone+"\n")
	}
	g.conn.Close()
	<-g.lost
	if well {
		if err := k.p.removeContainer(ctx, g.id); err != nil {
			k.p.log.Warn("guard stays", "operation", k.op, "error", err)
		}
	}
}

// removeOurs removes the containers of an operation that have one of the roles.
func (p *Platform) removeOurs(ctx context.Context, op string, roles ...string) error {
	var list []container.Summary
	err := p.insist(ctx, "list helpers", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		list, err = c.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelJob+"="+op))})
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range list {
		if slices.Contains(roles, s.Labels[labelRole]) && s.Labels[labelJob] == op {
			if err := p.removeContainer(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// guardWarning says that there is no guard.
func guardWarning(err error) backup.Progress {
	return backup.Progress{Phase: "prepare", Warning: "no guard stands by: if this program is killed while the app rests, the app comes back only when the program runs again (" + err.Error() + ")"}
}
