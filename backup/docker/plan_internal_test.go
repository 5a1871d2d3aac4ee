package docker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

func prefix(t *testing.T, list ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

const imageA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// archived is an app as it is in an archive: a compose project of two services.
func archived(host string) (*backup.Manifest, *backup.App) {
	settings := func(config, host, nets string) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"Config":{%s},"HostConfig":{%s},"Networks":{%s}}`, config, host, nets))
	}
	labels := `"com.docker.compose.project":"shop","com.docker.compose.project.working_dir":"/srv/shop","com.docker.compose.project.config_files":"/srv/shop/compose.yaml"`
	app := &backup.App{
		Name: "shop", Kind: kindCompose, Format: Format,
		Project: &backup.Project{Name: "shop", Dir: "/srv/shop", ConfigFiles: []string{"/srv/shop/compose.yaml"}},
		Containers: []backup.Container{
			{
				ID: strings.Repeat("d", 64), Name: "shop-db-1", Service: "db", Image: "postgres:17", ImageID: imageA, State: backup.Running,
				Mounts:   []backup.Mount{{Volume: "data", Target: "/data"}, {Volume: "conf", Target: "/conf"}},
				Settings: settings(`"Labels":{`+labels+`}`, `"NetworkMode":"shop_default","Binds":["shop_data:/data","/srv/shop/conf:/conf"]`, `"shop_default":{"IPAMConfig":{"IPv4Address":"10.1.0.9"}}`),
			},
			{
				ID: strings.Repeat("e", 64), Name: "shop-web-1", Service: "web", Image: "postgres:17", ImageID: imageA, State: backup.Running,
				DependsOn: []backup.Dependency{{Container: "shop-db-1", Condition: condHealthy}},
				Settings:  settings(`"Labels":{"dentropy.host":"shop.example.com","dentropy.port":"80",`+labels+`}`, `"NetworkMode":"shop_default","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}`+host, `"shop_default":{}`),
			},
		},
		Volumes: []backup.Volume{
			{ID: "data", Kind: backup.Named, Name: "shop_data", Driver: "local", Action: backup.Include, Labels: map[string]string{labelProject: "shop", labelComposeVolume: "data"}},
			{ID: "conf", Kind: backup.Bind, Name: "/srv/shop/conf", Action: backup.Include},
			{ID: "project", Kind: backup.ProjectTree, Name: "/srv/shop", Action: backup.Include},
		},
		Networks: []backup.Network{{
			Name: "shop_default", Driver: "bridge", Labels: map[string]string{labelProject: "shop", labelComposeNetwork: "default"},
			Settings: json.RawMessage(`{"Name":"shop_default","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]},"Options":{}}`),
		}},
		Images: []backup.Image{{ID: imageA, Refs: []string{"postgres:17"}, Platform: "linux/amd64", Include: true, Size: 1000}},
	}
	tree := func(id string) *backup.Tree { return &backup.Tree{Volume: id, Stored: 1 << 20, Bytes: 1 << 20} }
	return &backup.Manifest{App: app, ImagesInside: true, Trees: map[string]*backup.Tree{"data": tree("data"), "conf": tree("conf"), "project": tree("project")}}, app
}

// bare are the facts of an engine with nothing on it.
func bare() *facts {
	return &facts{
		platform: "docker", os: "linux", arch: "amd64", api: "1.41", root: "/var/lib/docker", free: 1 << 40,
		volumes: map[string]volFact{}, imageIDs: map[string]bool{}, imageRefs: map[string]string{}, unpullable: map[string]string{},
		paths: map[string]pathFact{"/srv/shop": {}, "/srv/shop/conf": {}, "/srv/shop-2": {}, "/srv/test": {}, "/srv/test/conf": {}},
	}
}

