package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// Writable reports whether the engine lets us do more than read: an error says that it
// does not, as behind a read-only socket proxy, or that it cannot be asked. It changes
// nothing: it asks for a container to go on that there is not.
func (p *Platform) Writable(ctx context.Context) error {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	nobody := "dentropy-" + hex.EncodeToString(b[:])
	err := p.call(ctx, "try whether it can be written to", func(ctx context.Context, conn *dockerengine.Conn) error {
		return conn.ContainerUnpause(ctx, nobody)
	})
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case errdefs.IsPermissionDenied(err), strings.Contains(err.Error(), "Method Not Allowed"), strings.Contains(err.Error(), "405"):
		return &backup.Problem{
			Message: fmt.Sprintf("the Docker engine at %s is read-only for this program: its apps are listed, and cannot be backed up or restored", p.ep),
			Hint:    "let the socket proxy allow " + proxied, Object: p.opts.Name, Err: err,
		}
	}
	return err
}
