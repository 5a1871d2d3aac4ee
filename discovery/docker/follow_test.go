package docker_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// address returns the first candidate of the object's only route.
func (b *bench) address(name string) string {
	o, ok := b.rec.Named(name)
	if !ok || len(o.Routes) != 1 || len(o.Routes[0].Endpoints) != 1 {
		return ""
	}
	ep := o.Routes[0].Endpoints[0]
	if len(ep.Candidates) == 0 {
		return "problem: " + ep.Problem
	}
	return ep.Candidates[0].Address
}

func (b *bench) waitAddress(name, want string) {
	b.t.Helper()
	b.rec.Wait(b.t, name+" at "+want, func() bool { return b.address(name) == want })
}

func TestAddressFollowsRestart(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	c := web("one")
	c.Networks = []sourcetest.Attachment{{Network: "bridge", IP: "172.17.0.5"}}
	id := e.Load(c)[0]
	b := watch(t, e, newSource(t, e, docker.Config{}))
	b.waitAddress("one", "172.17.0.5:80")
	e.Die(id, 1)
	e.SetIP(id, "bridge", "172.17.0.9")
	e.Start(id)
	b.waitAddress("one", "172.17.0.9:80")
	e.Connect(id, sourcetest.Attachment{Network: "app", IPv6: "fd00::7"})
	b.waitAddress("one", "[fd00::7]:80") // by name: app before bridge
	e.Disconnect(id, "bridge")
	e.Disconnect(id, "app")
	b.rec.Wait(t, "a problem", func() bool { return strings.HasPrefix(b.address("one"), "problem: ") })
}

func TestNetworkOfAnotherContainer(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	vpn := e.Load(sourcetest.Container{Name: "vpn", Networks: []sourcetest.Attachment{{Network: "bridge", IP: "172.17.0.5"}}})[0]
	c := web("app")
	c.NetworkMode = "container:" + vpn
	e.Load(c)
	b := watch(t, e, newSource(t, e, docker.Config{}))
	b.waitAddress("app", "172.17.0.5:80")

	late := web("late") // by name, as other engines than Docker let through
	late.NetworkMode = "container:vpn"
	e.Run(late)
	b.waitAddress("late", "172.17.0.5:80")

	e.SetIP(vpn, "bridge", "172.17.0.6")
	before := e.Inspects(vpn)
	e.Restart(vpn)
	b.waitAddress("app", "172.17.0.6:80")
	b.waitAddress("late", "172.17.0.6:80")
	b.fence()
	if got := e.Inspects(vpn) - before; got > 1 {
		t.Errorf("%d inspections of the container whose network is used for one restart, want 1", got)
	}
	e.Destroy(vpn)
	b.rec.Wait(t, "a problem", func() bool { return strings.HasPrefix(b.address("app"), "problem: it uses the network of") })

	// A target that nobody knows yet is asked for, once.
	other := e.Load(sourcetest.Container{Name: "unseen", Networks: []sourcetest.Attachment{{Network: "bridge", IP: "172.17.0.8"}}})[0]
	c = web("second")
	c.NetworkMode = "container:" + other
	e.Run(c)
	b.waitAddress("second", "172.17.0.8:80")
	if got := e.Inspects(other); got != 1 {
		t.Errorf("%d inspections of the target, want 1", got)
	}
}

func TestInsideContainer(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	e.AddNetwork(sourcetest.Network{Name: "web"})
	self := e.Load(sourcetest.Container{Name: "dentropy", Networks: []sourcetest.Attachment{{Network: "web", IP: "10.1.0.2"}}})[0]
	c := web("one")
	c.Networks = []sourcetest.Attachment{{Network: "app", IP: "10.2.0.3"}, {Network: "web", IP: "10.1.0.3"}}
	lonely := web("lonely")
	lonely.Networks = []sourcetest.Attachment{{Network: "app", IP: "10.2.0.4"}}
	e.Load(c, lonely)
	root := fstest.MapFS{"proc/self/mountinfo": {Data: []byte("1 2 254:1 /var/lib/docker/containers/" + self + "/hosts /etc/hosts rw - ext4 /dev/vda1 rw\n")}}
	b := watch(t, e, newSource(t, e, docker.Config{}).Machine(root, "proxy"))
	b.waitAddress("one", "10.1.0.3:80")
	b.rec.Wait(t, "a problem that names the command", func() bool {
		return strings.Contains(b.address("lonely"), "docker network connect <one of them> dentropy")
	})
	e.Connect(self, sourcetest.Attachment{Network: "app", IP: "10.2.0.2"})
	b.waitAddress("lonely", "10.2.0.4:80")
	if got := e.Inspects(self); got != 2 {
		t.Errorf("our own container was inspected %d times, want 2", got)
	}
}

func TestComposeHelpersStayOut(t *testing.T) {
	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
	service := func(name string, oneOff string) sourcetest.Container {
		c := web(name)
		c.Labels["com.docker.compose.project"], c.Labels["com.docker.compose.service"] = "shop", "web"
		c.Labels["com.docker.compose.oneoff"] = oneOff
		return c
	}
	e.Load(service("shop-web-run-1", "True"))
	b := watch(t, e, newSource(t, e, docker.Config{}))
	e.Run(service("shop-web-run-2", "True"))
	e.Run(service("shop-web-1", "False"))
	b.rec.WaitState(t, "shop-web-1", discovery.Running)
	b.fence()
	if got := b.rec.Objects(); len(got) != 1 {
		t.Errorf("objects %+v, want shop-web-1 only", got)
	}
	o, _ := b.rec.Named("shop-web-1")
	if want := (discovery.Group{Engine: "docker:test", Project: "shop", Service: "web"}); o.Group != want {
		t.Errorf("group %v, want %v", o.Group, want)
	}
	e.Run(service("0123456789ab_shop-web-2", "False"))
	b.rec.WaitState(t, "shop-web-2", discovery.Running)
}

func TestAbsentEngineSaysWhatToDo(t *testing.T) {
	src, err := docker.New(docker.Config{Endpoint: "unix:///nonexistent/docker.sock"}, discovery.SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := sourcetest.Watch(t, src.Quick())
	rec.Wait(t, "Unknown", func() bool { return rec.Stale() != nil })
	if got := rec.Stale().Error(); !strings.Contains(got, "/nonexistent/docker.sock") || !strings.Contains(got, "start Docker") {
		t.Errorf("error %q, want the endpoint and what to do", got)
	}
}
