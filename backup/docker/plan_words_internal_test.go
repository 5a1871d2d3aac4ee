package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// conflictOf gives the conflict of a kind.
func conflictOf(t *testing.T, p *backup.Plan, kind string) backup.Conflict {
	t.Helper()
	for _, c := range p.Conflicts {
		if c.Kind == kind {
			return c
		}
	}
	t.Fatalf("there is no conflict of kind %q: %+v", kind, p.Conflicts)
	return backup.Conflict{}
}

// TestPlanHosts: a host has one owner.
func TestPlanHosts(t *testing.T) {
	served := func(edit func(*contFact)) *facts {
		f := bare()
		c := contFact{id: "9", name: "bank-web-1", app: "bank", running: true}
		c.hosts, c.native = hostsIn(&backup.Container{Name: c.name}, map[string]string{"dentropy.host": "bank.example.com, Shop.example.com", "dentropy.path": "/bank"})
		if edit != nil {
			edit(&c)
		}
		f.containers = []contFact{c}
		return f
	}
	route := func(a backup.RouteAnswer) map[string]backup.RouteAnswer {
		return map[string]backup.RouteAnswer{"web": a}
	}
	for _, test := range []struct {
		name    string
		facts   *facts
		answers backup.Answers
		open    string
		warning string
	}{
		{name: "of another app", facts: served(nil), open: "host shop.example.com"},
		{name: "of another app, whatever is to be done", facts: served(nil), answers: backup.Answers{OnConflict: "rename"}, open: "host shop.example.com"},
		{name: "of another app, answered", facts: served(nil), answers: backup.Answers{Routes: route(backup.RouteAnswer{Host: "b.example.com"})}},
		{name: "of another app, shared", facts: served(nil), answers: backup.Answers{Routes: route(backup.RouteAnswer{Host: "shop.example.com"})}},
		{name: "of another app, only the path answered", facts: served(nil), answers: backup.Answers{Routes: route(backup.RouteAnswer{Path: "/x"})}, open: "host shop.example.com"},
		{name: "of another app, without a route", facts: served(nil), answers: backup.Answers{Routes: route(backup.RouteAnswer{None: true})}},
		{name: "of another app, not started", facts: served(nil), answers: backup.Answers{NoStart: true}, warning: "bank-web-1 of bank"},
		{name: "of another proxy's labels", facts: served(func(c *contFact) { c.native = nil }), warning: "bank-web-1 of bank"},
		{name: "of one that does not run", facts: served(func(c *contFact) { c.hosts, c.native = nil, nil })},
		{name: "of the copy that is here, under another name", facts: func() *facts {
			f := there()
			f.containers[1].hosts, f.containers[1].native = []string{"shop.example.com"}, []string{"shop.example.com"}
			return f
		}(), answers: backup.Answers{Name: "test", Ports: map[string]string{"web:80": "auto"}, Networks: map[string]backup.NetworkAnswer{"shop_default": {Subnet: "auto"}}}, open: "host shop.example.com"},
		{name: "of the set that is replaced", facts: func() *facts {
			f := there()
			f.containers[1].hosts, f.containers[1].native = []string{"shop.example.com"}, []string{"shop.example.com"}
			return f
		}(), answers: backup.Answers{OnConflict: "replace"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, app := archived("")
			p, _, err := planRestore(m, app, test.answers, test.facts)
			if err != nil {
				t.Fatal(err)
			}
			if got := open(p); got != test.open {
				t.Errorf("open are %q, want %q (%+v)", got, test.open, p.Conflicts)
			}
			if got := strings.Join(p.Warnings, "\n"); !strings.Contains(got, test.warning) || test.warning == "" && strings.Contains(got, "asked for") {
				t.Errorf("warnings %q, want %q in them", got, test.warning)
			}
			if test.open == "" {
				return
			}
			c := conflictOf(t, p, "host")
			if want := []string{"--route web=HOST", "--route web=none"}; !slices.Equal(c.Choices, want) || !strings.Contains(c.Text, "-web-1 of ") {
				t.Errorf("conflict %+v, want the choices %v and the container", c, want)
			}
		})
	}
}

