package docker_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// bench is a source that watches a scripted engine.
type bench struct {
	t      *testing.T
	e      *sourcetest.Engine
	rec    *sourcetest.Recorder
	fences int
}

func watch(t *testing.T, e *sourcetest.Engine, src discovery.Source) *bench {
	t.Helper()
	rec, _ := sourcetest.Watch(t, src)
	b := &bench{t: t, e: e, rec: rec}
	rec.Wait(t, "first list", func() bool { return rec.Count("replace") > 0 })
	return b
}

// fence waits until everything that happened before has been seen: events come in
// order, so it has when a container started now has been.
func (b *bench) fence() {
	b.t.Helper()
	b.fences++
	name := fmt.Sprintf("fence%d", b.fences)
	id := b.e.Run(web(name))
	b.rec.WaitState(b.t, name, discovery.Running)
	b.e.Destroy(id)
	b.rec.WaitState(b.t, name, "")
}

func TestCostOfEvents(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.AddNetwork(sourcetest.Network{Name: "web"})
	b := watch(t, e, newSource(t, e, docker.Config{}))
	b.fence()
	e.ResetCalls()
	var id string
	shop := web("shop")
	shop.Restart = "always"
	steps := []struct {
		name     string
		do       func()
		state    discovery.State
		detail   string
		inspects int
	}{
		{"create", func() { id = e.Create(shop) }, discovery.Created, "created, never started", 1},
		{"start", func() { e.Start(id) }, discovery.Running, "", 1},
		{"pause", func() { e.Pause(id) }, discovery.Paused, "paused", 0},
		{"unpause", func() { e.Unpause(id) }, discovery.Running, "", 0},
		{"health starting", func() { e.Health(id, "starting") }, discovery.Starting, "its health check has not passed yet", 0},
		{"health healthy", func() { e.Health(id, "healthy") }, discovery.Running, "healthy", 0},
		{"pause when healthy", func() { e.Pause(id) }, discovery.Paused, "paused", 0},
		{"unpause when healthy", func() { e.Unpause(id) }, discovery.Running, "healthy", 0},
		{"health unhealthy", func() { e.Health(id, "unhealthy") }, discovery.Unhealthy, "its health check fails", 0},
		{"health healthy again", func() { e.Health(id, "healthy") }, discovery.Running, "healthy", 0},
		{"health check runs", func() { e.Exec(id) }, discovery.Running, "healthy", 0},
		{"connect", func() { e.Connect(id, sourcetest.Attachment{Network: "web", IP: "10.9.0.2"}) }, discovery.Running, "healthy", 1},
		{"disconnect", func() { e.Disconnect(id, "web") }, discovery.Running, "healthy", 1},
		{"update", func() { e.Update(id, "unless-stopped") }, discovery.Running, "healthy", 1},
		{"die", func() { e.Die(id, 3) }, discovery.Restarting, "exited with code 3, is being restarted", 0},
		{"start after crash", func() { e.Start(id) }, discovery.Starting, "its health check has not passed yet", 1},
		{"kill", func() { e.Kill(id) }, discovery.Stopped, "exited with code 137", 0},
		{"start after kill", func() { e.Start(id) }, discovery.Starting, "its health check has not passed yet", 1},
		{"restart", func() { e.Restart(id); e.Health(id, "healthy") }, discovery.Running, "healthy", 1},
		{"stop", func() { e.Stop(id) }, discovery.Stopped, "exited with code 0", 0},
		{"rename", func() { e.Rename(id, "store") }, discovery.Stopped, "exited with code 0", 0},
		{"destroy", func() { e.Destroy(id) }, "", "", 0},
	}
	name := "shop"
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			before := e.Inspects(id)
			s.do()
			if s.name == "rename" {
				name = "store"
			}
			b.rec.WaitState(t, name, s.state)
			b.rec.Wait(t, "the inspection", func() bool { return e.Inspects(id)-before >= s.inspects })
			b.fence()
			b.rec.WaitState(t, name, s.state)
			if o, _ := b.rec.Named(name); o.Detail != s.detail {
				t.Errorf("detail = %q, want %q", o.Detail, s.detail)
			}
			if got := e.Inspects(id) - before; got > s.inspects {
				t.Errorf("%d inspections, want %d", got, s.inspects)
			}
		})
	}
	if got := e.Calls(sourcetest.PathList); got != 0 {
		t.Errorf("%d lists because of events, want none", got)
	}
	if got := e.Forbidden(); len(got) > 0 {
		t.Errorf("calls that change something: %q", got)
	}
}

