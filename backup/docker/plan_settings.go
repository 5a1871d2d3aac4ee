package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/dentropy/dentropycloud/backup"
)

// object is a JSON object whose values stay as they came.
type object map[string]json.RawMessage

// settings are the settings of a container as an engine gave them.
type settings struct {
	config, host object
	// networks by name: what the container asks of each.
	networks map[string]object
}

// readSettings reads the settings of a captured container. They are untrusted. An engine
// takes the names of fields in any case; here each has the one that is documented, so
// that none escapes the review, and none is there twice.
func readSettings(c *backup.Container) (*settings, error) {
	var raw struct {
		Config     object
		HostConfig object
		Networks   map[string]object
	}
	if len(c.Settings) == 0 {
		return nil, fmt.Errorf("settings of container %q: there are none", c.Name)
	}
	if err := json.Unmarshal(c.Settings, &raw); err != nil {
		return nil, fmt.Errorf("settings of container %q: %w", c.Name, err)
	}
	s := &settings{networks: make(map[string]object, len(raw.Networks))}
	var err error
	if s.config, err = canonical(raw.Config, fieldNames[container.Config]()); err != nil {
		return nil, fmt.Errorf("settings of container %q: %w", c.Name, err)
	}
	config, host := fieldNames[container.Config](), fieldNames[container.HostConfig]()
	for k := range s.config {
		// A request holds them beside the fields of Config, where an engine would find these;
		// old ones take some fields of HostConfig there as well.
		low := strings.ToLower(k)
		if low == "hostconfig" || low == "networkingconfig" || host[low] != "" && config[low] == "" {
			return nil, fmt.Errorf("settings of container %q: Config holds %q", c.Name, k)
		}
	}
	if s.host, err = canonical(raw.HostConfig, fieldNames[container.HostConfig]()); err != nil {
		return nil, fmt.Errorf("settings of container %q: %w", c.Name, err)
	}
	for name, ep := range raw.Networks {
		if s.networks[name], err = canonical(ep, fieldNames[network.EndpointSettings]()); err != nil {
			return nil, fmt.Errorf("settings of container %q: network %q: %w", c.Name, name, err)
		}
	}
	return s, nil
}

// typed gives HostConfig as an engine of the API that we know reads it, where Config can be
// read as well.
func (s *settings) typed() (*container.HostConfig, error) {
	var c container.Config
	var h container.HostConfig
	if err := s.config.into(&c); err != nil {
		return nil, fmt.Errorf("read Config: %w", err)
	}
	if err := s.host.into(&h); err != nil {
		return nil, fmt.Errorf("read HostConfig: %w", err)
	}
	return &h, nil
}

// unknown lists fields that this program does not know and that are set.
func (s *settings) unknown() []string {
	var out []string
	look := func(o object, known map[string]string, where string) {
		for _, k := range sortedKeys(o) {
			if known[strings.ToLower(k)] == "" && !emptyJSON(o[k]) {
				out = append(out, where+k)
			}
		}
	}
	look(s.config, fieldNames[container.Config](), "Config.")
	look(s.host, fieldNames[container.HostConfig](), "HostConfig.")
	return out
}

// emptyJSON reports values that say nothing.
func emptyJSON(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", "0", `""`, "[]", "{}":
		return true
	}
	return false
}

// canonical gives known fields the names that they are documented with.
func canonical(o object, known map[string]string) (object, error) {
	out := make(object, len(o))
	seen := make(map[string]string, len(o))
	for _, k := range sortedKeys(o) {
		if strings.ContainsFunc(k, func(r rune) bool { return r >= utf8.RuneSelf }) {
			return nil, fmt.Errorf("field %q is in other letters", k) // some decoders take ſ for s
		}
		low := strings.ToLower(k)
		if other, ok := seen[low]; ok {
			return nil, fmt.Errorf("fields %q and %q are the same", other, k)
		}
		seen[low] = k
		name := k
		if n := known[low]; n != "" {
			name = n
		}
		out[name] = o[k]
	}
	return out, nil
}

// fieldNames gives the names of the fields of T in JSON, by the same in lower case.
func fieldNames[T any]() map[string]string {
	m := map[string]string{}
	addFieldNames(reflect.TypeFor[T](), m)
	return m
}

func addFieldNames(t reflect.Type, to map[string]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			addFieldNames(f.Type, to)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		to[strings.ToLower(name)] = name
	}
}

// into decodes the object into a typed one.
func (o object) into(v any) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// get decodes one field; a missing one leaves v as it is.
func (o object) get(key string, v any) error {
	raw, ok := o[key]
	if !ok || emptyNull(raw) {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("field %s: %w", key, err)
	}
	return nil
}

func emptyNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// set sets one field.
func (o object) set(key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("field %s: %w", key, err)
	}
	o[key] = raw
	return nil
}

// text gives a field that is a string, "" for any other.
func (o object) text(key string) string {
	var s string
	if json.Unmarshal(o[key], &s) != nil {
		return ""
	}
	return s
}

// clone copies the object; values are shared, and never changed in place.
func (o object) clone() object {
	out := make(object, len(o))
	for k, v := range o {
		out[k] = v
	}
	return out
}

func (s *settings) clone() *settings {
	out := &settings{config: s.config.clone(), host: s.host.clone(), networks: make(map[string]object, len(s.networks))}
	for k, v := range s.networks {
		out.networks[k] = v.clone()
	}
	return out
}

// labels are the container's labels.
func (s *settings) labels() (map[string]string, error) {
	labels := map[string]string{}
	err := s.config.get("Labels", &labels)
	return labels, err
}

// errNotOurs says that settings are in the words of another platform.
var errNotOurs = errors.New("the archive is not of a docker engine")
