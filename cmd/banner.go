package dentropycmd

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// banner says what is served where, for the person who has just started it.
func banner(w io.Writer, o Options, file configFile, s *sockets) {
	line := func(what, value string) { _, _ = fmt.Fprintf(w, "  %-9s %s\n", what, clean(value)) }
	_, _ = fmt.Fprintf(w, "%s is up\n", versionText())
	line("http", joinListeners(s.bind, o.HTTPPort))
	line("https", joinListeners(s.bind, o.HTTPSPort)+" (HTTP/1.1, HTTP/2, HTTP/3)")
	for _, e := range o.Engines {
		what := e.Endpoint
		if e.Name != "" {
			what = e.Name + " at " + e.Endpoint
		}
		line("docker", what)
	}
	if adminOn(file.cfg) {
		line("admin", showAdmin(o.Admin))
	} else {
		line("admin", "off, as "+o.Config+" says")
	}
	line("data", o.DataDir)
	if root := storageRoot(o, file.cfg); root != "" {
		line("local CA", filepath.Join(root, "pki", "authorities", "local", "root.crt"))
	}
	if o.Config != "" {
		line("config", o.Config)
	}
	_, _ = fmt.Fprintf(w, "Next: %[1]s routes · %[1]s why HOST · %[1]s events · %[1]s --help\n", verbPrefix())
}

// storageRoot is the folder of the storage, "" where the file chose one that is no
// folder.
func storageRoot(o Options, cfg obj) string {
	st, ok := cfg["storage"].(obj)
	if !ok {
		return o.DataDir
	}
	root, _ := st["root"].(string)
	if st["module"] != "file_system" {
		return ""
	}
	return root
}

func joinListeners(binds []string, port int) string {
	var out []string
	for _, b := range binds {
		out = append(out, listenerAddress(b, port))
	}
	return strings.Join(out, ", ")
}
