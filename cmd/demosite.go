package dentropycmd

import (
	"os/signal"
	"strconv"
	"syscall"

	"github.com/dentropy/dentropycloud/internal/demosite"
	"github.com/spf13/cobra"
)

// setUpDemoSite is the site in the demo's containers, which are made from this
// same binary: nothing has to be pulled to see something.
func setUpDemoSite(cmd *cobra.Command) {
	cmd.Use = "demo-site [--port <port>] [--name <name>]"
	cmd.Short = "Serves a small page that tells how it was reached"
	cmd.Hidden = true
	cmd.Args = noArgs
	port := cmd.Flags().Uint16("port", 8080, "port to listen on")
	name := cmd.Flags().String("name", "demo", "what the site calls itself")
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return demosite.Serve(ctx, ":"+strconv.Itoa(int(*port)), *name)
	}
}
