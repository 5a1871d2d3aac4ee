package docker

import (
	"encoding/json"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dentropy/dentropycloud/backup"
)

// body is a request that makes a container, as an engine reads it.
type body struct {
	container.Config
	HostConfig       container.HostConfig
	NetworkingConfig struct {
		EndpointsConfig map[string]*network.EndpointSettings
	}
	FromTheFuture any
}

func readBody(t *testing.T, raw []byte) body {
	t.Helper()
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCreateHoldsEverything fills all settings at random, captures them, and makes a
// request of them: what is not in the list in create.go comes out as it went in.
func TestCreateHoldsEverything(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		cfg, host := new(container.Config), new(container.HostConfig)
		fill(r, reflect.ValueOf(cfg).Elem())
		fill(r, reflect.ValueOf(host).Elem())
		cfg.MacAddress = "" //nolint:staticcheck // of the networks, below
		host.Binds = nil    // tested by themselves
		host.Mounts = nil
		host.VolumesFrom, host.Links = nil, nil
		host.NetworkMode = "net"
		ep := new(network.EndpointSettings)
		fill(r, reflect.ValueOf(ep).Elem())
		ep.Links = nil
		raw := inspected(t, cfg, host, map[string]*network.EndpointSettings{"net": ep})
		settings, err := raw.settings(same, same, "host")
		if err != nil {
			t.Fatal(err)
		}
		c := backup.Container{ID: strings.Repeat("ab", 32), Name: "web", Image: cfg.Image, Settings: settings}
		cp := &containerPlan{Was: "web", Name: "web", Image: cfg.Image}
		env := &bodyEnv{app: &backup.App{Containers: []backup.Container{c}}, d: &detail{
			Containers: []containerPlan{*cp}, Networks: []networkPlan{{Was: "net", Name: "net", Static: true}},
		}, api: "1.44"}
		made, err := createBody(&c, cp, env)
		if err != nil {
			t.Fatal(err)
		}
		got := readBody(t, made.body)
		if diff := cmp.Diff(*cfg, got.Config, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("Config differs (-was +is):\n%s", diff)
		}
		if diff := cmp.Diff(*host, got.HostConfig, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("HostConfig differs (-was +is):\n%s", diff)
		}
		want := *ep
		want.NetworkID, want.EndpointID, want.Gateway, want.IPAddress, want.IPPrefixLen = "", "", "", "", 0
		want.IPv6Gateway, want.GlobalIPv6Address, want.GlobalIPv6PrefixLen, want.DNSNames, want.MacAddress = "", "", 0, nil, ""
		if diff := cmp.Diff(&want, got.NetworkingConfig.EndpointsConfig["net"], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("network differs (-was +is):\n%s", diff)
		}
		if got.FromTheFuture == nil || !strings.Contains(string(made.body), `"HostConfig":{`) || strings.Count(string(made.body), "FromTheFuture") != 3 {
			t.Error("fields that nobody knows are lost")
		}
	}
}

// oneContainer makes the request for one container of an app.
func oneContainer(t *testing.T, app *backup.App, d *detail, name, api string, ids map[string]string) (body, []endpoint) {
	t.Helper()
	for i := range app.Containers {
		if app.Containers[i].Name != name {
			continue
		}
		if d.Containers[i].Image == "" {
			d.Containers[i].Image = "img"
		}
		made, err := createBody(&app.Containers[i], &d.Containers[i], &bodyEnv{app: app, d: d, api: api, ids: ids})
		if err != nil {
			t.Fatal(err)
		}
		return readBody(t, made.body), made.connect
	}
	t.Fatalf("there is no container %s", name)
	return body{}, nil
}

