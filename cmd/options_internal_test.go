package dentropycmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

// options reads a command line and an environment ("K=V" lines).
func options(args, env string) (Options, error) {
	vars := map[string]string{"HOME": "/home/me"}
	for line := range strings.Lines(env) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[k] = v
	}
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	addFlags(fs, upSettings)
	if err := fs.Parse(strings.Fields(args)); err != nil {
		return Options{}, err
	}
	return parseOptions(fs, func(k string) string { return vars[k] })
}

func TestParseOptions(t *testing.T) {
	base := Options{HTTPPort: 80, HTTPSPort: 443, Hold: 10 * time.Second, DataDir: "/data",
		Admin: "unix//data/admin.sock|0600", Engines: []Engine{{Endpoint: defaultEndpoint}}}
	with := func(f func(*Options)) Options { o := base; f(&o); return o }
	tests := []struct {
		name, args, env string
		want            Options
	}{
		{"defaults", "--data-dir /data", "", base},
		{"flag beats environment", "--data-dir /data --http-port 8080", "DENTROPY_HTTP_PORT=81\nDENTROPY_HTTPS_PORT=8443",
			with(func(o *Options) { o.HTTPPort, o.HTTPSPort = 8080, 8443 })},
		{"empty variable is none", "--data-dir /data", "DENTROPY_HTTP_PORT=", base},
		{"last flag wins", "--data-dir /x --data-dir /data", "", base},
		{"bind repeated and sorted", "--data-dir /data --bind ::1 --bind 127.0.0.1,10.0.0.1", "",
			with(func(o *Options) { o.Bind = []string{"10.0.0.1", "127.0.0.1", "::1"} })},
		{"bind from a list", "--data-dir /data", "DENTROPY_BIND= 127.0.0.1 , [::1],",
			with(func(o *Options) { o.Bind = []string{"127.0.0.1", "::1"} })},
		{"bind flag replaces the list", "--data-dir /data --bind localhost", "DENTROPY_BIND=10.0.0.1",
			with(func(o *Options) { o.Bind = []string{"127.0.0.1"} })},
		{"both wildcards are all", "--data-dir /data --bind 0.0.0.0,::", "", base},
		{"hold", "--data-dir /data --hold 500ms", "", with(func(o *Options) { o.Hold = 500 * time.Millisecond })},
		{"no hold", "--data-dir /data --hold 0s", "", with(func(o *Options) { o.Hold = 0 })},
		{"authority", "--data-dir /data --email a@b.c --acme-ca https://ca.lan/dir", "",
			with(func(o *Options) { o.Email, o.ACMECA = "a@b.c", "https://ca.lan/dir" })},
		{"admin on loopback", "--data-dir /data --admin 127.0.0.1:2020", "", with(func(o *Options) { o.Admin = "127.0.0.1:2020" })},
		{"admin on a socket", "--data-dir /data --admin /run/d.sock", "", with(func(o *Options) { o.Admin = "unix//run/d.sock|0600" })},
		{"admin with a mode", "--data-dir /data --admin unix//run/d.sock|0660", "", with(func(o *Options) { o.Admin = "unix//run/d.sock|0660" })},
		{"docker host", "--data-dir /data", "DOCKER_HOST=tcp://nas:2375",
			with(func(o *Options) { o.Engines = []Engine{{Endpoint: "tcp://nas:2375"}} })},
		{"docker host with TLS", "--data-dir /data", "DOCKER_HOST=tcp://nas:2376\nDOCKER_TLS_VERIFY=1\nDOCKER_CERT_PATH=/certs",
			with(func(o *Options) {
				o.Engines = []Engine{{Endpoint: "tcp://nas:2376", CA: "/certs/ca.pem", Cert: "/certs/cert.pem", Key: "/certs/key.pem"}}
			})},
		{"docker flag beats docker host", "--data-dir /data --docker /run/docker.sock", "DOCKER_HOST=tcp://nas:2375",
			with(func(o *Options) { o.Engines = []Engine{{Endpoint: "unix:///run/docker.sock"}} })},
		{"several engines", "--data-dir /data --docker unix:///run/docker.sock,ssh://root@Pi.lan", "",
			with(func(o *Options) {
				o.Engines = []Engine{{Endpoint: "unix:///run/docker.sock"}, {Name: "pi.lan", Endpoint: "ssh://root@Pi.lan"}}
			})},
		{"named engines", "--data-dir /data --docker nas=tcp://10.0.0.2:2375 --docker tcp://nas:2375 --docker tcp://nas:2376", "",
			with(func(o *Options) {
				o.Engines = []Engine{{Name: "nas", Endpoint: "tcp://10.0.0.2:2375"},
					{Name: "nas-2", Endpoint: "tcp://nas:2375"}, {Name: "nas-3", Endpoint: "tcp://nas:2376"}}
			})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := options(tt.args, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Options{})); diff != "" {
				t.Errorf("options differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseOptionsErrors(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(noPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, args, env, want string }{
		{"port", "--http-port x", "", `--http-port "x": give a port number`},
		{"port range", "--https-port 70000", "", `--https-port "70000"`},
		{"port in environment", "", "DENTROPY_HTTPS_PORT=0", `DENTROPY_HTTPS_PORT "0"`},
		{"same port", "--http-port 443", "", "port 443 cannot serve both"},
		{"bind", "--bind eth0", "", `--bind: "eth0" is no IP address`},
		{"bind with port", "--bind 127.0.0.1:80", "", "a port has a setting of its own"},
		{"bind twice", "--bind 0.0.0.0,10.0.0.1", "", "0.0.0.0 covers 10.0.0.1 already"},
		{"email", "--email me", "", `--email "me": this is no e-mail address`},
		{"email with name", "", "DENTROPY_EMAIL=Me <a@b.c>", "DENTROPY_EMAIL"},
		{"authority", "--acme-ca http://ca/dir", "", "--acme-ca \"http://ca/dir\": give the https URL"},
		{"root is absent", "--acme-ca-root /nowhere", "", "--acme-ca-root: open /nowhere: no such file"},
		{"root is no PEM", "--acme-ca-root " + noPEM, "", "there is no PEM certificate in it"},
		{"hold", "--hold soon", "", `--hold "soon": give a duration`},
		{"hold backwards", "--hold -1s", "", `--hold "-1s"`},
		{"admin open", "--admin :2019", "", "asks for no password"},
		{"admin on the network", "", "DENTROPY_ADMIN=192.168.1.2:2019", `DENTROPY_ADMIN "192.168.1.2:2019": the admin API asks for no password`},
		{"admin by name", "--admin box.lan:2019", "", "loopback address only"},
		{"admin without port", "--admin localhost", "", "a port is missing"},
		{"admin socket too long", "--admin /" + strings.Repeat("x", 120), "", "too long for a unix socket"},
		{"docker", "--docker nonsense", "", `--docker: "nonsense" is no Docker endpoint`},
		{"docker port", "--docker tcp://nas", "", "is no Docker endpoint"},
		{"docker password", "--docker ssh://me:secret@nas", "", "must not hold a password"},
		{"docker names", "--docker a=tcp://x:1,a=tcp://y:1", "", `two engines are called "a"`},
		{"docker host", "", "DOCKER_HOST=nonsense", "DOCKER_HOST: "},
		{"no home", "", "HOME=", "use --data-dir"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "no home" && os.Geteuid() == 0 {
				t.Skip("root has a data folder without a home")
			}
			_, err := options(tt.args, tt.env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("options(%q, %q) = %v, want an error with %q", tt.args, tt.env, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}

func TestDataDir(t *testing.T) {
	tests := []struct {
		name, given, env string
		root             bool
		want             string
	}{
		{"given", "/srv/d", "", true, "/srv/d"},
		{"xdg", "", "XDG_DATA_HOME=/x", true, "/x/dentropy"},
		{"root", "", "HOME=/root", true, "/var/lib/dentropy"},
		{"user", "", "HOME=/home/me", false, "/home/me/.local/share/dentropy"},
		{"nobody", "", "", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, v, _ := strings.Cut(tt.env, "=")
			got, err := dataDir(tt.given, func(name string) string {
				if name == k {
					return v
				}
				return ""
			}, tt.root)
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("dataDir(%q) = %q, %v, want %q", tt.given, got, err, tt.want)
			}
		})
	}
}