func TestHostsIn(t *testing.T) {
	for _, test := range []struct {
		labels        map[string]string
		hosts, native string
	}{
		{map[string]string{"dentropy.host": "a,b", "Dentropy.api.Host": "C"}, "[a b c]", "[a b c]"},
		{map[string]string{"dentropy.host": "a", "dentropy.enable": "false"}, "[]", "[]"},
		{map[string]string{"traefik.http.routers.a.rule": "Host(`a`)"}, "[a]", "[]"},
		{nil, "[]", "[]"},
	} {
		hosts, native := hostsIn(&backup.Container{Name: "x"}, test.labels)
		if fmt.Sprint(hosts) != test.hosts || fmt.Sprint(native) != test.native {
			t.Errorf("hostsIn(%v) = %v, %v, want %s, %s", test.labels, hosts, native, test.hosts, test.native)
		}
	}
}

// TestPlanPortOfReplaced: who has a port is named, and what can be done about it.
func TestPlanPortOfReplaced(t *testing.T) {
	m, app := archived("")
	p, _, err := planRestore(m, app, backup.Answers{}, there())
	if err != nil {
		t.Fatal(err)
	}
	c := conflictOf(t, p, "port")
	if !strings.Contains(c.Text, "the container shop-web-1 of shop") || !slices.Contains(c.Choices, "--on-conflict replace") {
		t.Errorf("conflict %+v, want the container named, and replace among the choices", c)
	}
	f := bare()
	f.containers = []contFact{{id: "9", name: "x", app: "bank", ports: []portFact{{"", 8080, "tcp"}}}}
	if p, _, err = planRestore(m, app, backup.Answers{}, f); err != nil {
		t.Fatal(err)
	}
	if c := conflictOf(t, p, "port"); slices.Contains(c.Choices, "--on-conflict replace") || !strings.Contains(c.Text, "x of bank") {
		t.Errorf("conflict %+v: another app's port is not freed by replacing ours", c)
	}
}

// TestPlanBaseOfLayer: compose looks for the image that its file names.
func TestPlanBaseOfLayer(t *testing.T) {
	const layer = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	for _, inside := range []bool{true, false} {
		m, app := archived("")
		app.Containers = app.Containers[1:]
		app.Containers[0].Layer = backup.Layer{Include: true, ImageID: layer}
		app.Images[0].Include = inside
		app.Images = append(app.Images, backup.Image{ID: layer, Refs: []string{"dentropy-layer:x"}, Include: true})
		_, d, err := planRestore(m, app, backup.Answers{}, bare())
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint([]imagePlan{{ID: layer, How: imageInside}, {ID: imageA, How: imageInside, Refs: []string{"postgres:17"}, Size: 1000}})
		if !inside {
			want = fmt.Sprint([]imagePlan{{ID: layer, How: imageInside}})
		}
		if got := fmt.Sprint(d.Images); got != want || d.Containers[0].Image != layer {
			t.Errorf("base inside %v: images %s for a container of %s, want %s", inside, got, d.Containers[0].Image, want)
		}
	}
}

func TestRisksOfDefaults(t *testing.T) {
	for _, test := range []struct {
		host  string
		first bool // the engine has the first version of cgroups
		kinds string
	}{
		{`"CgroupnsMode":"host"`, true, "host-path"},
		{`"CgroupnsMode":"host"`, false, "cgroup host-path"},
		{`"Privileged":true,"SecurityOpt":["label=disable"]`, false, "host-path privileged"},
		{`"SecurityOpt":["label=disable"]`, false, "host-path security-opt"},
	} {
		m, app := archived("")
		app.Containers[1].Settings = json.RawMessage(`{"Config":{},"HostConfig":{` + test.host + `},"Networks":{}}`)
		f := bare()
		f.hostCgroups = test.first
		p, _, err := planRestore(m, app, backup.Answers{}, f)
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]bool{}
		for _, r := range p.Risks {
			kinds[r.Kind] = true
		}
		if got := strings.Join(sortedKeys(kinds), " "); got != test.kinds {
			t.Errorf("%s, cgroup v1 %v: risks %q, want %q", test.host, test.first, got, test.kinds)
		}
	}
}