func TestCreateReferences(t *testing.T) {
	db := backup.Container{ID: strings.Repeat("d", 64), Name: "p-db-1", Settings: json.RawMessage(`{"Config":{"Hostname":"dddddddddddd"},"HostConfig":{"NetworkMode":"p_default"},"Networks":{}}`)}
	web := backup.Container{ID: strings.Repeat("e", 64), Name: "p-web-1", Settings: json.RawMessage(`{
		"Config":{"Hostname":"eeeeeeeeeeee","Domainname":"x","ExposedPorts":{"80/tcp":{}},"Labels":{"a":"1","Dentropy.Host":"old"}},
		"HostConfig":{"NetworkMode":"container:p-db-1","PidMode":"container:dddddddddddd","IpcMode":"container:other","VolumesFrom":["p-db-1:ro","other"],"Links":["/p-db-1:/p-web-1/database"]},
		"Networks":{}}`)}
	app := &backup.App{Containers: []backup.Container{db, web}}
	d := &detail{Containers: []containerPlan{
		{Was: "p-db-1", Name: "n-db-1"},
		{Was: "p-web-1", Name: "n-web-1", Set: map[string]string{"dentropy.host": "new"}, Unset: []string{"dentropy.HOST"}},
	}, Networks: []networkPlan{{Was: "p_default", Name: "n_default"}}}
	got, _ := oneContainer(t, app, d, "p-web-1", "1.41", map[string]string{"p-db-1": "newid"})
	want := body{}
	want.Labels = map[string]string{"a": "1", "dentropy.host": "new"}
	want.Image = "img"
	want.HostConfig.NetworkMode, want.HostConfig.PidMode, want.HostConfig.IpcMode = "container:newid", "container:newid", "container:other"
	want.HostConfig.VolumesFrom = []string{"newid:ro", "other"}
	want.HostConfig.Links = []string{"n-db-1:database"}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("request differs (-want +got):\n%s", diff)
	}
	got, _ = oneContainer(t, app, d, "p-db-1", "1.41", nil)
	if got.HostConfig.NetworkMode != "n_default" || got.Hostname != "" {
		t.Errorf("network mode %q, host name %q, want n_default and none", got.HostConfig.NetworkMode, got.Hostname)
	}
}