func TestUnlabelledCostNothing(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.Load(sourcetest.Container{Name: "db", Exposed: []int{5432}, Stopped: true})
	b := watch(t, e, newSource(t, e, docker.Config{}))
	id := e.Run(sourcetest.Container{Name: "cache", Labels: map[string]string{"com.example": "x"}, HasHealth: true})
	e.Health(id, "healthy")
	e.Exec(id)
	e.Connect(id, sourcetest.Attachment{Network: "web"})
	e.Update(id, "unless-stopped")
	e.Rename(id, "cache2")
	e.Restart(id)
	b.fence()
	if got := e.Inspects(id); got != 0 {
		t.Errorf("%d inspections of a container without routing labels, want none", got)
	}
	e.Destroy(id)
	b.fence()
	for _, o := range b.rec.Objects() {
		t.Errorf("object %q is reported, want none", o.Name)
	}
}

func TestOnlySixPaths(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	b := watch(t, e, newSource(t, e, docker.Config{}).Timing(0, 0, 20*time.Millisecond, 20*time.Millisecond))
	e.AddNetwork(sourcetest.Network{Name: "late"})
	b.fence()
	b.rec.Wait(t, "a second list", func() bool { return e.Calls(sourcetest.PathList) > 1 })
	allowed := []string{
		sourcetest.PathPing, sourcetest.PathEvents, sourcetest.PathList,
		sourcetest.PathInspect, sourcetest.PathNetworks, sourcetest.PathNetwork,
	}
	for path := range e.AllCalls() {
		if !slices.Contains(allowed, path) {
			t.Errorf("asked for %s, which is not documented", path)
		}
	}
	if got := e.Forbidden(); len(got) > 0 {
		t.Errorf("calls that are not GET: %q", got)
	}
}

func TestNetworksForbidden(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.Break(sourcetest.PathNetworks, sourcetest.Fault{Status: http.StatusForbidden, Message: "Forbidden"})
	e.Break(sourcetest.PathNetwork, sourcetest.Fault{Status: http.StatusForbidden, Message: "Forbidden"})
	e.Load(web("one"))
	b := watch(t, e, newSource(t, e, docker.Config{}))
	e.AddNetwork(sourcetest.Network{Name: "late"})
	b.fence()
	b.rec.WaitState(t, "one", discovery.Running)
	if err := b.rec.Stale(); err != nil {
		t.Errorf("stale: %v", err)
	}
}

func TestTenThousand(t *testing.T) {
	const n = 10_000
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	cs := make([]sourcetest.Container, 0, n)
	for i := range n {
		cs = append(cs, web(fmt.Sprintf("c%d", i)))
	}
	e.Load(cs...)
	start := time.Now()
	b := watch(t, e, newSource(t, e, docker.Config{}))
	t.Logf("listed after %v", time.Since(start))
	if got := len(b.rec.Objects()); got != n {
		t.Fatalf("%d objects, want %d", got, n)
	}
	if got := e.Calls(sourcetest.PathInspect); got != 0 {
		t.Errorf("%d inspections of running containers that a list describes, want none", got)
	}
	start = time.Now()
	b.fence()
	t.Logf("one container came and went within %v", time.Since(start))
	if got := e.Calls(sourcetest.PathInspect); got > 2 { // create, start
		t.Errorf("%d inspections for one new container, want at most 2", got)
	}
	if got := e.Calls(sourcetest.PathList); got != 1 {
		t.Errorf("%d lists, want 1", got)
	}
}

