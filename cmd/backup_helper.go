package dentropycmd

import (
	"os/signal"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup/docker"
	"github.com/dentropy/dentropycloud/backup/volume"
)

// setUpHelper is what a container made of this binary runs beside an app's data: it
// reads and writes volumes, or guards an app whose backup is under way.
func setUpHelper(cmd *cobra.Command) {
	cmd.Use = "helper <task> <json>"
	cmd.Short = "Reads and writes volumes, in a container made for it"
	cmd.Long = "\nDoes the work beside the data, in containers that 'backup' and 'restore' make of this\nprogram. It is of no use elsewhere.\n"
	cmd.Hidden = true
	cmd.DisableFlagParsing = true // the JSON is nobody's flag
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		stdin, stdout, stderr := cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
		status := 0
		if len(args) > 0 && args[0] == "guard" {
			status = docker.GuardMain(ctx, args[1:], stdin, stdout, stderr)
		} else {
			status = volume.Main(ctx, args, stdin, stdout, stderr)
		}
		switch status {
		case 0:
			return nil
		case 1:
			return errQuiet
		}
		// Caddy's way to an exit status of one's own.
		return quietExit{caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return status, nil })(cmd, args)}
	}
}

// quietExit is an exit status where everything has been said.
type quietExit struct{ error }

func (quietExit) Is(target error) bool { return target == errQuiet }

func (e quietExit) Unwrap() error { return e.error }
