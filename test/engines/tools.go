//go:build tools

// Package engines pins a modern Docker Engine, built from source by
// scripts/modern-engine, so that the Docker source is tested against both ends of
// the API range: Debian's engine speaks 1.41, this one 1.40 to 1.54.
package engines

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/moby/moby/v2/cmd/dockerd"
)