// there are facts of an engine on which the app runs already.
func there() *facts {
	f := bare()
	f.containers = []contFact{
		{id: "1", name: "shop-db-1", app: "shop", dir: "/srv/shop", running: true, volumes: []string{"shop_data"}, paths: []string{"/srv/shop/conf"}, networks: []string{"shop_default"}},
		{id: "2", name: "shop-web-1", app: "shop", dir: "/srv/shop", running: true, ports: []portFact{{"0.0.0.0", 8080, "tcp"}}, networks: []string{"shop_default"}},
	}
	f.volumes["shop_data"] = volFact{driver: "local", project: "shop"}
	f.networks = []netFact{{name: "shop_default", driver: "bridge", project: "shop", subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}}
	f.paths["/srv/shop"], f.paths["/srv/shop/conf"] = pathFact{exists: true, dir: true}, pathFact{exists: true, dir: true}
	return f
}

// open lists what is not settled.
func open(p *backup.Plan) string {
	var out []string
	for _, c := range p.Conflicts {
		if !c.Resolved {
			out = append(out, c.Kind+" "+c.Name)
		}
	}
	for _, r := range p.Risks {
		if !r.Allowed {
			out = append(out, "risk "+r.Kind)
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

func TestPlanConflicts(t *testing.T) {
	other := func(edit func(*facts)) *facts {
		f := bare()
		edit(f)
		return f
	}
	for _, test := range []struct {
		name    string
		facts   *facts
		answers backup.Answers
		edit    func(*backup.Manifest, *backup.App)
		open    string // what is not settled
		check   func(*testing.T, *backup.Plan, *detail)
	}{
		{name: "nothing there", facts: bare(), check: func(t *testing.T, p *backup.Plan, d *detail) {
			if d.renamed() || d.Override {
				t.Error("an unchanged restore changes names")
			}
			for _, c := range d.Containers {
				if len(c.Set)+len(c.Unset) > 0 {
					t.Errorf("labels of %s are changed: %v %v", c.Name, c.Set, c.Unset)
				}
			}
			if v := d.volume("data"); !v.Fill || !v.Make || v.Swap {
				t.Errorf("volume %+v, want it made and filled", v)
			}
			if got := strings.Join(p.Hosts, " "); got != "shop.example.com" {
				t.Errorf("hosts %s", got)
			}
			if p.Bytes != 3<<20+1000 {
				t.Errorf("bytes %d", p.Bytes)
			}
		}},
		{name: "app there", facts: there(), open: "path /srv/shop/conf, port 8080/tcp, project shop, volume data"},
		{name: "app there, replaced", facts: there(), answers: backup.Answers{OnConflict: "replace"}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if len(d.Old) != 2 || !d.volume("data").Swap || !d.volume("conf").Swap || d.network("shop_default").Make {
				t.Errorf("plan %+v, want the old set aside and its data exchanged", d)
			}
		}},
		{name: "app there, renamed", facts: there(), answers: backup.Answers{OnConflict: "rename", Ports: map[string]string{"web:80": "auto"}}, check: func(t *testing.T, p *backup.Plan, d *detail) {
			got := fmt.Sprint(p.App, d.Project, d.Dir, d.Containers[0].Name, d.volume("data").Name, d.volume("conf").Name, d.network("shop_default"), d.Containers[1].Ports)
			want := fmt.Sprint("shop-2", "shop-2", "/srv/shop-2", "shop-2-db-1", "shop-2_data", "/srv/shop-2/conf",
				&networkPlan{Was: "shop_default", Name: "shop-2_default", Make: true, Subnet: "auto"}, map[string][]portBinding{"80/tcp": {{Port: "8081"}}})
			if got != want {
				t.Errorf("plan\n%s\nwant\n%s", got, want)
			}
			if !d.Override || d.Containers[0].Set[labelProject] != "shop-2" || d.Containers[0].Set[labelConfigFiles] != "/srv/shop-2/compose.yaml,/srv/shop-2/"+overrideFile {
				t.Errorf("labels %v", d.Containers[0].Set)
			}
		}},
		{name: "app there is our own", facts: func() *facts { f := there(); f.containers[1].self = true; return f }(), answers: backup.Answers{OnConflict: "replace"}, open: "path /srv/shop/conf, port 8080/tcp, project shop, volume data"},
		{name: "app there removes itself", facts: func() *facts { f := there(); f.containers[1].autoRemove = true; return f }(), answers: backup.Answers{OnConflict: "replace"}, open: "path /srv/shop/conf, port 8080/tcp, project shop, volume data"},
		{name: "container of another app", facts: other(func(f *facts) {
			f.containers = []contFact{{id: "9", name: "shop-db-1", app: "bank"}}
		}), answers: backup.Answers{OnConflict: "replace"}, open: "container shop-db-1"},
		{name: "container of another app, renamed around", facts: other(func(f *facts) {
			f.containers = []contFact{{id: "9", name: "shop-db-1", app: "bank"}}
		}), answers: backup.Answers{OnConflict: "rename"}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if d.Containers[0].Name != "shop-db-1-2" {
				t.Errorf("name %s", d.Containers[0].Name)
			}
		}},
		{name: "volume of another app", facts: other(func(f *facts) {
			f.volumes["shop_data"] = volFact{driver: "local"}
			f.containers = []contFact{{id: "9", name: "x", app: "bank", volumes: []string{"shop_data"}}}
		}), answers: backup.Answers{OnConflict: "replace"}, open: "volume data"},
		{name: "volume of nobody, replaced", facts: other(func(f *facts) { f.volumes["shop_data"] = volFact{driver: "local"} }), answers: backup.Answers{OnConflict: "replace"}},
		{name: "volume with options", facts: other(func(f *facts) {
			f.volumes["shop_data"] = volFact{driver: "local", options: map[string]string{"type": "nfs"}}
		}), answers: backup.Answers{OnConflict: "replace"}, open: "volume data"},
		{name: "volume named anew", facts: there(), answers: backup.Answers{OnConflict: "replace", Volumes: map[string]backup.VolumeAnswer{"data": {Name: "fresh"}}}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if v := d.volume("data"); v.Name != "fresh" || !v.Make || v.Swap {
				t.Errorf("volume %+v", v)
			}
		}},
		{name: "volume kept as it is", facts: there(), answers: backup.Answers{OnConflict: "replace", Volumes: map[string]backup.VolumeAnswer{"data": {Existing: true}}}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if v := d.volume("data"); v.Fill || v.Swap || v.Make {
				t.Errorf("volume %+v", v)
			}
		}},
		{name: "volume that should be there", facts: bare(), answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Name: "none", Existing: true}}}, open: "volume data"},
		{name: "volume becomes a folder", facts: other(func(f *facts) { f.paths["/srv/db"] = pathFact{} }), answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Path: "/srv/db"}}}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if v := d.volume("data"); v.Kind != backup.Bind || v.Name != "/srv/db" || !v.Make {
				t.Errorf("volume %+v", v)
			}
		}},
		{name: "volume becomes NFS", facts: bare(), answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Driver: "local", Options: map[string]string{"type": "nfs", "device": ":/x"}}}}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if v := d.volume("data"); !v.Asked || v.Driver != "local" || v.Name != "shop_data" {
				t.Errorf("volume %+v", v)
			}
		}},
		{name: "volume that is not in the archive", facts: bare(), edit: func(m *backup.Manifest, a *backup.App) {
			a.Volumes[0].Action, a.Volumes[0].External = backup.Reference, true
			delete(m.Trees, "data")
		}, open: "volume data"},
		{name: "another app's volume is wanted", facts: other(func(f *facts) {
			f.volumes["shop_data"] = volFact{driver: "local"}
			f.containers = []contFact{{id: "9", name: "x", app: "bank", volumes: []string{"shop_data"}}}
		}), edit: func(m *backup.Manifest, a *backup.App) {
			a.Volumes[0].Action, a.Volumes[0].External = backup.Reference, true
			delete(m.Trees, "data")
		}, open: "volume data"},
		{name: "path that is not in the archive", facts: bare(), edit: func(m *backup.Manifest, a *backup.App) {
			a.Volumes[1].Action = backup.Reference
			delete(m.Trees, "conf")
		}, open: "path /srv/shop/conf"},
		{name: "port of another container", facts: other(func(f *facts) {
			f.containers = []contFact{{id: "9", name: "x", app: "bank", ports: []portFact{{"127.0.0.1", 8080, "tcp"}}}}
		}), open: "port 8080/tcp"},
		{name: "port of the same number over UDP", facts: other(func(f *facts) {
			f.containers = []contFact{{id: "9", name: "x", app: "bank", ports: []portFact{{"127.0.0.1", 8080, "udp"}}}}
		})},
		{name: "port of a program", facts: other(func(f *facts) {
			f.busy = func(_ string, port uint16, _ string) string { return map[uint16]string{8080: "a program"}[port] }
		}), open: "port 8080/tcp"},
		{name: "port elsewhere", facts: other(func(f *facts) {
			f.busy = func(_ string, port uint16, _ string) string { return map[uint16]string{8080: "a program"}[port] }
		}), answers: backup.Answers{Ports: map[string]string{"8080": "127.0.0.1:9090"}}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if got := fmt.Sprint(d.Containers[1].Ports); got != "map[80/tcp:[{127.0.0.1 9090}]]" {
				t.Errorf("ports %s", got)
			}
		}},
		{name: "port not published", facts: bare(), answers: backup.Answers{Ports: map[string]string{"shop-web-1:80/tcp": "none"}}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if list, ok := d.Containers[1].Ports["80/tcp"]; !ok || len(list) != 0 {
				t.Errorf("ports %v", d.Containers[1].Ports)
			}
		}},
		{name: "network with other settings", facts: other(func(f *facts) {
			f.networks = []netFact{{name: "shop_default", driver: "macvlan"}}
		}), open: "network shop_default"},
		{name: "network the same", facts: other(func(f *facts) {
			f.networks = []netFact{{name: "shop_default", driver: "bridge", subnets: prefix(t, "10.1.0.0/24")}}
		}), check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if n := d.network("shop_default"); n.Make || !n.Static {
				t.Errorf("network %+v", n)
			}
		}},
		{name: "network answered", facts: other(func(f *facts) {
			f.networks = []netFact{{name: "proxy", driver: "bridge", subnets: prefix(t, "10.5.0.0/24")}}
		}), answers: backup.Answers{Networks: map[string]backup.NetworkAnswer{"shop_default": {Name: "proxy", Existing: true}}}, check: func(t *testing.T, p *backup.Plan, d *detail) {
			if n := d.network("shop_default"); n.Make || n.Static || n.Name != "proxy" || !strings.Contains(strings.Join(p.Warnings, " "), "10.1.0.9") {
				t.Errorf("network %+v, warnings %v: want the static address dropped", n, p.Warnings)
			}
		}},
		{name: "subnet taken by a network", facts: other(func(f *facts) {
			f.networks = []netFact{{name: "x", driver: "bridge", subnets: prefix(t, "10.1.0.0/16")}}
		}), open: "subnet 10.1.0.0/24"},
		{name: "subnet taken by the LAN", facts: other(func(f *facts) { f.lan = prefix(t, "10.0.0.0/8") }), open: "subnet 10.1.0.0/24"},
		{name: "subnet chosen anew", facts: other(func(f *facts) { f.lan = prefix(t, "10.1.0.0/16") }), answers: backup.Answers{Networks: map[string]backup.NetworkAnswer{"shop_default": {Subnet: "10.9.0.0/24"}}}},
		{name: "subnet nobody cares about", facts: other(func(f *facts) { f.lan = prefix(t, "10.1.0.0/16") }), edit: func(_ *backup.Manifest, a *backup.App) {
			a.Containers[0].Settings = json.RawMessage(strings.Replace(string(a.Containers[0].Settings), `{"IPv4Address":"10.1.0.9"}`, "null", 1))
		}},
		{name: "image gone", facts: bare(), edit: func(_ *backup.Manifest, a *backup.App) { a.Images[0].Include = false }, open: "image postgres:17"},
		{name: "image pulled", facts: other(func(f *facts) { f.unpullable[imageA] = "" }), edit: func(_ *backup.Manifest, a *backup.App) {
			a.Images[0].Include, a.Images[0].Digests = false, []string{"postgres@" + imageA}
		}, check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if d.Images[0].How != imagePull {
				t.Errorf("image %+v", d.Images[0])
			}
		}},
		{name: "image not to be had", facts: other(func(f *facts) { f.unpullable[imageA] = "not found" }), edit: func(_ *backup.Manifest, a *backup.App) {
			a.Images[0].Include, a.Images[0].Digests = false, []string{"postgres@" + imageA}
		}, open: "image postgres:17"},
		{name: "image here under another id", facts: other(func(f *facts) { f.imageRefs["postgres:17"] = "sha256:other" }), check: func(t *testing.T, _ *backup.Plan, d *detail) {
			if d.Containers[0].Image != imageA {
				t.Errorf("image %s: want the archive's, not what the tag means here", d.Containers[0].Image)
			}
		}},
		{name: "another architecture", facts: other(func(f *facts) { f.arch = "arm64" }), open: "arch postgres:17"},
		{name: "another architecture, image there", facts: other(func(f *facts) { f.arch, f.imageIDs[imageA] = "arm64", true })},
		{name: "no room", facts: other(func(f *facts) { f.free = 1 << 20 }), open: "space docker"},
		{name: "other name", facts: bare(), answers: backup.Answers{Name: "test", Routes: map[string]backup.RouteAnswer{"web": {Host: "a.example.com", Path: "/x", TLS: "internal"}}}, check: func(t *testing.T, p *backup.Plan, d *detail) {
			set := d.Containers[1].Set
			if set["dentropy.host"] != "a.example.com" || set["dentropy.path"] != "/x" || set["dentropy.tls"] != "internal" || p.Hosts[0] != "a.example.com" {
				t.Errorf("labels %v, hosts %v", set, p.Hosts)
			}
		}},
		{name: "route taken away", facts: bare(), answers: backup.Answers{Routes: map[string]backup.RouteAnswer{"web": {None: true}}}, check: func(t *testing.T, p *backup.Plan, d *detail) {
			if len(p.Hosts) != 0 || len(d.Containers[1].Unset) != 2 {
				t.Errorf("hosts %v, labels without %v", p.Hosts, d.Containers[1].Unset)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, app := archived("")
			if test.edit != nil {
				test.edit(m, app)
			}
			p, d, err := planRestore(m, app, test.answers, test.facts)
			if err != nil {
				t.Fatal(err)
			}
			if got := open(p); got != test.open {
				t.Errorf("open are %q, want %q (%+v)", got, test.open, p.Conflicts)
			}
			for _, c := range p.Conflicts {
				if c.Text == "" || !c.Resolved && c.Hint == "" {
					t.Errorf("conflict %+v says too little", c)
				}
			}
			if len(p.Steps) == 0 || len(p.Questions) == 0 {
				t.Error("there are no steps or no questions")
			}
			if test.check != nil {
				test.check(t, p, d)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers backup.Answers
		edit    func(*backup.Manifest, *backup.App)
		want    string
	}{
		{"another platform's", backup.Answers{}, func(_ *backup.Manifest, a *backup.App) { a.Format = "kubernetes" }, "format"},
		{"unknown volume", backup.Answers{Volumes: map[string]backup.VolumeAnswer{"x": {Name: "y"}}}, nil, `"x" is about nothing`},
		{"unknown route", backup.Answers{Routes: map[string]backup.RouteAnswer{"x": {Host: "y"}}}, nil, `"x" is about nothing`},
		{"unknown port", backup.Answers{Ports: map[string]string{"web:81": "9"}}, nil, `"web:81" is about nothing`},
		{"bad name", backup.Answers{Name: "A b"}, nil, "cannot be the name"},
		{"bad container name", backup.Answers{}, func(_ *backup.Manifest, a *backup.App) { a.Containers[0].Name = "../x" }, "make no sense"},
		{"path in a name", backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Name: "../x"}}}, nil, "cannot be the name"},
		{"relative path", backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Path: "x"}}}, nil, "absolute"},
		{"two volumes of an id", backup.Answers{}, func(_ *backup.Manifest, a *backup.App) { a.Volumes[1].ID = "data" }, "two volumes"},
		{"mount of nothing", backup.Answers{}, func(_ *backup.Manifest, a *backup.App) { a.Containers[0].Mounts[0].Volume = "x" }, "mounts"},
		{"data of nothing", backup.Answers{}, func(m *backup.Manifest, _ *backup.App) { m.Trees["x"] = &backup.Tree{} }, "does not have"},
		{"no settings", backup.Answers{}, func(_ *backup.Manifest, a *backup.App) { a.Containers[0].Settings = nil }, "there are none"},
		{"settings of other types", backup.Answers{}, func(_ *backup.Manifest, a *backup.App) {
			a.Containers[0].Settings = json.RawMessage(`{"HostConfig":{"Binds":7}}`)
		}, "make no sense"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, app := archived("")
			if test.edit != nil {
				test.edit(m, app)
			}
			if _, _, err := planRestore(m, app, test.answers, bare()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("planRestore = %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestRisks(t *testing.T) {
	for _, test := range []struct {
		host string // settings of the web's HostConfig
		want string // kinds that need acceptance, then a slash and those that are shown
	}{
		{``, "/ host-path"},
		{`"Privileged":true`, "privileged/ host-path"},
		{`"privileged":true`, "privileged/ host-path"},
		{`"CapAdd":["SYS_ADMIN"]`, "capability/ host-path"},
		{`"CapAdd":["CAP_NET_ADMIN","ALL"]`, "capability/ host-path"},
		{`"CapAdd":["NET_BIND_SERVICE"]`, "/ capability host-path"},
		{`"Binds":["/var/run/docker.sock:/x"]`, "docker-socket/ host-path"},
		{`"Binds":["/run:/x"]`, "docker-socket/ host-path"},
		{`"Binds":["/home/me/docker.sock:/x"]`, "docker-socket/ host-path"},
		{`"Binds":["/:/host"]`, "host-path/ host-path"},
		{`"Binds":["/etc:/x:ro"]`, "host-path/ host-path"},
		{`"Binds":["/srv/shop/more:/x"]`, "/ host-path"},
		{`"Binds":["/srv/shop/../bank:/x"]`, "host-path/ host-path"},
		{`"Binds":["/srv/shop/.ssh:/x"]`, "host-path/ host-path"},
		{`"Mounts":[{"Type":"bind","Source":"/mnt/x","Target":"/x"}]`, "host-path/ host-path"},
		{`"Mounts":[{"Type":"volume","Target":"/x","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/etc"}}}}]`, "host-path/ host-path"},
		{`"NetworkMode":"host"`, "host-network/ host-path"},
		{`"NetworkMode":"container:vpn"`, "host-network/ host-path"},
		{`"NetworkMode":"container:shop-db-1"`, "/ host-path"},
		{`"PidMode":"host"`, "host-pid/ host-path"},
		{`"IpcMode":"host"`, "host-ipc/ host-path"},
		{`"UsernsMode":"host"`, "host-users/ host-path"},
		{`"UTSMode":"host"`, "/ host-name host-path"},
		{`"VolumesFrom":["vault"]`, "host-path/ host-path"},
		{`"Devices":[{"PathOnHost":"/dev/sda"}]`, "device/ host-path"},
		{`"DeviceCgroupRules":["b 8:* rmw"]`, "device/ host-path"},
		{`"DeviceRequests":[{"Driver":"nvidia"}]`, "device/ host-path"},
		{`"SecurityOpt":["seccomp=unconfined"]`, "security-opt/ host-path"},
		{`"SecurityOpt":["apparmor:unconfined"]`, "security-opt/ host-path"},
		{`"SecurityOpt":["label=disable"]`, "security-opt/ host-path"},
		{`"SecurityOpt":["seccomp={}"]`, "security-opt/ host-path"},
		{`"SecurityOpt":["no-new-privileges:true"]`, "/ host-path"},
		{`"MaskedPaths":[]`, "security-opt/ host-path"},
		{`"Runtime":"nvidia"`, "runtime/ host-path"},
		{`"Runtime":"runc"`, "/ host-path"},
		{`"CgroupParent":"/x"`, "cgroup/ host-path"},
		{`"Sysctls":{"net.core.somaxconn":"1"}`, "/ host-path sysctl"},
		{`"PortBindings":{"80/tcp":[{"HostPort":"80"}]}`, "/ host-path host-port"},
		{`"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"80"}]}`, "/ host-path"},
	} {
		host := test.host
		m, app := archived("")
		if host != "" {
			app.Containers[1].Settings = json.RawMessage(`{"Config":{},"HostConfig":{` + host + `},"Networks":{}}`)
		}
		p, _, err := planRestore(m, app, backup.Answers{}, bare())
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		kinds := map[bool]map[string]bool{true: {}, false: {}}
		for _, r := range p.Risks {
			kinds[r.Allowed][r.Kind] = true
		}
		if got := strings.Join(sortedKeys(kinds[false]), " ") + "/ " + strings.Join(sortedKeys(kinds[true]), " "); got != test.want {
			t.Errorf("%s: risks %q, want %q (%+v)", host, got, test.want, p.Risks)
		}
		p, _, err = planRestore(m, app, backup.Answers{Allow: []string{"all"}}, bare())
		if err != nil || strings.Contains(open(p), "risk") {
			t.Errorf("%s: with all accepted, %s is open", host, open(p))
		}
	}
}

// TestRisksOfPlaces: an archive may not choose where on the host it writes.
func TestRisksOfPlaces(t *testing.T) {
	for _, test := range []struct {
		dir     string
		answers backup.Answers
		open    string
	}{
		{dir: "/srv/shop"},
		{dir: "/home/me/shop"},
		{dir: "/home/me", open: "risk host-path"},
		{dir: "/root", open: "risk host-path"},
		{dir: "/root/.ssh", open: "risk host-path"},
		{dir: "/etc/cron.d", open: "risk host-path"},
		{dir: "/var/spool/cron", open: "risk host-path"},
		{dir: "/usr/local/bin", open: "risk host-path"},
		{dir: "/etc/cron.d", answers: backup.Answers{ProjectDir: "/srv/here"}},
		{dir: "/etc/cron.d", answers: backup.Answers{ProjectDir: "none"}, open: "risk host-path"}, // the bind below it
	} {
		m, app := archived("")
		app.Project.Dir = test.dir
		app.Volumes[1].Name, app.Volumes[2].Name = test.dir+"/conf", test.dir
		f := bare()
		f.paths = map[string]pathFact{test.dir: {}, test.dir + "/conf": {}}
		p, _, err := planRestore(m, app, test.answers, f)
		if err != nil {
			t.Fatal(err)
		}
		if got := open(p); got != test.open {
			t.Errorf("project in %s, answered %q: open are %q, want %q", test.dir, test.answers.ProjectDir, got, test.open)
		}
	}
}

func TestForeignRoutes(t *testing.T) {
	labels := map[string]string{
		"traefik.http.routers.a.rule": "Host(`a.example.com`) || Host(`b.example.com`)", "traefik.http.services.a.loadbalancer.server.port": "8080",
	}
	m, app := archived("")
	text, err := json.Marshal(labels)
	if err != nil {
		t.Fatal(err)
	}
	app.Containers[1].Settings = json.RawMessage(`{"Config":{"Labels":` + string(text) + `},"HostConfig":{},"Networks":{}}`)
	p, _, err := planRestore(m, app, backup.Answers{}, bare())
	if err != nil || strings.Join(p.Hosts, " ") != "a.example.com b.example.com" {
		t.Errorf("hosts %v, %v", p.Hosts, err)
	}
	p, d, err := planRestore(m, app, backup.Answers{Routes: map[string]backup.RouteAnswer{"web": {Host: "c.example.com"}}}, bare())
	if err != nil || strings.Join(p.Hosts, " ") != "c.example.com" || d.Containers[1].Set["dentropy.port"] != "8080" {
		t.Errorf("hosts %v, labels %v, %v: want the native labels to say all", p.Hosts, d.Containers[1].Set, err)
	}
	p, d, err = planRestore(m, app, backup.Answers{Routes: map[string]backup.RouteAnswer{"web": {None: true}}}, bare())
	if err != nil || len(p.Hosts) != 0 || d.Containers[1].Set["dentropy.enable"] != "false" {
		t.Errorf("hosts %v, labels %v, %v", p.Hosts, d.Containers[1].Set, err)
	}
}
