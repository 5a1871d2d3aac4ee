package docker

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fill sets all that is in v at random.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(r, v.Field(i))
			}
		}
	case reflect.Slice:
		n := 1 + r.IntN(2)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, key)
			fill(r, value)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("%x", r.Uint64()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1 + r.Int64N(100))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1 + r.Uint64N(100))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(r.Float64())
	default:
		panic("do not know how to fill " + v.Type().String())
	}
}

// inspected is what an engine would say of settings, with fields that nobody knows yet.
func inspected(t *testing.T, cfg *container.Config, host *container.HostConfig, nets map[string]*network.EndpointSettings) *rawContainer {
	t.Helper()
	in := container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: strings.Repeat("ab", 32), Name: "/web", HostConfig: host, State: &container.State{Status: "running"}},
		Config:            cfg, NetworkSettings: &container.NetworkSettings{Networks: nets},
	}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Config", "HostConfig"} {
		all[part].(map[string]any)["FromTheFuture"] = map[string]any{"a": []any{1.5, "x"}}
	}
	known, _ := all["NetworkSettings"].(map[string]any)["Networks"].(map[string]any)
	for _, n := range known {
		n.(map[string]any)["FromTheFuture"] = true
	}
	if raw, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	r, err := readContainer(in, raw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// settingsOf are the settings as they are captured.
type settingsOf struct {
	Name       string
	Config     container.Config
	HostConfig container.HostConfig
	Networks   map[string]network.EndpointSettings
}

func same(s string) string { return s }

func TestSettingsHoldEverything(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg, host := new(container.Config), new(container.HostConfig)
		fill(r, reflect.ValueOf(cfg).Elem())
		fill(r, reflect.ValueOf(host).Elem())
		// What an engine never says is no setting.
		want, err := json.Marshal(map[string]any{"Config": cfg, "HostConfig": host})
		if err != nil {
			t.Fatal(err)
		}
		text, err := inspected(t, cfg, host, nil).settings(same, same, "machine")
		if err != nil {
			t.Fatal(err)
		}
		var got, wanted map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(want, &wanted); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"Config", "HostConfig"} {
			have := got[part].(map[string]any)
			if have["FromTheFuture"] == nil {
				t.Errorf("%s lacks a field that is not known here", part)
			}
			delete(have, "FromTheFuture")
			if diff := cmp.Diff(wanted[part], have); diff != "" {
				t.Errorf("%s (-want +got):\n%s", part, diff)
			}
		}
		// and it can be read again as what it was
		var back settingsOf
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*host, back.HostConfig); diff != "" {
			t.Errorf("HostConfig (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(*cfg, back.Config); diff != "" {
			t.Errorf("Config (-want +got):\n%s", diff)
		}
	}
}

func TestSettings(t *testing.T) {
	id := strings.Repeat("ab", 32)
	names := map[string]string{strings.Repeat("cd", 32): "db"}
	nameOf := func(s string) string {
		if n, ok := names[s]; ok {
			return n
		}
		return s
	}
	endpoint := func() map[string]*network.EndpointSettings {
		return map[string]*network.EndpointSettings{"front": {
			IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: "10.0.0.5"}, Aliases: []string{"web", id[:12], "www"}, Links: []string{"db:db"},
			DriverOpts: map[string]string{"k": "v"}, GwPriority: 3,
			NetworkID: "n", EndpointID: "e", Gateway: "g", IPAddress: "10.0.0.5", IPPrefixLen: 24, MacAddress: "02:42:0a:00:00:05", DNSNames: []string{"web"},
		}}
	}
	t.Run("what the engine made up goes", func(t *testing.T) {
		got := read(t, inspected(t, &container.Config{Hostname: id[:12]}, &container.HostConfig{NetworkMode: "front"}, endpoint()), nameOf)
		want := network.EndpointSettings{
			IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: "10.0.0.5"}, Aliases: []string{"web", "www"}, Links: []string{"db:db"},
			DriverOpts: map[string]string{"k": "v"}, GwPriority: 3,
		}
		if diff := cmp.Diff(want, got.Networks["front"], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("network (-want +got):\n%s", diff)
		}
		if got.Config.Hostname != "" {
			t.Errorf("host name %q, want none", got.Config.Hostname)
		}
	})
	t.Run("what the user set stays", func(t *testing.T) {
		cfg := &container.Config{Hostname: "shop", MacAddress: "02:42:0a:00:00:05"}
		got := read(t, inspected(t, cfg, &container.HostConfig{NetworkMode: "front"}, endpoint()), nameOf)
		if got.Config.Hostname != "shop" || got.Networks["front"].MacAddress != "02:42:0a:00:00:05" {
			t.Errorf("host name %q, MAC address %q, want both", got.Config.Hostname, got.Networks["front"].MacAddress)
		}
	})
	t.Run("what is another's goes", func(t *testing.T) {
		var ports container.Config
		if err := json.Unmarshal([]byte(`{"ExposedPorts":{"80/tcp":{}}}`), &ports); err != nil {
			t.Fatal(err)
		}
		got := read(t, inspected(t, &container.Config{Hostname: "db", Domainname: "lan", ExposedPorts: ports.ExposedPorts}, &container.HostConfig{NetworkMode: "container:db"}, nil), nameOf)
		if got.Config.Hostname != "" || got.Config.Domainname != "" || got.Config.ExposedPorts != nil {
			t.Errorf("config %+v, want neither names nor ports of the other container", got.Config)
		}
		got = read(t, inspected(t, &container.Config{Hostname: "machine", ExposedPorts: ports.ExposedPorts}, &container.HostConfig{NetworkMode: "host"}, nil), nameOf)
		if got.Config.Hostname != "" || got.Config.ExposedPorts == nil {
			t.Errorf("config %+v, want the ports, and not the name of the machine", got.Config)
		}
	})
	t.Run("ids become names", func(t *testing.T) {
		other := strings.Repeat("cd", 32)
		host := &container.HostConfig{
			NetworkMode: container.NetworkMode("container:" + other), PidMode: container.PidMode("container:" + other),
			IpcMode: container.IpcMode("container:" + other), VolumesFrom: []string{other + ":ro", "cache"},
		}
		r := inspected(t, &container.Config{}, host, nil)
		if got, want := strings.Join(r.users(), " "), strings.Join([]string{other, other, other, other, "cache"}, " "); got != want {
			t.Errorf("uses %s, want %s", got, want)
		}
		got := read(t, r, nameOf)
		want := container.HostConfig{NetworkMode: "container:db", PidMode: "container:db", IpcMode: "container:db", VolumesFrom: []string{"db:ro", "cache"}}
		if diff := cmp.Diff(want, got.HostConfig); diff != "" {
			t.Errorf("HostConfig (-want +got):\n%s", diff)
		}
	})
}

func read(t *testing.T, r *rawContainer, nameOf func(string) string) settingsOf {
	t.Helper()
	text, err := r.settings(nameOf, same, "machine")
	if err != nil {
		t.Fatal(err)
	}
	var got settingsOf
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return got
}
