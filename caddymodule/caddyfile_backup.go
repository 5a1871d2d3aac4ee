package caddymodule

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// unmarshal sets up backups from Caddyfile tokens. Syntax:
//
//	backup [off] {
//		dir <folder>
//		store <name> <folder>
//		store <name> <module> { … }
//		platform <module> [<args>…] { … }
//		recipient <age1…|ssh-ed25519 …>…
//		transit_volume <name>
//		helper <file>
//		health_timeout <duration>
//	}
func (b *Backup) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		if d.Val() != "off" {
			return d.Errf("unrecognized argument %q: backup takes off, or a block", d.Val())
		}
		b.Off = true
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); name {
		case "dir":
			err = parseText(d, &b.Dir)
		case "transit_volume":
			err = parseText(d, &b.TransitVolume)
		case "helper":
			err = parseText(d, &b.Helper)
		case "health_timeout":
			err = parseDuration(d, &b.HealthTimeout)
		case "recipient", "recipients":
			err = parseList(d, &b.Recipients)
		case "store":
			err = b.unmarshalStore(d)
		case "platform":
			err = b.unmarshalPlatform(d)
		case "off":
			b.Off = true
			if d.NextArg() {
				err = d.ArgErr()
			}
		default:
			err = d.Errf("unrecognized option %q", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalStore parses a store: a folder, or a module with its options.
func (b *Backup) unmarshalStore(d *caddyfile.Dispenser) error {
	var name, where string
	if !d.Args(&name, &where) {
		return d.ArgErr()
	}
	if !plainName(name) {
		return d.Errf("a store cannot be called %q: use lower-case letters, digits, dots, dashes and underscores", name)
	}
	if b.Stores[name] != nil {
		return d.Errf("store %q stands twice", name)
	}
	if b.Stores == nil {
		b.Stores = map[string]json.RawMessage{}
	}
	id := "dentropy.stores." + where
	if _, err := caddy.GetModule(id); err == nil {
		store, err := caddyfile.UnmarshalModule(d, id)
		if err != nil {
			return err
		}
		b.Stores[name] = caddyconfig.JSONModuleObject(store, "store", where, nil)
		return nil
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	raw, err := json.Marshal(map[string]string{"store": "local", "dir": where})
	b.Stores[name] = raw
	return err
}

// plainName reports whether a name can stand in a path of the API as it is.
func plainName(name string) bool {
	if name == "" {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_' {
			return false
		}
	}
	return name[0] != '.'
}

func (b *Backup) unmarshalPlatform(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	id := "dentropy.platforms." + name
	if _, err := caddy.GetModule(id); err != nil {
		return d.Errf("platform %q is not known", name)
	}
	p, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return err
	}
	b.PlatformsRaw = append(b.PlatformsRaw, caddyconfig.JSONModuleObject(p, "platform", name, nil))
	return nil
}
