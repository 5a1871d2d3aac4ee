package dentropycmd

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

const reloadHelp = `
Makes a running 'dentropy up' read its configuration again: the file that it was
given with --config, if there is one, together with the flags that it was started
with. No socket is closed and no request is lost; if the new configuration is not
accepted, the old one stays in force.

With --config, or where no 'dentropy up' is found, this is Caddy's own reload: it
sends the given file (or the Caddyfile of the current folder) to a running Caddy.

EXIT STATUS

	0  the new configuration is in force
	1  it is not: the reason is on standard error
`

// setUpReload extends Caddy's command of the same name.
func setUpReload(cmd *cobra.Command) {
	stock := caddycmd.Commands()["reload"]
	stock.CobraFunc(cmd) // its flags, and how to run it
	runStock := cmd.RunE
	cmd.Use = "reload [flags]"
	cmd.Short = "Reads the configuration again, without losing a connection"
	cmd.Long = reloadHelp
	cmd.Args = noArgs
	cmd.Flags().Lookup("config").Usage = "Configuration file to send, instead of reading the old one again"
	cmd.Flags().Lookup("address").Usage = "Admin address of the running one [DENTROPY_ADMIN]"
	cmd.Flags().String("data-dir", "", "Data folder of the running one, where its socket is [DENTROPY_DATA_DIR]")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("config") {
			return stockReload(runStock, cmd, args)
		}
		c, err := newClient(cmd.Flags(), os.Getenv)
		if err != nil {
			return err
		}
		resp, err := c.do(cmd.Context(), http.MethodPost, "/dentropy/reload")
		if err == nil {
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), "dentropy: the configuration was read again and is in force")
			return errors.Join(err, resp.Body.Close())
		}
		e, answered := errors.AsType[*apiError](err)
		if answered && e.Status != http.StatusNotFound && e.Status != http.StatusConflict {
			return err // it is an `up`, and what it read is wrong
		}
		if _, statErr := os.Stat("Caddyfile"); statErr != nil && !answered {
			return err // nothing to send, and nobody to send it to
		}
		return stockReload(runStock, cmd, args)
	}
}

// stockReload runs Caddy's reload, which has its own way to print errors.
func stockReload(run func(*cobra.Command, []string) error, cmd *cobra.Command, args []string) error {
	if err := run(cmd, args); err != nil {
		return errQuiet
	}
	return nil
}
