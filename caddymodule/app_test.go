package caddymodule

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
)

func TestRouteIsServed(t *testing.T) {
	w := newWorld(t, nil)
	up := w.up()
	if status, _ := w.get("http://app.test/"); status != 404 {
		t.Errorf("unknown host: status = %d, want 404", status)
	}
	up.Set(object("one", discovery.Route{Hosts: []string{"app.test"}, TLS: "off"}, backend(t, "one")))
	if status, body := w.get("http://app.test/x?y=1"); status != 200 || body != "one /x?y=1" {
		t.Errorf("got %d %q, want 200 %q", status, body, "one /x?y=1")
	}
	up.Set(object("two", discovery.Route{Hosts: []string{"tls.localhost"}}, backend(t, "two")))
	if status, _ := w.get("http://tls.localhost/"); status != http.StatusPermanentRedirect {
		t.Errorf("HTTP of a TLS route: status = %d, want 308", status)
	}
	w.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	if status, body := w.get("https://tls.localhost/"); status != 200 || body != "two /" {
		t.Errorf("got %d %q, want 200 %q", status, body, "two /")
	}
	up.Delete("one")
	if status, _ := w.get("http://app.test/"); status != 404 {
		t.Errorf("deleted: status = %d, want 404", status)
	}
}