func TestInspectsOnlyWhereTheListDoesNotSay(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	stopped := web("stopped")
	stopped.Stopped = true
	withPort := web("with-port")
	withPort.Stopped, withPort.Labels = true, map[string]string{"test.host": "p.example.com", "test.port": "8080"}
	host := web("host")
	host.NetworkMode = "host"
	ids := e.Load(web("running"), stopped, withPort, host)
	b := watch(t, e, newSource(t, e, docker.Config{}))
	b.rec.WaitState(t, "stopped", discovery.Stopped)
	b.rec.WaitState(t, "host", discovery.Running)
	want := []int{0, 1, 0, 1}
	for i, id := range ids {
		if got := e.Inspects(id); got != want[i] {
			t.Errorf("container %d was inspected %d times, want %d", i, got, want[i])
		}
	}
	e.CutEvents()
	b.rec.Wait(t, "a second list", func() bool { return b.rec.Count("replace") == 2 })
	b.fence()
	for i, id := range ids {
		if got := e.Inspects(id); got != want[i] {
			t.Errorf("after a reconnect container %d was inspected %d times, want %d: ports never change", i, got, want[i])
		}
	}
	for _, o := range b.rec.Objects() {
		if len(o.Problems) > 0 || len(o.Routes) != 1 {
			t.Errorf("object %q: %+v %v", o.Name, o.Routes, o.Problems)
		}
	}
}

func TestFailingInspection(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	b := watch(t, e, newSource(t, e, docker.Config{}))
	id := e.Create(web("bad"))
	b.rec.WaitState(t, "bad", discovery.Created)
	e.BreakContainer(id, sourcetest.Fault{Status: http.StatusInternalServerError, Message: "layer does not exist"})
	e.Start(id)
	b.rec.Wait(t, "several attempts", func() bool { return e.Inspects(id) > 3 })
	b.fence() // others do not wait
	if err := b.rec.Stale(); err != nil {
		t.Errorf("one container makes the source stale: %v", err)
	}
	e.HealContainer(id)
	b.rec.WaitState(t, "bad", discovery.Running)

	gone := e.Create(web("gone"))
	b.rec.WaitState(t, "gone", discovery.Created)
	e.BreakContainer(gone, sourcetest.Fault{Status: http.StatusNotFound, Message: "No such container: " + gone})
	e.Start(gone)
	b.rec.WaitState(t, "gone", "")
}

func TestHangingInspections(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	b := watch(t, e, newSource(t, e, docker.Config{}).Timing(0, 20*time.Millisecond, 0, 0))
	for i := range 40 { // more than are asked at a time
		id := e.Create(web(fmt.Sprintf("hangs%d", i)))
		e.BreakContainer(id, sourcetest.Fault{Stall: true})
		e.Start(id)
	}
	b.fence()
	if err := b.rec.Stale(); err != nil {
		t.Errorf("containers that hang make the source stale: %v", err)
	}
}

func TestListFails(t *testing.T) {
	for name, f := range map[string]sourcetest.Fault{
		"error":  {Status: http.StatusInternalServerError, Message: "the database is locked", Times: 2},
		"stalls": {Stall: true, Times: 1},
		"events": {Stall: true, Times: 1},
		"ping":   {Status: http.StatusBadGateway, Message: "bad gateway", Times: 2},
	} {
		t.Run(name, func(t *testing.T) {
			e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
			e.Load(web("one"))
			path := map[string]string{"events": sourcetest.PathEvents, "ping": sourcetest.PathPing}[name]
			if path == "" {
				path = sourcetest.PathList
			}
			e.Break(path, f)
			src := newSource(t, e, docker.Config{}).Timing(100*time.Millisecond, 0, 0, 0).ListTimeout(100 * time.Millisecond)
			rec, _ := sourcetest.Watch(t, src)
			rec.WaitState(t, "one", discovery.Running)
			if first := rec.Reports()[0]; first.Kind != "unknown" {
				t.Errorf("first report is %q, want unknown", first.Kind)
			}
		})
	}
}

