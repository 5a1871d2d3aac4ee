package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// The images of the applications that are backed up. Nobody can pull them again, so
// they travel in the archive.
const (
	postgresImage = "e2e-postgres:15"
	redisImage    = "e2e-redis:7"
	nginxImage    = "e2e-nginx:1.22"
	shopImage     = "e2e-shop:1"
	treeImage     = "e2e-tree:1" // scratch: apps tree
)

var dockerfiles = []struct{ ref, text string }{
	{"e2e-debian:2", "FROM e2e-debian:1\nCOPY apps /apps\nENV PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
	{postgresImage, "FROM e2e-debian:2\nENV PGDATA=/var/lib/postgresql/data\nVOLUME /var/lib/postgresql/data\nEXPOSE 5432\n" +
		"STOPSIGNAL SIGINT\nENTRYPOINT [\"/apps\", \"postgres\"]\n"},
	{redisImage, "FROM e2e-debian:2\nVOLUME /data\nEXPOSE 6379\nENTRYPOINT [\"/apps\", \"redis\"]\n"},
	{nginxImage, "FROM e2e-debian:2\nEXPOSE 80\nSTOPSIGNAL SIGQUIT\nCMD [\"nginx\", \"-g\", \"daemon off;\"]\n"},
	{shopImage, "FROM e2e-debian:2\nEXPOSE 8080\nENTRYPOINT [\"/apps\", \"shop\"]\n"},
}

var makeTreeImage = sync.OnceValue(func() error { return importImage(treeImage, "apps", os.Getenv("DENTROPY_E2E_APPS")) })

// makeAppImages makes what is not there: a test may have removed them, to get them back
// from an archive.
func makeAppImages(c *client.Client) error {
	missing := false
	for _, d := range dockerfiles {
		_, err := c.ImageInspect(context.Background(), d.ref)
		missing = missing || err != nil
	}
	if !missing {
		return nil
	}
	if err := importDebian(c); err != nil {
		return err
	}
	apps, err := os.ReadFile(os.Getenv("DENTROPY_E2E_APPS"))
	if err != nil {
		return err
	}
	for _, d := range dockerfiles {
		if err := buildImage(c, d.ref, d.text, apps); err != nil {
			return fmt.Errorf("build %s: %w", d.ref, err)
		}
	}
	return nil
}

func importDebian(c *client.Client) error {
	if _, err := c.ImageInspect(context.Background(), "e2e-debian:1"); err == nil {
		return nil
	}
	debian, err := os.Open(os.Getenv("DENTROPY_DEBIAN"))
	if err != nil {
		return err
	}
	defer debian.Close()
	answer, err := c.ImageImport(context.Background(), image.ImportSource{Source: debian, SourceName: "-"}, "e2e-debian:1", image.ImportOptions{})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return err
	}
	return answer.Close()
}

func buildImage(c *client.Client, ref, dockerfile string, apps []byte) error {
	var buildContext bytes.Buffer
	w := tar.NewWriter(&buildContext)
	for name, text := range map[string][]byte{"Dockerfile": []byte(dockerfile), "apps": apps} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	answer, err := c.ImageBuild(context.Background(), &buildContext, build.ImageBuildOptions{Tags: []string{ref}, Version: build.BuilderV1, ForceRemove: true})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for messages := json.NewDecoder(answer.Body); ; {
		var m struct{ Error string }
		if err := messages.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
	}
}

// realApps sees to the images with PostgreSQL, Redis, nginx and SQLite.
func (e *engine) realApps() {
	e.t.Helper()
	tool(e.t, "DENTROPY_DEBIAN")
	e.treeApp()
	e.must("make the images of the applications", makeAppImages(e.c))
}

// treeApp sees to the image that makes and lists trees.
func (e *engine) treeApp() {
	e.t.Helper()
	tool(e.t, "DENTROPY_E2E_APPS")
	e.must("make the image of apps", makeTreeImage())
}
