//go:build tools

// Package compose pins Docker Compose, which scripts/test-tools builds from source: an
// unchanged restore must look to it as if nothing had happened.
package compose

import _ "github.com/docker/compose/v2/cmd"
