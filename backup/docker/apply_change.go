package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// The steps of a restore, and of an undo, in the journal. backup.StepUndo follows where
// a restore is not taken back any more, backup.StepUndone where an undo is not.
const (
	// stepChange comes first, with all that will be made and set aside.
	stepChange = "restore.begin"
	// stepOld comes before anything is done to the old set, with how that is by then.
	stepOld = "restore.old"
	// stepHalt comes before the first stop, and stepHalted after each.
	stepHalt   = "restore.halt"
	stepHalted = "restore.halted"
	// stepSwap comes before data is exchanged, with which is which.
	stepSwap = "restore.swap"
	// stepPath comes before paths of the host are moved.
	stepPath = "restore.path"
	// stepMade comes after a container was made, and before it gets its name.
	stepMade = "restore.made"
)

// changeRecord is all that a changeover will touch. It is in the journal before anything
// is.
type changeRecord struct {
	App string `json:"app"`
	// Old are the containers that are set aside, in the order in which they start.
	Old []oldOne `json:"old,omitempty"`
	// New are those that take their place, in the order in which they are made.
	New []newOne `json:"new,omitempty"`
	// Volumes and Networks are made, and removed where it is taken back.
	Volumes  []string `json:"volumes,omitempty"`
	Networks []string `json:"networks,omitempty"`
	// Swaps are volumes whose data is exchanged.
	Swaps []swapped  `json:"swaps,omitempty"`
	Paths []pathMove `json:"paths,omitempty"`
	// VolumeRoot is where the engine keeps its volumes.
	VolumeRoot string `json:"volume_root,omitempty"`
	// Images were not there before.
	Images *newImages `json:"images,omitempty"`
	// Drop are networks that are removed at the end.
	Drop   []string      `json:"drop,omitempty"`
	Health time.Duration `json:"health,omitempty"`
}

// oldOne is a container that is set aside.
type oldOne struct {
	halted
	Paused bool `json:"paused,omitempty"`
	// Ran says that it is started again where the changeover is taken back.
	Ran bool `json:"ran,omitempty"`
	// Restart is its restart policy.
	Restart container.RestartPolicy `json:"restart"`

	service string // of compose
}

// newOne is a container that is made.
type newOne struct {
	// Temp is its name until all are there; it proves whose it is.
	Temp      string              `json:"temp"`
	Name      string              `json:"name"`
	Start     bool                `json:"start,omitempty"`
	Paused    bool                `json:"paused,omitempty"`
	DependsOn []backup.Dependency `json:"depends_on,omitempty"`
	ID        string              `json:"id,omitempty"`
}

// swapped are two volumes whose data is exchanged. The inodes are those of the data
// folders before.
type swapped struct {
	Final      string `json:"final"`
	Keep       string `json:"keep"`
	FinalInode uint64 `json:"final_inode,omitempty"`
	KeepInode  uint64 `json:"keep_inode,omitempty"`
}

// changeover takes one set of containers out of service and another into it, so that it
// can be taken back at any moment: by the process that began it, or from its journal.
type changeover struct {
	p    *Platform
	op   string
	j    backup.Journal
	opts backup.ApplyOptions
	why  string // "restore" or "undo"
	api  string
	// machine is the name of the engine's host.
	machine string
	// create gives the request for New[i]; ids are those made before, by name.
	create func(ctx context.Context, i int, ids map[string]string) (*newContainer, error)
	// hosts takes the place of the helper that moves paths of the host. For tests.
	hosts func(base string, do []hostStep) (hostResult, error)

	rec   changeRecord
	begun bool
	// touched says that something may have been done to the old set, started that
	// something may have been started of the new one.
	touched, started bool
	// committed says that it is not taken back any more.
	committed bool
	// guards watch until the exchange begins; nil where none does.
	guards *guards
	// marked says that a guard may have left a note in the transit volume.
	marked bool
	// left is when the one who began it was last there, zero where that is us.
	left time.Time

	mu sync.Mutex // guards the journal, which several may write to
}

func (c *changeover) append(step string, data any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.j.Append(step, data)
}

func (c *changeover) warn(format string, args ...any) {
	c.opts.Report(backup.Progress{Warning: fmt.Sprintf(format, args...)})
}

// begin takes down what will be changed.
func (c *changeover) begin() error {
	c.rec.Health = c.opts.HealthTimeout
	if err := c.append(stepChange, c.rec); err != nil {
		return err
	}
	c.begun = true
	return nil
}

// aside is the name of a container that is set aside.
func (c *changeover) aside(name string) string { return name + ".pre-" + c.why + "-" + c.op }

