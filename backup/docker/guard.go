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
	// guardDone is what it is told when all is well.
	guardDone = "done"
	// guardAnswer is how long it may take to say that it has heard.
	guardAnswer = 10 * time.Second
	// guardsGone is how long an engine may take until it lists no guard any more.
	guardsGone = time.Minute
)

// guardSpec is the guard's argument.
type guardSpec struct {
	Op string `json:"op"`
	// Guard is its own name among the guards of the operation.
	Guard  string        `json:"guard"`
	Socket string        `json:"socket"`
	Halt   []halted      `json:"halt,omitempty"`
	Health time.Duration `json:"health"`
	// Old are the containers that a restore or an undo, as Why says, sets aside; instead
	// of Halt.
	Old []oldOne `json:"old,omitempty"`
	Why string   `json:"why,omitempty"`
}

// guardSays is a line of what a guard says.
type guardSays struct {
	// Ready says that it reaches the engine, and listens.
	Ready bool `json:"ready,omitempty"`
	// Done says that it has heard that all is well: it has done nothing, and never will.
	Done bool `json:"done,omitempty"`
}

// guard is the container that brings an app back where this program is gone.
type guard struct {
	id    string
	conn  types.HijackedResponse
	ready chan struct{} // closed when it says so
	done  chan struct{} // closed when it says so
	lost  chan struct{} // closed when the connection to it has ended
}

// startGuard starts a guard for containers that are about to come to rest.
func (p *Platform) startGuard(ctx context.Context, spec guardSpec) (*guard, error) {
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
	op := spec.Op
	spec.Guard, spec.Socket = randomHex(), path.Join(guardEngine, path.Base(socket))
	arg, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cfg, host := p.guardConfig(img, op, string(arg), path.Dir(socket), slices.Contains(info.SecurityOptions, "name=userns"))
	g := &guard{ready: make(chan struct{}), done: make(chan struct{}), lost: make(chan struct{})}
	name := "dentropy-" + op + "-guard-" + spec.Guard
	err = p.call(ctx, "create guard", func(ctx context.Context, c *dockerengine.Conn) error {
		made, err := c.ContainerCreate(ctx, cfg, host, nil, nil, name)
		g.id = made.ID
		return err
	})
	if err != nil {
		if gone(err) || ctx.Err() != nil { // it may have been made all the same
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
	var ready, done sync.Once
	d := &demux{r: conn.Reader, line: func(line []byte) {
		var says guardSays
		if json.Unmarshal(line, &says) != nil {
			return
		}
		if says.Ready {
			ready.Do(func() { close(g.ready) })
		}
		if says.Done {
			done.Do(func() { close(g.done) })
		}
	}}
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
	case <-g.ready:
		return nil
	case <-g.lost:
		return fmt.Errorf("it ended: %s", d.tail())
	case <-limit.C:
		return errors.New("it does not reach the engine")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dismiss tells a guard that all is well, and reports whether it has heard: one that has
// was there all the time, has done nothing, and never will.
func (g *guard) dismiss() bool {
	if _, err := io.WriteString(g.conn.Conn, guardDone+"\n"); err != nil {
		return false
	}
	limit := time.NewTimer(guardAnswer)
	defer limit.Stop()
	select {
	case <-g.done:
		return true
	case <-g.lost: // both may be so by now: it ends once it has said so
		select {
		case <-g.done:
			return true
		default:
		}
	case <-limit.C:
	}
	return false
}

// guards keeps a guard as long as an app rests.
type guards struct {
	p      *Platform
	spec   guardSpec
	cancel context.CancelFunc
	over   chan struct{} // closed when keep has ended

	mu  sync.Mutex // guards the rest
	now *guard
	// lost says that there was a guard that may have acted.
	lost bool
}

// keepGuard starts a guard, and another where that one is lost: an engine that is
// restarted ends what its guard hears.
func (p *Platform) keepGuard(ctx context.Context, op string, halt []halted, health time.Duration) (*guards, error) {
	return p.keepGuardOf(ctx, guardSpec{Op: op, Halt: slices.Clone(halt), Health: health})
}

func (p *Platform) keepGuardOf(ctx context.Context, spec guardSpec) (*guards, error) {
	first, err := p.startGuard(ctx, spec)
	if err != nil {
		return nil, err
	}
	k := &guards{p: p, spec: spec, now: first, over: make(chan struct{})}
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
			k.mu.Lock()
			k.lost = true
			k.mu.Unlock()
		}
		// The old one would take it that we are gone.
		if g != nil && k.p.removeContainer(ctx, g.id) != nil || ctx.Err() != nil {
			if wait.Wait(ctx) != nil {
				return
			}
			continue
		}
		next, err := k.p.startGuard(ctx, k.spec)
		if err != nil {
			k.p.log.Warn("no guard stands by", "operation", k.spec.Op, "error", err)
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
// left to do what it is there for. It reports whether no guard has done anything, nor will.
func (k *guards) release(ctx context.Context, well bool) (quiet bool) {
	k.cancel()
	<-k.over
	k.mu.Lock()
	g, lost := k.now, k.lost
	k.mu.Unlock()
	if g == nil {
		return false
	}
	if well {
		quiet = g.dismiss() && !lost
	}
	g.conn.Close()
	<-g.lost
	if well {
		if err := k.p.removeContainer(ctx, g.id); err != nil {
			k.p.log.Warn("guard stays", "operation", k.spec.Op, "error", err)
		}
	}
	return quiet
}

// ours lists the containers of an operation that have one of the roles.
func (p *Platform) ours(ctx context.Context, op string, roles ...string) ([]container.Summary, error) {
	var list []container.Summary
	err := p.insist(ctx, "list helpers", func(ctx context.Context, c *dockerengine.Conn) (err error) {
		list, err = c.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelJob+"="+op))})
		return err
	})
	return slices.DeleteFunc(list, func(s container.Summary) bool {
		return s.Labels[labelJob] != op || !slices.Contains(roles, s.Labels[labelRole])
	}), err
}

// removeOurs removes the containers of an operation that have one of the roles.
func (p *Platform) removeOurs(ctx context.Context, op string, roles ...string) error {
	list, err := p.ours(ctx, op, roles...)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := p.removeContainer(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

// endGuards removes the guards of an operation, and returns nil only when the engine lists
// none any more: a removal that is under way may take its time.
func (p *Platform) endGuards(ctx context.Context, op string) error {
	ctx, cancel := context.WithTimeout(ctx, guardsGone)
	defer cancel()
	wait := backoff.Backoff{Max: retryMax}
	for first := true; ; first = false {
		list, err := p.ours(ctx, op, roleGuard)
		if err != nil {
			return fmt.Errorf("see that no guard is there: %w", err)
		}
		if len(list) == 0 {
			return nil
		}
		if !first && wait.Wait(ctx) != nil {
			return fmt.Errorf("remove the guard %s: the engine lists it still", containerName(list[0]))
		}
		for _, s := range list {
			if err := p.removeContainer(ctx, s.ID); err != nil {
				return fmt.Errorf("remove the guard: %w", err)
			}
		}
	}
}

// guardWarning says that there is no guard.
func guardWarning(err error) backup.Progress {
	return backup.Progress{Phase: "prepare", Warning: "no guard stands by: if this program is killed while the app rests, the app comes back only when the program runs again (" + err.Error() + ")"}
}
