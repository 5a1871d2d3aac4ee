package dentropycmd

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/backup/docker"
	"github.com/dentropy/dentropycloud/backup/self"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// platformsHere are the engines that `up` would watch, and our own state.
func platformsHere(cmd *cobra.Command, dir string, avoid []string, log *slog.Logger) ([]backup.Platform, error) {
	var endpoints []string
	for _, s := range dockerSetting() {
		endpoints, _ = lookup(cmd.Flags(), s, os.Getenv)
	}
	engines, err := parseEngines(endpoints, os.Getenv)
	if err != nil {
		return nil, err
	}
	var out []backup.Platform
	for _, e := range engines {
		name := "docker"
		if e.Name != "" {
			name += ":" + e.Name
		}
		p, err := docker.New(docker.Options{
			Name: name, Endpoint: e.Endpoint, TLS: dockerengine.TLS{CA: e.CA, Cert: e.Cert, Key: e.Key},
			HelperArgs: helperArgs(), Log: log,
		})
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return append(out, self.New(self.Options{
		Data: dir, Dir: backupDir(dir), Lock: filepath.Join(dir, lockFile), Avoid: avoid,
	})), nil
}

// helperArgs lead to the verb helper in this program, be it called dentropy or caddy. They
// are part of the helper's image, which a running dentropy makes with the same.
func helperArgs() []string { return []string{"dentropy", "helper"} }
