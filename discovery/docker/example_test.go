package docker_test

import (
	"context"
	"fmt"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/dialect/native"
	"github.com/dentropy/dentropycloud/discovery/docker"
	"github.com/dentropy/dentropycloud/discovery/sourcetest"
)

// printer is an Updater that says what it is told.
type printer struct{ done context.CancelFunc }

func (p printer) Replace(objects []discovery.Object) {
	for _, o := range objects {
		p.Set(o)
	}
	p.done()
}

func (printer) Set(o discovery.Object) {
	for _, r := range o.Routes {
		c := r.Endpoints[0].Candidates[0]
		fmt.Printf("%s is %s: %v at %s, because %s\n", o.Name, o.State, r.Hosts, c.Address, c.Reason)
	}
}

func (printer) Delete(id string)  { fmt.Println("gone:", id) }
func (printer) Unknown(err error) { fmt.Println("unknown:", err) }

func Example() {
	// A scripted engine stands in for /var/run/docker.sock.
	engine, err := sourcetest.StartEngine(sourcetest.EngineOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()
	engine.Load(sourcetest.Container{
		Name:     "wiki",
		Labels:   map[string]string{"dentropy.host": "wiki.example.com"},
		Exposed:  []int{8080},
		Networks: []sourcetest.Attachment{{Network: "bridge", IP: "172.17.0.2"}},
	})

	src, err := docker.New(docker.Config{Endpoint: engine.Endpoint()}, discovery.SourceOptions{
		Name: "docker", Dialects: []discovery.Dialect{new(native.Dialect)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	src.Watch(ctx, printer{cancel})
	// Output:
	// wiki is running: [wiki.example.com] at 172.17.0.2:8080, because its address on network "bridge" can be reached from the host
}
