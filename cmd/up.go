package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/internal/upinstance"
)

// gcPercent lets the heap grow further between two collections than Go would.
// What a proxy keeps is the routes, which hardly change, so that collections find
// little. At 10,000 routes, beside a static Caddyfile of one site, the CPU of a
// request is 1.09 times that with Go's 100, 1.02 with 150 and 0.96 with 200, and a
// route takes 8, 12 and 17 KB of resident memory (test/bench, sections request
// and start). The memory limit still holds.
const gcPercent = 150

const upHelp = `
Watches Docker, and serves every container that asks for it by a label as an
https site, at once and with a certificate:

	$ dentropy up
	$ docker run -d --label dentropy.host=hello.localhost --label dentropy.port=80 nginx

No configuration is needed. Names such as hello.localhost, *.lan and *.internal
get a certificate of the local authority, whose root certificate is in the data
folder (it is put into no trust store); public names get one from Let's Encrypt,
for which ports 80 and 443 must be reachable from the internet.

Every flag has a twin in the environment, named in brackets; the flag wins, and
lists are written with commas. --config adds static sites and global options from
a Caddyfile; flags and environment win over it, and its sites win over labels.

The program runs in the foreground until SIGTERM or Ctrl-C, and then lets requests
finish for 10 seconds. SIGUSR1 or 'dentropy reload' read the configuration again
without closing a socket.

EXIT STATUS

	0  stopped on request
	1  could not start: the reason is on standard error
	2  a second Ctrl-C, or SIGQUIT, ended it at once
	3  could not stop cleanly
`

func setUpUp(cmd *cobra.Command) {
	cmd.Use = "up [flags]"
	cmd.Short = "Serves containers as https sites, without a configuration file"
	cmd.Long = upHelp
	cmd.Args = noArgs
	addFlags(cmd.Flags(), upSettings)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := parseOptions(cmd.Flags(), os.Getenv)
		if err != nil {
			return err
		}
		caddy.TrapSignals() // from here on, a signal ends the process in good order
		in, err := startUp(cmd.Context(), o, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		in.watchSignals()
		<-cmd.Context().Done() // never, in the program: Caddy's signal handler ends it
		return in.stop()
	}
}

// instance is a running `dentropy up`.
type instance struct {
	flags   Options // without what the file says
	sockets *sockets
	talk    io.Writer
	undo    []func()
	// signals is nil until watchSignals.
	signals chan os.Signal
	wg      sync.WaitGroup
}

// startUp checks what can be checked, so that each thing that usually goes wrong
// gets one line that names the setting, and starts Caddy.
func startUp(ctx context.Context, o Options, talk io.Writer) (*instance, error) {
	in := &instance{flags: o, talk: talk}
	ok := false
	defer func() {
		if !ok {
			in.cleanup()
		}
	}()
	file, o, err := in.read()
	if err != nil {
		return nil, err
	}
	release, err := openDataDir(o)
	if err != nil {
		return nil, err
	}
	in.undo = append(in.undo, release)
	if adminOn(file.cfg) {
		if err := adminInUse(ctx, o.Admin); err != nil {
			return nil, adminError(o, err)
		}
	}
	if in.sockets, err = openSockets(ctx, o); err != nil {
		return nil, err
	}
	cfg, err := buildConfig(o, file.cfg, in.sockets.listeners)
	if err != nil {
		in.sockets.close()
		return nil, err
	}
	// The memory limit of the container, if there is one; Go heeds the CPU limit.
	// Without a limit, or on a system that has none, nothing is set.
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup))
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if err := caddy.Load(cfg, true); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	in.undo = append(in.undo, upinstance.Register(in.reload))
	caddy.SetLastConfig("dentropy up", "dentropy", func(string, string) error {
		return upinstance.Reload(context.WithoutCancel(ctx))
	})
	in.undo = append(in.undo, func() { caddy.SetLastConfig("", "", nil) })
	banner(talk, o, file, in.sockets)
	ok = true
	return in, nil
}

// read reads the file, and completes the options with it.
func (in *instance) read() (configFile, Options, error) {
	file, o, err := readConfig(in.flags)
	if err != nil {
		return file, o, err
	}
	for _, w := range file.warnings {
		_, _ = fmt.Fprintln(in.talk, "dentropy:", clean(w))
	}
	return file, o, nil
}

// reload reads the file again and loads the result. The sockets stay open.
func (in *instance) reload(context.Context) error {
	file, o, err := in.read()
	if err != nil {
		return err
	}
	if err := in.sockets.same(o); err != nil {
		return err
	}
	cfg, err := buildConfig(o, file.cfg, in.sockets.listeners)
	if err != nil {
		return err
	}
	return caddy.Load(cfg, true)
}

// watchSignals lets go of the sockets at the moment when Caddy begins to end the
// process.
func (in *instance) watchSignals() {
	in.signals = make(chan os.Signal, 1)
	signal.Notify(in.signals, syscall.SIGTERM, os.Interrupt)
	in.wg.Go(func() {
		if _, open := <-in.signals; open {
			in.sockets.release()
		}
	})
}

// stop ends Caddy without ending the process.
func (in *instance) stop() error {
	if in.signals != nil {
		signal.Stop(in.signals)
		close(in.signals)
		in.wg.Wait()
	}
	in.sockets.release()
	err := caddy.Stop()
	in.cleanup()
	return err
}

func (in *instance) cleanup() {
	for i := len(in.undo) - 1; i >= 0; i-- {
		in.undo[i]()
	}
	in.undo = nil
}

// adminOn reports whether the file leaves the admin API on.
func adminOn(cfg obj) bool {
	admin, _ := cfg["admin"].(obj)
	return admin["disabled"] != true
}

func adminError(o Options, err error) error {
	how := "use --admin"
	if from := o.given["admin"]; from != "" {
		how = "change " + from
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("admin address %s is taken by another program: stop it or %s", showAdmin(o.Admin), how)
	}
	return fmt.Errorf("admin address %s cannot be used: %w: %s", showAdmin(o.Admin), err, how)
}