// TestPlanProbe: a plan promises only what is done.
func TestPlanProbe(t *testing.T) {
	for _, a := range []backup.Answers{{}, {NoProbe: true}, {NoStart: true}} {
		m, app := archived("")
		p, _, err := planRestore(m, app, a, bare())
		if err != nil {
			t.Fatal(err)
		}
		promised := strings.Contains(strings.Join(p.Steps, "\n"), "until it answers")
		if promised == (a.NoProbe || a.NoStart) {
			t.Errorf("answers %+v: steps %q", a, p.Steps)
		}
	}
}

func TestComposeCommand(t *testing.T) {
	app := &backup.App{Project: &backup.Project{Name: "shop", ConfigFiles: []string{"/srv/my shop/compose.yaml", "/etc/shop's.yaml", "/srv/my shop/" + overrideFile}}}
	d := &detail{OldDir: "/srv/my shop", Dir: "/srv/shop 2", Project: "shop2"}
	want := `docker compose -p shop2 -f '/srv/shop 2/compose.yaml' -f '/etc/shop'\''s.yaml' -f '/srv/shop 2/compose.dentropy.yaml'`
	if got := composeCommand(app, d); got != want {
		t.Errorf("composeCommand() = %s, want %s", got, want)
	}
	d.Dir, d.OldDir = "/srv/x", "/srv/x"
	if got, want := composeCommand(&backup.App{}, d), "docker compose -p shop2 -f /srv/x/compose.yaml -f /srv/x/compose.dentropy.yaml"; got != want {
		t.Errorf("composeCommand() = %s, want %s", got, want)
	}
}

// TestLeftovers: what is in use is never called something to be removed.
func TestLeftovers(t *testing.T) {
	for _, test := range []struct {
		name        string
		d           undoDetail
		aside, left string
	}{
		{name: "nothing"},
		{
			name:  "volumes",
			d:     undoDetail{Swaps: []swapped{{Final: "data", Keep: "data.pre-restore-1"}}, Volumes: []string{"data.pre-restore-1", "new"}},
			aside: "[the volume data.pre-restore-1]", left: "[the volume new]",
		},
		{
			name: "a folder that files were added to, and folders in it",
			d: undoDetail{Paths: []pathMove{
				{Path: "/srv/shop", Base: "/srv", Rel: "shop", Merge: true, Steps: []mergeStep{{Path: "x"}}},
				{Path: "/srv/shop/conf", Base: "/srv", Rel: "shop/conf", Keep: "shop/conf.pre-restore-1", OldInode: 7},
				{Path: "/srv/shop/new", Base: "/srv", Rel: "shop/new"},
			}},
			aside: "[/srv/shop/conf.pre-restore-1]", left: "[the files added to /srv/shop /srv/shop/new]",
		},
		{
			name: "a folder that files were exchanged in",
			d: undoDetail{Paths: []pathMove{
				{Path: "/srv/shop", Base: "/srv", Rel: "shop", Merge: true, Keep: "shop.pre-restore-1", Steps: []mergeStep{{Path: "x", There: true}}},
			}},
			aside: "[/srv/shop.pre-restore-1]",
		},
		{
			name: "a folder that only the adapted file was added to",
			d:    undoDetail{Paths: []pathMove{{Path: "/srv/shop", Base: "/srv", Rel: "shop", Merge: true, Steps: []mergeStep{{Path: overrideFile}}}}},
		},
		{
			name: "a new folder, and folders in it",
			d:    undoDetail{Paths: []pathMove{{Path: "/srv/shop", Base: "/srv", Rel: "shop"}, {Path: "/srv/shop/conf", Base: "/srv", Rel: "shop/conf"}}},
			left: "[/srv/shop]",
		},
	} {
		aside, left := test.d.leftovers()
		if a, l := fmt.Sprint(aside), fmt.Sprint(left); strings.Trim(a, "[]") != strings.Trim(test.aside, "[]") || strings.Trim(l, "[]") != strings.Trim(test.left, "[]") {
			t.Errorf("%s: leftovers() = %s, %s, want %s, %s", test.name, a, l, test.aside, test.left)
		}
	}
}