func TestCreateVolumes(t *testing.T) {
	anon := strings.Repeat("0a", 32)
	c := backup.Container{ID: strings.Repeat("e", 64), Name: "web", Mounts: []backup.Mount{
		{Volume: "data", Target: "/data"}, {Volume: "conf", Target: "/conf", ReadOnly: true}, {Volume: "anon", Target: "/anon"},
		{Volume: "run", Target: "/run"}, {Volume: "media", Target: "/media"}, {Volume: "tobind", Target: "/tobind"},
	}, Settings: json.RawMessage(`{"Config":{"Volumes":{"/anon":{}}},"HostConfig":{
		"Binds":["p_data:/data:rw","/srv/p/conf:/conf:ro","/var/run/docker.sock:/docker.sock"],
		"Mounts":[{"Type":"bind","Source":"/srv/media","Target":"/media/","BindOptions":{"Propagation":"rslave"}},{"Type":"volume","Source":"p_x","Target":"/tobind","VolumeOptions":{"NoCopy":true}},{"Type":"tmpfs","Target":"/run","TmpfsOptions":{"SizeBytes":7}}]},"Networks":{}}`)}
	d := &detail{Containers: []containerPlan{{Was: "web", Name: "web"}}, Volumes: []volumePlan{
		{ID: "data", Kind: backup.Named, Was: "p_data", Name: "n_data"},
		{ID: "conf", Kind: backup.Bind, Was: "/srv/p/conf", Name: "/srv/n/conf"},
		{ID: "anon", Kind: backup.Named, Was: anon, Name: "web_anon"},
		{ID: "run", Kind: backup.Tmpfs, Was: "/run", Name: "/run"},
		{ID: "media", Kind: backup.Named, Was: "/srv/media", Name: "n_media"},
		{ID: "tobind", Kind: backup.Bind, Was: "p_x", Name: "/srv/x"},
	}}
	got, _ := oneContainer(t, &backup.App{Containers: []backup.Container{c}}, d, "web", "1.41", nil)
	if diff := cmp.Diff([]string{"n_data:/data:rw", "/srv/n/conf:/conf:ro", "/var/run/docker.sock:/docker.sock"}, got.HostConfig.Binds); diff != "" {
		t.Errorf("binds differ (-want +got):\n%s", diff)
	}
	text, err := json.Marshal(got.HostConfig.Mounts)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"Type":"volume","Source":"n_media","Target":"/media/","VolumeOptions":{"NoCopy":true}},` +
		`{"Type":"bind","Source":"/srv/x","Target":"/tobind"},` +
		`{"Type":"tmpfs","Target":"/run","TmpfsOptions":{"SizeBytes":7}},` +
		`{"Type":"volume","Source":"web_anon","Target":"/anon","VolumeOptions":{"NoCopy":true}}]`
	if string(text) != want {
		t.Errorf("mounts are\n%s\nwant\n%s", text, want)
	}
}

func TestCreateNetworks(t *testing.T) {
	c := backup.Container{ID: strings.Repeat("e", 64), Name: "web", Settings: json.RawMessage(`{"Config":{"MacAddress":"02:00:00:00:00:01"},"HostConfig":{"NetworkMode":"front"},"Networks":{
		"front":{"IPAMConfig":{"IPv4Address":"10.1.0.9"},"Aliases":["web","eeeeeeeeeeee","www"],"NetworkID":"x","GwPriority":3},
		"back":{"Aliases":["web"],"Links":["db:database"]},
		"bridge":{"Aliases":["web"],"IPAMConfig":{"IPv4Address":"172.17.0.9"}}}}`)}
	app := &backup.App{Containers: []backup.Container{c}, Networks: []backup.Network{{Name: "front", Settings: json.RawMessage(`{"IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]}}`)}}}
	d := &detail{Containers: []containerPlan{{Was: "web", Name: "new"}}, Networks: []networkPlan{
		{Was: "front", Name: "n_front", Subnet: "10.7.1.0/24", Static: true}, {Was: "back", Name: "back", Static: true}, {Was: "bridge", Name: "bridge", Predefined: true},
	}}
	for _, test := range []struct {
		api         string
		first, more string
	}{
		{
			"1.44",
			`{"back":{"Aliases":["new"],"Links":["db:database"]},"bridge":{},"n_front":{"Aliases":["new","www"],"GwPriority":3,"IPAMConfig":{"IPv4Address":"10.7.1.9"},"MacAddress":"02:00:00:00:00:01"}}`,
			``,
		},
		{
			"1.41",
			`{"n_front":{"Aliases":["new","www"],"GwPriority":3,"IPAMConfig":{"IPv4Address":"10.7.1.9"}}}`,
			`back {"Aliases":["new"],"Links":["db:database"]} bridge {}`,
		},
	} {
		made, err := createBody(&c, &d.Containers[0], &bodyEnv{app: app, d: d, api: test.api})
		if err != nil {
			t.Fatal(err)
		}
		var raw struct {
			MacAddress       string
			NetworkingConfig struct{ EndpointsConfig json.RawMessage }
		}
		if err := json.Unmarshal(made.body, &raw); err != nil {
			t.Fatal(err)
		}
		if got := string(raw.NetworkingConfig.EndpointsConfig); got != test.first || raw.MacAddress != "02:00:00:00:00:01" {
			t.Errorf("API %s: networks\n%s\nwant\n%s", test.api, got, test.first)
		}
		var more []string
		for _, ep := range made.connect {
			text, err := json.Marshal(ep.config)
			if err != nil {
				t.Fatal(err)
			}
			more = append(more, ep.network, string(text))
		}
		if got := strings.Join(more, " "); got != test.more {
			t.Errorf("API %s: connects %s, want %s", test.api, got, test.more)
		}
	}
}

