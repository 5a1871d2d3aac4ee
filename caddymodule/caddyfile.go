package caddymodule

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/dentropy/dentropycloud/discovery"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("dentropy", parseGlobal)
	httpcaddyfile.RegisterHandlerDirective("dentropy", parseDirective)
	// discovered hosts first: that lookup does not grow with the number of sites
	httpcaddyfile.RegisterDirectiveOrder("dentropy", httpcaddyfile.Before, "handle")
}

func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Err("the dentropy option stands twice: put everything into one block")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "dentropy", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	dentropy {
//		<source> [<args>…] { … }
//		dialects <name>…
//		claims {
//			<domain>… by <engine|project|namespace|service>:<name>
//		}
//		tls {
//			email <address>
//			ca <directory URL>
//			ca_root <PEM file>
//			issuer <name> <module> [{ … }]
//			local_names <pattern>…
//			linger <duration>
//			budget <certificates per registered domain and week>
//		}
//		hold <duration>|off {
//			queue <requests per route>
//		}
//		drain <duration>
//		owner_grace <duration>
//		allow_upstreams <host|host:port|prefix>…
//		allow_handlers <module ID>…
//		backup [off] { … }
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := a.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) unmarshalOption(d *caddyfile.Dispenser) error {
	switch name := d.Val(); name {
	case "dialects":
		return a.unmarshalDialects(d)
	case "claims":
		return a.unmarshalClaims(d)
	case "tls":
		return a.TLS.unmarshal(d)
	case "hold":
		return a.unmarshalHold(d)
	case "backup":
		if a.Backup != nil {
			return d.Err("backup stands twice: put everything into one block")
		}
		a.Backup = new(Backup)
		return a.Backup.unmarshal(d)
	case "drain":
		return parseDuration(d, &a.Drain)
	case "owner_grace":
		return parseDuration(d, &a.OwnerGrace)
	case "allow_upstreams":
		return parseList(d, &a.AllowUpstreams)
	case "allow_handlers":
		return parseList(d, &a.AllowHandlers)
	default:
		id := "dentropy.sources." + name
		if _, err := caddy.GetModule(id); err != nil {
			return d.Errf("unrecognized option %q", name)
		}
		source, err := caddyfile.UnmarshalModule(d, id)
		if err != nil {
			return err
		}
		a.SourcesRaw = append(a.SourcesRaw, caddyconfig.JSONModuleObject(source, "source", name, nil))
		return nil
	}
}

func (a *App) unmarshalDialects(d *caddyfile.Dispenser) error {
	names := d.RemainingArgs()
	if len(names) == 0 || a.DialectsRaw != nil {
		return d.ArgErr()
	}
	for _, name := range names {
		if _, err := caddy.GetModule("dentropy.dialects." + name); err != nil {
			return d.Errf("dialect %q is not known", name)
		}
		raw, err := json.Marshal(map[string]string{"dialect": name})
		if err != nil {
			return err
		}
		a.DialectsRaw = append(a.DialectsRaw, raw)
	}
	return nil
}

func (a *App) unmarshalClaims(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		words := append([]string{d.Val()}, d.RemainingArgs()...)
		n := len(words)
		if n < 3 || words[n-2] != "by" {
			return d.Err("a claim is written: <domain>… by <engine|project|namespace|service>:<name>")
		}
		claim := discovery.Claim{}
		for _, domain := range words[:n-2] {
			claim.Domains = append(claim.Domains, strings.ToLower(domain))
		}
		kind, name, ok := strings.Cut(words[n-1], ":")
		if !ok || name == "" {
			return d.Errf("%q is not <engine|project|namespace|service>:<name>", words[n-1])
		}
		switch kind {
		case "engine":
			claim.Engine = name
		case "project", "namespace":
			claim.Project = name
		case "service":
			claim.Service = name
		default:
			return d.Errf("unrecognized kind of claim %q: use engine, project, namespace or service", kind)
		}
		a.Claims = append(a.Claims, claim)
	}
	return nil
}

func (a *App) unmarshalHold(d *caddyfile.Dispenser) error {
	if a.Hold != nil || !d.NextArg() {
		return d.ArgErr()
	}
	a.Hold = new(caddy.Duration)
	if d.Val() != "off" {
		dur, err := caddy.ParseDuration(d.Val())
		if err != nil || dur < 0 {
			return d.Errf("bad duration %q", d.Val())
		}
		*a.Hold = caddy.Duration(dur)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() != "queue" {
			return d.Errf("unrecognized option %q", d.Val())
		}
		if err := parseCount(d, &a.HoldQueue); err != nil {
			return err
		}
	}
	return nil
}

func (t *TLS) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "email":
			err = parseText(d, &t.Email)
		case "ca":
			err = parseText(d, &t.CA)
		case "ca_root":
			err = parseText(d, &t.CARoot)
		case "local_names":
			err = parseList(d, &t.LocalNames)
		case "linger":
			err = parseDuration(d, &t.Linger)
		case "budget":
			err = parseCount(d, &t.Budget)
		case "issuer":
			err = t.unmarshalIssuer(d)
		default:
			err = d.Errf("unrecognized option %q", d.Val())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *TLS) unmarshalIssuer(d *caddyfile.Dispenser) error {
	var name, module string
	if !d.Args(&name, &module) {
		return d.ArgErr()
	}
	switch name {
	case "auto", "off", "":
		return d.Errf("an issuer cannot be called %q: the label tls=%s means something else", name, name)
	}
	if _, ok := t.IssuersRaw[name]; ok {
		return d.Errf("issuer %q stands twice", name)
	}
	issuer, err := caddyfile.UnmarshalModule(d, "tls.issuance."+module)
	if err != nil {
		return err
	}
	if t.IssuersRaw == nil {
		t.IssuersRaw = caddy.ModuleMap{}
	}
	t.IssuersRaw[name] = caddyconfig.JSONModuleObject(issuer, "module", module, nil)
	return nil
}

// noOptions parses a module that takes neither arguments nor options.
func noOptions(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(0) {
		return d.Errf("unrecognized option %q", d.Val())
	}
	return nil
}

func parseText(d *caddyfile.Dispenser, out *string) error {
	if *out != "" || !d.Args(out) || d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func parseList(d *caddyfile.Dispenser, out *[]string) error {
	words := d.RemainingArgs()
	if len(words) == 0 {
		return d.ArgErr()
	}
	*out = append(*out, words...)
	return nil
}

func parseCount(d *caddyfile.Dispenser, out *int) error {
	var text string
	if *out != 0 {
		return d.ArgErr()
	}
	if err := parseText(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("%q is not a number above 0", text)
	}
	*out = n
	return nil
}

func parseDuration(d *caddyfile.Dispenser, out *caddy.Duration) error {
	var text string
	if *out != 0 {
		return d.ArgErr()
	}
	if err := parseText(d, &text); err != nil {
		return err
	}
	dur, err := caddy.ParseDuration(text)
	if err != nil || dur < 0 {
		return d.Errf("bad duration %q", text)
	}
	*out = caddy.Duration(dur)
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*App)(nil)