func TestLayerMatters(t *testing.T) {
	none, some := int64(0), int64(1)
	for _, test := range []struct {
		paths   []string
		added   bool
		written *int64
		want    bool
	}{
		{nil, true, &some, false},
		{[]string{"/var/lib/x"}, true, &none, false},
		{[]string{"/var/lib/x"}, true, &some, true},
		{[]string{"/var/lib/x"}, true, nil, true},
		{[]string{"/etc/passwd"}, false, &none, true},
	} {
		if got := layerMatters(test.paths, test.added, test.written); got != test.want {
			t.Errorf("layerMatters(%v, %v, %v) = %v", test.paths, test.added, test.written, got)
		}
	}
}

func TestAsBefore(t *testing.T) {
	problem := &backup.Problem{Message: "web is unhealthy", Hint: "--no-start", Object: "web", Err: fs.ErrClosed}
	for _, err := range []error{problem, fmt.Errorf("start: %w", problem)} {
		got := asBefore(err)
		if !strings.HasSuffix(got.Error(), "; everything is as it was before") || backup.HintOf(got) != "--no-start" || !errors.Is(got, fs.ErrClosed) {
			t.Errorf("asBefore(%v) = %v, hint %q", err, got, backup.HintOf(got))
		}
	}
	if problem.Message != "web is unhealthy" {
		t.Error("the error itself was changed")
	}
}

func TestNotConnected(t *testing.T) {
	p, err := New(Options{Endpoint: "unix:///run/x.sock"})
	if err != nil {
		t.Fatal(err)
	}
	got := p.notConnected(fmt.Errorf("dial unix /run/x.sock: connect: %w", fs.ErrPermission))
	if strings.Count(got.Error(), "/run/x.sock") != 1 || !strings.Contains(backup.HintOf(got), "group") || gone(got) {
		t.Errorf("notConnected() = %v, hint %q", got, backup.HintOf(got))
	}
}

// TestMountFailed: what an engine says of a mount holds its options, and those a password.
func TestMountFailed(t *testing.T) {
	p, err := New(Options{Endpoint: "unix:///run/x.sock"})
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Errorf("error while mounting volume '/var/lib/docker/volumes/nfsv/_data': failed to mount local volume: mount tmpfs:/x, data: size=1m,password=sek: rit,uid=1000: %w", fs.ErrInvalid)
	got := p.failed("start helper", said)
	if strings.Contains(got.Error(), "sek") || strings.Contains(got.Error(), "rit") || !errors.Is(got, fs.ErrInvalid) {
		t.Errorf("failed() = %v, want it without the options, and still what it was", got)
	}
	problem := notMounted(got)
	if want := "the volume nfsv cannot be mounted: invalid argument"; problem.Error() != want || !strings.Contains(backup.HintOf(problem), "--exclude nfsv ") {
		t.Errorf("notMounted() = %v, hint %q, want %q", problem, backup.HintOf(problem), want)
	}
	if got := p.failed("make volume", errors.New(`plugin: bad options password=sekrit,o=x Token="a"`)); strings.Contains(got.Error(), "sekrit") {
		t.Errorf("failed() = %v, want no secret in it", got)
	}
	if got := p.failed("x", fs.ErrExist); !strings.HasSuffix(got.Error(), fs.ErrExist.Error()) {
		t.Errorf("failed() = %v", got)
	}
}
