package discovery_test

import (
	"context"
	"fmt"

	"github.com/dentropy/dentropycloud/discovery"
)

// The longest path wins, by segment; a host that is known answers for all its paths.
func ExampleTable() {
	var table discovery.Table[string]
	table.Insert("*.example.com", discovery.Rule[string]{Path: "/", Value: "everything else"})
	table.Insert("shop.example.com", discovery.Rule[string]{Path: "/", Value: "shop"})
	table.Insert("shop.example.com", discovery.Rule[string]{Path: "/api", Value: "shop's API"})
	for _, host := range []string{"shop.example.com", "blog.example.com"} {
		for _, path := range []string{"/api/cart", "/apix"} {
			value, _, _, _ := table.Lookup(host, path, nil)
			fmt.Println(host+path, "->", value)
		}
	}
	// Output:
	// shop.example.com/api/cart -> shop's API
	// shop.example.com/apix -> shop
	// blog.example.com/api/cart -> everything else
	// blog.example.com/apix -> everything else
}

// printSink prints what a consumer would serve.
type printSink struct{ served chan struct{} }

func (s printSink) Apply(changes []discovery.Change) {
	for _, c := range changes {
		if c.Route != nil && len(c.Route.Ready) > 0 {
			fmt.Println(c.Route.Units[0].Host, "is served by", c.Route.Ready)
			close(s.served)
		}
	}
}

// A source tells of its objects; the registry verifies their addresses, and tells the
// sink what to serve.
func ExampleRegistry() {
	sink := printSink{make(chan struct{})}
	r := discovery.NewRegistry(discovery.Options{
		Sink: sink,
		Dial: func(context.Context, string) error { return nil }, // every address answers
	})
	defer r.Close()
	web := discovery.Object{
		ID: "4f1c", Name: "web", Group: discovery.Group{Engine: "docker", Service: "web"}, State: discovery.Running,
		Routes: []discovery.Route{{
			Hosts:     []string{"web.example.com"},
			Endpoints: []discovery.Endpoint{{Candidates: []discovery.Candidate{{Address: "172.17.0.2:80", Reason: "an example"}}}},
		}},
	}
	r.Source("docker").Set(web)
	<-sink.served

	web.ID, web.Name, web.Group.Service = "9d02", "rival", "rival"
	r.Source("docker").Set(web)
	for _, v := range r.RoutesFor("web.example.com") {
		fmt.Println(v.Object, "is", v.State)
	}
	// Output:
	// web.example.com is served by [172.17.0.2:80]
	// rival is refused
	// web is serving
}