func TestSilentStream(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	b := watch(t, e, newSource(t, e, docker.Config{}).Timing(0, 0, 50*time.Millisecond, 0))
	b.fence()
	e.DropEvents(true)
	e.Run(web("unseen"))
	b.rec.WaitState(t, "unseen", discovery.Running)
	e.DropEvents(false)
	if b.rec.Count("replace") < 2 {
		t.Error("no second list, want the dead stream noticed")
	}
}

func TestQuietStreamIsLeftAlone(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	b := watch(t, e, newSource(t, e, docker.Config{}).Timing(0, 0, 20*time.Millisecond, 0))
	b.fence()
	n := e.Calls(sourcetest.PathEvents)
	b.rec.Wait(t, "several checks", func() bool { return e.Calls(sourcetest.PathEvents) > n+4 })
	if got := b.rec.Count("unknown"); got != 0 {
		t.Errorf("%d times unknown on a quiet engine: %v", got, b.rec.Stale())
	}
}

func TestResync(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	ids := e.Load(web("goes"), web("stops"), web("stays"))
	b := watch(t, e, newSource(t, e, docker.Config{}).Timing(0, 0, 0, 50*time.Millisecond))
	e.DropEvents(true)
	e.Destroy(ids[0])
	e.Stop(ids[1])
	e.Run(web("comes"))
	b.rec.WaitState(t, "comes", discovery.Running)
	b.rec.WaitState(t, "goes", "")
	b.rec.WaitState(t, "stops", discovery.Stopped)
	b.rec.WaitState(t, "stays", discovery.Running)
	if got := b.rec.Count("unknown"); got != 0 {
		t.Errorf("%d times unknown", got)
	}
}

func TestRepeatedEvents(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.RepeatEvents(3)
	b := watch(t, e, newSource(t, e, docker.Config{}))
	id := e.Run(web("one"))
	b.rec.WaitState(t, "one", discovery.Running)
	e.Restart(id)
	e.Die(id, 1)
	b.rec.WaitState(t, "one", discovery.Stopped)
	e.Start(id)
	b.rec.WaitState(t, "one", discovery.Running)
	e.Destroy(id)
	b.rec.WaitState(t, "one", "")
	b.fence()
	b.rec.WaitState(t, "one", "")
}

func TestCrashLoopDisturbsNobody(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	b := watch(t, e, newSource(t, e, docker.Config{}))
	loop := web("loop")
	loop.Restart = "always"
	id := e.Run(loop)
	b.rec.WaitState(t, "loop", discovery.Running)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			case <-tick.C:
				e.Die(id, 1)
				e.Start(id)
			}
		}
	}()
	for range 20 {
		b.fence()
	}
	close(stop)
	crashes := <-done
	if got := e.Inspects(id); got > crashes+2 {
		t.Errorf("%d inspections for %d crashes", got, crashes)
	}
	b.rec.WaitState(t, "loop", discovery.Running)
	t.Logf("%d crashes, %d inspections, %d events lost by the engine", crashes, e.Inspects(id), e.Lost())
	if e.Lost() > 0 {
		t.Errorf("the engine dropped %d events because they were read too slowly", e.Lost())
	}
}

func TestEventsDuringResync(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	ids := e.Load(web("stays"), web("changes"))
	b := watch(t, e, newSource(t, e, docker.Config{}).Timing(0, 0, 0, 30*time.Millisecond))
	e.Break(sourcetest.PathList, sourcetest.Fault{Delay: 60 * time.Millisecond}) // some list is always on its way
	for b.rec.Count("replace") < 10 {
		e.Die(ids[1], 1)
		b.rec.WaitState(t, "changes", discovery.Stopped)
		e.Start(ids[1])
		b.rec.WaitState(t, "changes", discovery.Running)
		b.fence()
	}
	for _, r := range b.rec.Reports() {
		if r.Kind == "delete" && (r.ID == ids[0] || r.ID == ids[1]) {
			t.Errorf("container %.12s was deleted although it is there", r.ID)
		}
		for _, o := range r.Objects {
			if o.Name == "stays" && o.State != discovery.Running {
				t.Errorf("a container that runs all the time was %s", o.State)
			}
		}
	}
	if got := b.rec.Count("unknown"); got != 0 {
		t.Errorf("%d times unknown", got)
	}
}
