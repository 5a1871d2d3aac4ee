package native_test

import (
	"fmt"

	"github.com/dentropy/dentropycloud/discovery"
	"github.com/dentropy/dentropycloud/discovery/dialect/native"
)

// One label is enough where the image exposes one port.
func Example() {
	var d native.Dialect
	routes, problems := d.Parse(discovery.Labelled{
		Labels: map[string]string{"dentropy.host": "app.example.com"},
		Ports:  []int{8080},
	})
	fmt.Println(routes[0].Hosts, routes[0].Port, problems)
	// Output: [app.example.com] 8080 []
}

// A wrong label leaves its route out and says what to write; other routes stay.
func ExampleDialect_Parse() {
	var d native.Dialect
	routes, problems := d.Parse(discovery.Labelled{
		Labels: map[string]string{
			"dentropy.host":       "https://app.example.com/",
			"dentropy.admin.host": "admin.example.com",
		},
		Ports: []int{80},
	})
	for _, r := range routes {
		fmt.Println("route:", r.Name, r.Hosts)
	}
	for _, p := range problems {
		fmt.Println("problem:", p.Error())
	}
	// Output:
	// route: admin [admin.example.com]
	// problem: label dentropy.host="https://app.example.com/": this is a URL; write only the host name (write app.example.com)
}

// The same grammar as annotations of Kubernetes.
func ExampleNew() {
	d, err := native.New("dentropy.cloud", "/")
	if err != nil {
		fmt.Println(err)
		return
	}
	routes, _ := d.Parse(discovery.Labelled{
		Labels: map[string]string{
			"dentropy.cloud/admin.host": "admin.example.com",
			"dentropy.cloud/admin.port": "9000",
		},
	})
	fmt.Println(routes[0].Name, routes[0].Hosts, routes[0].Port)
	// Output: admin [admin.example.com] 9000
}

// Labels of other parts do not keep another dialect from reading the object.
func ExampleDialect_Claims() {
	var d native.Dialect
	fmt.Println(d.Claims(map[string]string{"dentropy.backup.schedule": "daily", "traefik.enable": "true"}))
	fmt.Println(d.Claims(map[string]string{"dentropy.host": "app.example.com", "traefik.enable": "true"}))
	// Output:
	// false
	// true
}
