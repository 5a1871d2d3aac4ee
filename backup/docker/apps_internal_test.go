package docker

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
)

func TestGroupApps(t *testing.T) {
	list := []container.Summary{
		{ID: "1", Names: []string{"/shop-web-1"}, Labels: map[string]string{labelProject: "shop"}},
		{ID: "2", Names: []string{"/shop-db-1", "/shop-web-1/db"}, Labels: map[string]string{labelProject: "shop"}},
		{ID: "3", Names: []string{"/shop-run"}, Labels: map[string]string{labelProject: "shop", labelOneoff: "True"}},
		{ID: "4", Names: []string{"/x-1"}, Labels: map[string]string{labelProject: "x", labelApp: "mail"}},
		{ID: "5", Names: []string{"/y"}, Labels: map[string]string{labelApp: " mail "}},
		{ID: "6", Names: []string{"/alone"}},
		{ID: "7", Names: []string{"/shop"}},
		{ID: "8", Names: []string{"/dentropy-1-read"}, Labels: map[string]string{labelRole: roleHelper, labelJob: "1"}},
		{ID: "9", Names: []string{"/k8s"}, Labels: map[string]string{labelKubernetesType: "container"}},
		{ID: "10", Names: []string{"/odd"}, Labels: map[string]string{labelApp: "../etc"}},
		{ID: "11", Names: nil}, // it is being removed
	}
	want := []string{
		"alone container alone", "container:shop container shop", "mail group x-1,y", "odd container odd", "shop compose shop-db-1,shop-web-1",
	}
	var got []string
	for _, g := range groupApps(list) {
		var names []string
		for _, m := range g.members {
			names = append(names, containerName(m))
		}
		got = append(got, g.name+" "+g.kind+" "+strings.Join(names, ","))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("apps:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMarkSelf(t *testing.T) {
	us, vpn, other := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	make := func() []group {
		me := container.Summary{ID: us, Names: []string{"/dentropy"}}
		me.HostConfig.NetworkMode = "container:" + vpn
		return []group{
			{name: "proxy", members: []container.Summary{me}},
			{name: "vpn", members: []container.Summary{{ID: vpn, Names: []string{"/vpn"}}}},
			{name: "other", members: []container.Summary{{ID: other, Names: []string{"/other"}}}},
		}
	}
	for _, tt := range []struct {
		name string
		own  []string
		want string
	}{{"outside", nil, ""}, {"by its id", []string{us}, "proxy vpn"}, {"by its host name", []string{"ffffffffffff", us[:12]}, "proxy vpn"}, {"of another engine", []string{strings.Repeat("d", 64)}, ""}} {
		groups := make()
		markSelf(groups, tt.own)
		var got []string
		for _, g := range groups {
			if g.self {
				got = append(got, g.name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v are ours, want %q", tt.name, got, tt.want)
		}
	}
}
