package caddymodule

// What is compiled in: one line for each source, dialect, and what comes later
// (IP sources, DNS targets, stores, platforms). The command line is part of the
// module, so that an xcaddy build has it as `caddy dentropy …`.
import (
	_ "github.com/caddy-dns/cloudflare" // DNS-01 challenges
	_ "github.com/dentropy/dentropycloud/backup/docker"
	_ "github.com/dentropy/dentropycloud/backup/local"
	_ "github.com/dentropy/dentropycloud/cmd"
	_ "github.com/dentropy/dentropycloud/discovery/dialect/native"
	_ "github.com/dentropy/dentropycloud/discovery/docker"
)
