package dockerengine_test

import (
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

func TestResolve(t *testing.T) {
	tests := []struct {
		name    string
		at      string
		given   dockerengine.TLS
		env     map[string]string
		url     string
		host    string
		tls     dockerengine.TLS
		fromEnv bool
		err     string
	}{
		{name: "nothing", url: "unix:///var/run/docker.sock"},
		{name: "environment", env: map[string]string{"DOCKER_HOST": "tcp://nas:2375"}, url: "tcp://nas:2375", host: "nas"},
		{name: "environment with TLS", env: map[string]string{"DOCKER_HOST": "tcp://nas:2376", "DOCKER_CERT_PATH": "/c"}, url: "tcp://nas:2376", host: "nas", fromEnv: true},
		{name: "environment with TLS in the usual place", env: map[string]string{"DOCKER_HOST": "tcp://nas:2376", "DOCKER_TLS_VERIFY": "1", "HOME": "/home/u"}, url: "tcp://nas:2376", host: "nas", tls: dockerengine.TLS{CA: "/home/u/.docker/ca.pem", Cert: "/home/u/.docker/cert.pem", Key: "/home/u/.docker/key.pem"}},
		{name: "a socket beside TLS settings", env: map[string]string{"DOCKER_HOST": "unix:///run/x.sock", "DOCKER_CERT_PATH": "/c"}, url: "unix:///run/x.sock"},
		{name: "configuration before environment", at: "unix:///a", env: map[string]string{"DOCKER_HOST": "tcp://nas:2375"}, url: "unix:///a"},
		{name: "a path", at: "/run/docker.sock", url: "unix:///run/docker.sock"},
		{name: "ssh", at: "ssh://me@nas", url: "ssh://me@nas", host: "nas"},
		{name: "loopback is here", at: "tcp://127.0.0.1:2375", url: "tcp://127.0.0.1:2375"},
		{name: "localhost is here", at: "tcp://localhost:2375", url: "tcp://localhost:2375"},
		{name: "IPv6", at: "tcp://[2001:db8::1]:2375", url: "tcp://[2001:db8::1]:2375", host: "2001:db8::1"},
		{name: "no scheme", at: "nas:2375", err: "want unix:///path"},
		{name: "no port", at: "tcp://nas", err: "the port is missing"},
		{name: "unknown scheme", at: "ftp://nas:1", err: `scheme "ftp" is not known`},
		{name: "ssh with a password", at: "ssh://me:secret@nas", err: "ssh://me:xxxxx@nas"},
		{name: "TLS on a socket", at: "unix:///a", given: dockerengine.TLS{CA: "x"}, err: "TLS is for tcp://"},
		{name: "half a certificate", at: "tcp://nas:2376", given: dockerengine.TLS{Cert: "x"}, err: "both cert and key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ep, err := dockerengine.Resolve(tt.at, tt.given, func(k string) string { return tt.env[k] })
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error = %v, want it to contain %q", err, tt.err)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("error %q shows the password", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ep.URL != tt.url || ep.Host() != tt.host || ep.TLS != tt.tls || ep.FromEnv != tt.fromEnv {
				t.Errorf("endpoint %+v with host %q, want %q, host %q, tls %+v, from environment %v", ep, ep.Host(), tt.url, tt.host, tt.tls, tt.fromEnv)
			}
		})
	}
}