// setAside stops the old set, and takes its names away.
func (c *changeover) setAside(ctx context.Context) error {
	if len(c.rec.Old) == 0 {
		return nil
	}
	if err := c.lookAgain(ctx); err != nil {
		return err
	}
	var ids []string
	var list []halted
	for _, o := range c.rec.Old {
		if o.Ran {
			ids = append(ids, o.ID)
			list = append(list, o.halted)
		}
	}
	if len(ids) > 0 {
		if err := c.standGuard(ctx); err != nil {
			return err
		}
		c.opts.Resting(&backup.Resting{Platform: c.p.Name(), App: c.rec.App, Containers: ids, Why: "restore", Back: time.Now().Add(time.Minute)})
		if ctx.Err() != nil { // requests under way were waited for
			return ctx.Err()
		}
	}
	// Its policy first: a container that ends by itself is not to come back meanwhile.
	for _, o := range c.rec.Old {
		if !o.Restart.IsNone() {
			if err := c.p.setRestart(ctx, o.ID, container.RestartPolicy{Name: container.RestartPolicyDisabled}); err != nil {
				return err
			}
		}
		if o.Paused {
			if err := c.p.unpause(ctx, o.ID); err != nil {
				return err
			}
		}
	}
	if err := c.append(stepHalt, nil); err != nil {
		return err
	}
	h := &halter{p: c.p, list: list, report: c.opts.Report, noted: c.halted}
	if err := h.halt(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := c.dismissGuard(ctx); err != nil {
		return err
	}
	for _, o := range c.rec.Old {
		if err := c.p.rename(ctx, o.ID, c.aside(o.Name)); err != nil {
			return err
		}
	}
	return nil
}

// setRestart sets a container's restart policy. One that is gone has none.
func (p *Platform) setRestart(ctx context.Context, id string, policy container.RestartPolicy) error {
	return p.insist(ctx, "set restart policy", func(ctx context.Context, conn *dockerengine.Conn) error {
		_, err := conn.ContainerUpdate(ctx, id, container.UpdateConfig{RestartPolicy: policy})
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (p *Platform) unpause(ctx context.Context, id string) error {
	return p.insist(ctx, "unpause container", func(ctx context.Context, conn *dockerengine.Conn) error {
		err := conn.ContainerUnpause(ctx, id)
		if in, e := conn.ContainerInspect(ctx, id); err != nil && e == nil && in.State != nil && !in.State.Paused {
			return nil
		}
		return err
	})
}

// rename gives a container a name. One that has it already keeps it.
func (p *Platform) rename(ctx context.Context, id, name string) error {
	return p.insist(ctx, "rename container", func(ctx context.Context, conn *dockerengine.Conn) error {
		in, err := conn.ContainerInspect(ctx, id)
		if err != nil {
			return err
		}
		if trimSlash(in.Name) == name {
			return nil
		}
		return conn.ContainerRename(ctx, id, name)
	})
}

// make makes the new containers, and gives them their names when all are there.
func (c *changeover) make(ctx context.Context) error {
	ids := map[string]string{}
	for i := range c.rec.New {
		n := &c.rec.New[i]
		c.opts.Report(backup.Progress{Phase: "create", Text: n.Name})
		req, err := c.create(ctx, i, ids)
		if err != nil {
			return err
		}
		if n.ID, err = c.p.createRaw(ctx, n.Temp, req); err != nil {
			return fmt.Errorf("make container %s: %w", n.Name, err)
		}
		ids[n.Name] = n.ID
		if err := c.append(stepMade, n); err != nil {
			return err
		}
	}
	for _, n := range c.rec.New {
		if err := c.p.rename(ctx, n.ID, n.Name); err != nil {
			return err
		}
	}
	return nil
}

// createRaw makes a container and connects it to its networks.
func (p *Platform) createRaw(ctx context.Context, name string, req *newContainer) (id string, err error) {
	err = p.call(ctx, "create container", func(ctx context.Context, conn *dockerengine.Conn) error {
		var made container.CreateResponse
		err := p.ask(ctx, conn, http.MethodPost, "/containers/create", url.Values{"name": {name}}, req.body, &made)
		id = made.ID
		return err
	})
	if err != nil {
		return "", err
	}
	for _, ep := range req.connect {
		body, err := json.Marshal(map[string]any{"Container": id, "EndpointConfig": ep.config})
		if err != nil {
			return id, err
		}
		err = p.call(ctx, "connect to network "+ep.network, func(ctx context.Context, conn *dockerengine.Conn) error {
			return p.ask(ctx, conn, http.MethodPost, "/networks/"+url.PathEscape(ep.network)+"/connect", nil, body, nil)
		})
		if err != nil {
			return id, err
		}
	}
	return id, nil
}

// steadyFor is how long containers must run without ending before they count as
// running, where they have no health check.
const steadyFor = 2 * time.Second

// start starts the new set in order, each gated on the health of those that it depends
// on.
func (c *changeover) start(ctx context.Context, really bool) error {
	if !really {
		c.opts.Resting(nil)
		return nil
	}
	c.started = true
	for _, n := range c.rec.New {
		if !n.Start {
			continue
		}
		c.opts.Report(backup.Progress{Phase: "start", Text: n.Name})
		for _, d := range n.DependsOn {
			if text := c.p.await(ctx, d, c.opts.HealthTimeout); text != "" {
				c.warn("%s starts although %s", n.Name, text)
			}
		}
		if err := c.p.startContainer(ctx, n.ID, n.Name, c.warn); err != nil {
			return fmt.Errorf("start %s: %w", n.Name, err)
		}
		if text := c.p.settle(ctx, n.ID, n.Name, c.opts.HealthTimeout, c.why != whyUndo); text != "" {
			return &backup.Problem{Message: text, Hint: "--no-start makes everything and starts nothing, so that it can be looked at", Object: n.Name}
		}
	}
	if err := c.steady(ctx); err != nil {
		return err
	}
	for _, n := range c.rec.New {
		if n.Start && n.Paused {
			if _, err := c.p.pauseContainer(ctx, n.ID); err != nil {
				return err
			}
		}
	}
	c.opts.Resting(nil)
	return nil
}

// steady sees whether what was started stays up.
func (c *changeover) steady(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, steadyFor)
	defer cancel()
	<-limited.Done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, n := range c.rec.New {
		if !n.Start {
			continue
		}
		st, err := c.p.state(ctx, n.ID)
		if err != nil {
			return err
		}
		if st == nil || !st.Running || st.Restarting {
			return &backup.Problem{Message: n.Name + " does not stay up", Hint: "--no-start makes everything and starts nothing, so that it can be looked at", Object: n.Name}
		}
	}
	return nil
}