// TestSettingsInAnyCase: an engine takes the names of fields in any case, and the review
// must see what the engine sees.
func TestSettingsInAnyCase(t *testing.T) {
	s, err := readSettings(&backup.Container{Name: "x", Settings: json.RawMessage(`{"Config":{},"HostConfig":{"privileged":true,"BINDS":["/:/host"]}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if string(s.host["Privileged"]) != "true" || s.host["BINDS"] != nil || s.host["Binds"] == nil {
		t.Errorf("settings %v, want the documented names", s.host)
	}
	for _, bad := range []string{
		`{"HostConfig":{"Privileged":false,"privileged":true}}`, `{"Config":{"hostconfig":{"Privileged":true}}}`, `{"Config":{"NETWORKINGCONFIG":{}}}`,
	} {
		if _, err := readSettings(&backup.Container{Name: "x", Settings: json.RawMessage(bad)}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestMoveIP(t *testing.T) {
	for _, test := range []struct{ ip, from, to, want string }{
		{"10.1.0.9", "10.1.0.0/24", "10.7.1.0/24", "10.7.1.9"},
		{"10.1.2.9", "10.1.0.0/16", "10.7.0.0/16", "10.7.2.9"},
		{"10.1.2.9", "10.1.0.0/16", "10.7.1.0/24", ""},
		{"10.1.0.200", "10.1.0.128/25", "10.7.1.0/25", "10.7.1.72"},
		{"fd00::9", "fd00::/64", "fd01::/64", "fd01::9"},
		{"10.1.0.9", "10.2.0.0/24", "10.7.1.0/24", ""},
		{"10.1.0.9", "10.1.0.0/24", "fd01::/64", ""},
	} {
		from, to := prefix(t, test.from), prefix(t, test.to)
		got, ok := moveIP(test.ip, from, to[0])
		if got != test.want && ok || ok != (test.want != "") {
			t.Errorf("moveIP(%s, %s, %s) = %q, %v, want %q", test.ip, test.from, test.to, got, ok, test.want)
		}
	}
}

// FuzzCreate: whatever an archive says of a container, planning and making the request
// end, and a request says nothing that the review has not seen.
func FuzzCreate(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"Config":{"Labels":{"dentropy.host":"a"}},"HostConfig":{"Binds":["a:/b","/c","x:/y:ro"],"Mounts":[{"type":"bind","Source":"/x","Target":"/data"}]},"Networks":{"n":{"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}}`,
		`{"HostConfig":{"privileged":true,"NetworkMode":"container:shop-db-1","PortBindings":{"80/tcp":[{"HostPort":"1-9"}]}}}`,
		`{"Config":{"hostconfig":{"Privileged":true}}}`, `{"HostConfig":{"VolumesFrom":["shop-db-1"],"Links":["/a:/b/c"]},"Networks":{"shop_default":null}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, settings []byte) {
		m, app := archived("")
		app.Containers[1].Settings = settings
		app.Containers[1].Mounts = []backup.Mount{{Volume: "data", Target: "/data"}}
		p, d, err := planRestore(m, app, backup.Answers{}, bare())
		if err != nil {
			return
		}
		for _, api := range []string{"1.41", "1.48"} {
			made, err := createBody(&app.Containers[1], &d.Containers[1], &bodyEnv{app: app, d: d, api: api})
			if err != nil {
				continue
			}
			var b body
			if json.Unmarshal(made.body, &b) != nil {
				continue // an engine would refuse it, too
			}
			kinds := map[string]bool{}
			for _, r := range p.Risks {
				kinds[r.Kind] = kinds[r.Kind] || !r.Allowed
			}
			if b.HostConfig.Privileged && !kinds[riskPrivileged] || b.HostConfig.PidMode == "host" && !kinds[riskPID] || b.HostConfig.NetworkMode == "host" && !kinds[riskNetwork] {
				t.Errorf("the request %s asks for more than the review shows: %+v", made.body, p.Risks)
			}
			var sources []string
			for _, b := range b.HostConfig.Binds {
				if source, _, ok := strings.Cut(b, ":"); ok { // others are anonymous volumes
					sources = append(sources, source)
				}
			}
			for _, mt := range b.HostConfig.Mounts {
				if mt.Type == mount.TypeBind || mt.Type == mount.TypeVolume && mt.Source != "" {
					sources = append(sources, mt.Source)
				}
			}
			for _, s := range sources {
				seen := slices.ContainsFunc(p.Risks, func(r backup.Risk) bool { return strings.Contains(r.Text, path.Clean(s)) })
				if path.IsAbs(s) && !seen || !path.IsAbs(s) && s != "shop_data" {
					t.Errorf("the request %s mounts %q, which the review does not show: %+v", made.body, s, p.Risks)
				}
			}
		}
	})
}
