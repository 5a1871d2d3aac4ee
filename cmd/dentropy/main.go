// Command dentropy is Caddy with everything that Dentropy Cloud adds: its modules,
// and the verbs `dentropy up`, `dentropy routes` and so on at the top level.
package main

import (
	"os"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/dentropy/dentropycloud/caddymodule"
	dentropycmd "github.com/dentropy/dentropycloud/cmd"
)

func main() { os.Exit(dentropycmd.Main()) }
