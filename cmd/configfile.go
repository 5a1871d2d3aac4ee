package dentropycmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// configFile is what --config holds.
type configFile struct {
	// cfg is the JSON configuration that it adapts to; nil without a file.
	cfg      obj
	warnings []string
}

// readConfig reads the Caddyfile (or the JSON file, where the name says so) of o,
// and completes o with what it says; flags and environment beat it.
func readConfig(o Options) (configFile, Options, error) {
	if o.Config == "" {
		return configFile{}, o, nil
	}
	body, err := os.ReadFile(o.Config)
	if err != nil {
		return configFile{}, o, fmt.Errorf("%s: %w", o.origin("config"), err)
	}
	f := configFile{}
	if strings.EqualFold(filepath.Ext(o.Config), ".json") {
		f.cfg, err = decode(body)
	} else {
		f, o, err = readCaddyfile(o, body)
	}
	if err != nil {
		// Caddy's own messages begin with file and line in most cases.
		if !strings.HasPrefix(err.Error(), o.Config) {
			err = fmt.Errorf("%s: %w", o.Config, err)
		}
		return f, o, fmt.Errorf("%s: %w", o.origin("config"), err)
	}
	o, err = o.withConfig(f.cfg)
	return f, o, err
}

// readCaddyfile adapts a Caddyfile as if its global options said what the flags
// say: where a site listens follows from both.
func readCaddyfile(o Options, body []byte) (configFile, Options, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		// Half-written, rather than meant: Caddy refuses it too, with "EOF".
		return configFile{}, o, errors.New("the file is empty")
	}
	blocks, err := caddyfile.Parse(o.Config, body)
	if err != nil {
		return configFile{}, o, err
	}
	if len(blocks) == 0 || len(blocks[0].Keys) > 0 || blocks[0].IsNamedRoute {
		blocks = slices.Insert(blocks, 0, caddyfile.ServerBlock{HasBraces: true})
	}
	global := &blocks[0]
	if err := o.withGlobal(global.Segments); err != nil {
		return configFile{}, o, err
	}
	for name, values := range map[string][]string{
		"http_port":    {strconv.Itoa(o.HTTPPort)},
		"https_port":   {strconv.Itoa(o.HTTPSPort)},
		"default_bind": o.Bind,
		"email":        notEmpty(o.Email),
		"acme_ca":      notEmpty(o.ACMECA),
		"acme_ca_root": notEmpty(o.ACMECARoot),
	} {
		if o.given[globalNames[name]] != "" {
			global.Segments = replaceOption(global.Segments, name, values)
		}
	}
	cfg, warnings, err := httpcaddyfile.ServerType{}.Setup(blocks, map[string]any{})
	if err != nil {
		return configFile{}, o, err
	}
	f := configFile{}
	for _, w := range warnings {
		f.warnings = append(f.warnings, fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Message))
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return f, o, fmt.Errorf("encode configuration: %w", err)
	}
	f.cfg, err = decode(raw)
	return f, o, err
}

// globalNames maps the global options of a Caddyfile that concern us to our
// settings.
var globalNames = map[string]string{
	"http_port": "http-port", "https_port": "https-port", "default_bind": "bind",
	"email": "email", "acme_ca": "acme-ca", "acme_ca_root": "acme-ca-root",
}

// withGlobal takes over the global options that hold for discovered names as well:
// the adapted JSON shows them only where some static site uses them.
func (o *Options) withGlobal(segments []caddyfile.Segment) error {
	for _, segment := range segments {
		setting := globalNames[segment.Directive()]
		if setting == "" || o.given[setting] != "" {
			continue
		}
		var args []string
		for _, token := range segment[1:] {
			if token.Text == "{" {
				break
			}
			args = append(args, token.Text)
		}
		if len(args) == 0 {
			continue // Caddy says what is missing
		}
		var err error
		switch setting {
		case "http-port":
			o.HTTPPort, err = strconv.Atoi(args[0])
		case "https-port":
			o.HTTPSPort, err = strconv.Atoi(args[0])
		case "bind":
			o.Bind, err = parseBind(append(slices.Clone(o.Bind), args...))
		case "email":
			o.Email = args[0]
		case "acme-ca":
			o.ACMECA = args[0]
		case "acme-ca-root":
			o.ACMECARoot, err = filepath.Abs(args[0])
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", segment[0].File, segment[0].Line, segment.Directive(), err)
		}
	}
	return nil
}

// withConfig completes o with what stands in a JSON configuration, adapted or not.
func (o Options) withConfig(cfg obj) (Options, error) {
	apps, _ := cfg["apps"].(obj)
	http, _ := apps["http"].(obj)
	for _, p := range []struct {
		name, key string
		to        *int
	}{{"http-port", "http_port", &o.HTTPPort}, {"https-port", "https_port", &o.HTTPSPort}} {
		if n := number(http[p.key]); n != 0 && o.given[p.name] == "" {
			*p.to = n
		}
	}
	admin, _ := cfg["admin"].(obj)
	if listen, _ := admin["listen"].(string); listen != "" && o.given["admin"] == "" {
		addr, err := parseAdmin(listen)
		if err != nil {
			return o, fmt.Errorf("admin %q in %s: %w", listen, o.Config, err)
		}
		o.Admin = addr
	}
	return o, o.checkPorts()
}

// replaceOption puts one global option in the place of all of its name; without
// values there is none.
func replaceOption(segments []caddyfile.Segment, name string, values []string) []caddyfile.Segment {
	segments = slices.DeleteFunc(slices.Clone(segments), func(s caddyfile.Segment) bool { return s.Directive() == name })
	if len(values) == 0 {
		return segments
	}
	// All on one line: that is how Caddy knows that they belong together.
	segment := caddyfile.Segment{{File: "command line", Line: 1, Text: name}}
	for _, v := range values {
		segment = append(segment, caddyfile.Token{File: "command line", Line: 1, Text: v})
	}
	return append(segments, segment)
}

func notEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
