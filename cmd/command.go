package dentropycmd

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

const modulePath = "github.com/dentropy/dentropycloud"

const familyHelp = `
The verbs of Dentropy Cloud: 'up' starts it, the others ask a running one. The verbs
about backups do their work in their own process where none runs.

A running one is found by --address, else DENTROPY_ADMIN, else the socket
admin.sock in the data folder, else Caddy's default address localhost:2019.
`

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "dentropy",
		Usage: "<verb>",
		Short: "Serves containers as https sites, backs them up and restores them: up, routes, why, backup, restore …",
		Long:  familyHelp,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Hidden = standalone // the verbs stand at the top level there
			cmd.SilenceErrors = true
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(c *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usageError(c, fmt.Errorf("there is no verb %q", args[0]))
				}
				return c.Help()
			}
			for _, v := range append(verbs(), verb{"reload", setUpReload}) {
				sub := &cobra.Command{Use: v.name}
				v.setUp(sub)
				finish(sub)
				cmd.AddCommand(sub)
			}
		},
	})
}

// standalone is set in the binary `dentropy`.
var standalone bool

// verb is a command and what fills it in.
type verb struct {
	name  string
	setUp func(*cobra.Command)
}

// verbs are the commands that Caddy does not have.
func verbs() []verb {
	return []verb{
		{"up", setUpUp}, {"routes", setUpRoutes}, {"why", setUpWhy},
		{"certs", setUpCerts}, {"sources", setUpSources}, {"events", setUpEvents},
		{"apps", setUpApps}, {"backup", setUpBackup}, {"restore", setUpRestore},
		{"archive", setUpArchive}, {"jobs", setUpJobs},
		{"demo-site", setUpDemoSite}, {"helper", setUpHelper},
	}
}

// finish gives a command our way to report errors: one line on standard error.
func finish(cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.DisableFlagsInUseLine = true
	cmd.Long = strings.TrimSpace(cmd.Long)
	// Caddy's template ends with a pointer to its own manual.
	cmd.SetHelpTemplate("{{.Long}}\n\n{{.UsageString}}")
	cmd.SetFlagErrorFunc(usageError)
	run := cmd.RunE
	cmd.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		if err != nil && !errors.Is(err, errQuiet) {
			say(c, err)
		}
		return err
	}
}

// errQuiet makes the exit status 1 where everything has been said.
var errQuiet = errors.New("exit status 1")

func say(c *cobra.Command, err error) {
	text := err.Error()
	if hint := backup.HintOf(err); hint != "" && !strings.Contains(text, hint) {
		text += ": " + hint
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	_, _ = fmt.Fprintf(c.ErrOrStderr(), "dentropy: %s\n", clean(text))
}

func usageError(c *cobra.Command, err error) error {
	err = fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())
	say(c, err)
	return err
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(c, fmt.Errorf("%q is one word too many", args[0]))
	}
	return nil
}

func oneHost(c *cobra.Command, args []string) error {
	if len(args) != 1 || strings.TrimSpace(args[0]) == "" {
		return usageError(c, errors.New("give one host name"))
	}
	return nil
}

func atMostOneHost(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError(c, errors.New("give one host name, or none for all"))
	}
	return nil
}

// verbPrefix is what stands before a verb on the command line.
func verbPrefix() string {
	if standalone {
		return "dentropy"
	}
	return "caddy dentropy"
}

// versionText names program and version as the Go tools recorded them.
func versionText() string {
	v := "dentropy " + Version()
	if simple, _ := caddy.Version(); simple != "" && !strings.HasPrefix(simple, "dentropy ") {
		v += " (Caddy " + simple + ")"
	}
	return v
}

// Version is this module's version as the Go tools recorded it, in our binary and in any
// other that it is built into.
func Version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown version)"
	}
	m := &bi.Main
	for _, dep := range bi.Deps { // built by xcaddy, or into another program
		if dep.Path == modulePath {
			m = dep
		}
	}
	if m.Replace != nil && m.Replace.Version != "" {
		m = m.Replace
	}
	if m.Version == "" || m.Version == "(devel)" {
		return "(devel)"
	}
	return m.Version
}

const programHelp = `
Dentropy Cloud serves containers as https sites. It is Caddy with everything
that Caddy can do, and it works without a configuration file:

	$ dentropy up                       serve what the local Docker runs
	$ docker run -d --label dentropy.host=hello.localhost --label dentropy.port=80 nginx

Ask a running one:

	$ dentropy routes                   what is served, by which container
	$ dentropy why hello.localhost      why a name works, or why not
	$ dentropy certs                    certificates: state, last error, next try
	$ dentropy sources                  the Docker engines that are watched
	$ dentropy events                   follow what happens
	$ dentropy reload                   read the configuration again

Put a whole application into one file, and make it run again, here or elsewhere:

	$ dentropy apps                     what can be backed up, and when it last was
	$ dentropy backup blog              containers, images, volumes, settings: one file
	$ dentropy restore FILE             asks where to run, store and route it
	$ dentropy archive ls FILE          look into a file: ls, show, cat, extract, verify
	$ dentropy jobs                     backups and restores that run, or ran last

All of Caddy's commands are here too: 'dentropy run --config Caddyfile' is plain
Caddy with our modules. 'dentropy COMMAND --help' says more about each.

EXIT STATUS

	0  it worked
	1  it did not: one line on standard error says why and what to do
`

// printHelp is the help of the whole program: our verbs first, then Caddy's.
func printHelp(w io.Writer) error {
	var b strings.Builder
	b.WriteString(strings.TrimPrefix(programHelp, "\n"))
	b.WriteString("\nCADDY'S COMMANDS\n\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	own := []string{"dentropy", "reload"}
	for _, v := range verbs() {
		own = append(own, v.name)
	}
	all := caddycmd.Commands()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(own, name) {
			_, _ = fmt.Fprintf(tw, "\t%s\t%s\n", name, all[name].Short) // into memory
		}
	}
	_ = tw.Flush()
	_, err := io.WriteString(w, b.String())
	return err
}

// Main is the main function of the binary `dentropy`. It gives the exit status,
// where Caddy does not end the process itself.
func Main() int {
	standalone = true
	caddy.CustomBinaryName = "dentropy"
	// `dentropy version` then prints ours, and Caddy's behind it.
	caddy.CustomVersion = "dentropy " + Version() + ", Caddy"
	args := os.Args[1:]
	switch {
	case len(args) == 0, len(args) == 1 && slices.Contains([]string{"help", "--help", "-h"}, args[0]):
		if printHelp(os.Stdout) != nil {
			return caddy.ExitCodeFailedStartup
		}
		return caddy.ExitCodeSuccess
	case args[0] == "reload", len(args) == 2 && args[0] == "help" && args[1] == "reload":
		// Caddy has a command of this name already, which ours extends.
		root := &cobra.Command{Use: "dentropy"}
		reload := &cobra.Command{Use: "reload"}
		setUpReload(reload)
		finish(reload)
		root.AddCommand(reload)
		if root.Execute() != nil {
			return caddy.ExitCodeFailedStartup
		}
		return caddy.ExitCodeSuccess
	}
	for _, v := range verbs() {
		short := new(cobra.Command)
		v.setUp(short)
		caddycmd.RegisterCommand(caddycmd.Command{
			Name: v.name, Short: short.Short,
			CobraFunc: func(cmd *cobra.Command) {
				v.setUp(cmd)
				finish(cmd)
			},
		})
	}
	caddycmd.Main()
	return caddy.ExitCodeSuccess
}
