package dentropycmd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dentropy/dentropycloud/backup"
)

// worker does what the verbs about backups ask for: a running dentropy (remote), or
// this process (local). Both use the same locks and journals.
//
// A ctx that ends while work is under way stops it; the method returns when the app
// runs again.
type worker interface {
	apps(ctx context.Context) (appsAnswer, error)
	app(ctx context.Context, name, platform string, opts backup.CaptureOptions) (*backup.App, error)
	// lastRuns may be empty where nothing is known.
	lastRuns(ctx context.Context) ([]backup.LastRun, error)
	// estimate does all of a backup that touches nothing.
	estimate(ctx context.Context, req backup.BackupRequest) (*backup.BackupResult, error)
	// backup makes an archive. confirm, if not nil, is asked before anything stops.
	backup(ctx context.Context, req backup.BackupRequest, to output, confirm confirmer, show func(backup.JobView)) (*backup.BackupResult, error)

	plan(ctx context.Context, in *archiveInput, a backup.Answers) (*backup.Plan, error)
	restore(ctx context.Context, in *archiveInput, a backup.Answers, show func(backup.JobView)) (*backup.RestoreResult, error)
	undos(ctx context.Context) ([]backup.Undo, error)
	undo(ctx context.Context, id, app string, show func(backup.JobView)) error

	// open opens an archive of a store. Where it can be read at any place, it is a
	// backup.Object.
	open(ctx context.Context, store, name string) (io.ReadCloser, error)
	archives(ctx context.Context, store string) (map[string][]backup.Entity, []string, error)
	key(ctx context.Context) (keyAnswer, error)
	// makeKey makes the key of whoever does the work, where it has none.
	makeKey(ctx context.Context) (keyAnswer, error)
	close() error
}

// confirmer is asked with what is expected; an error ends the backup before anything
// has stopped.
type confirmer func(*backup.App, *backup.Estimate) error

// output is where an archive goes. The zero value is the request's store.
type output struct {
	w      io.Writer // standard output
	folder string    // a folder of this machine
}

type appsAnswer struct {
	Apps     []backup.AppInfo `json:"apps"`
	Problems []problemLine    `json:"problems"`
}

// problemLine is something of a list that could not be asked.
type problemLine struct {
	Platform string `json:"platform,omitempty"`
	Store    string `json:"store,omitempty"`
	Error    string `json:"error"`
	Hint     string `json:"hint,omitempty"`
}

func (l problemLine) String() string {
	return hinted(l.Platform+l.Store+": "+l.Error, l.Hint)
}

type keyAnswer struct {
	backup.KeyStatus
	Configured []string `json:"configured"`
	Created    bool     `json:"created"`
}

// dockerSetting is the setting of `up` that says which engines there are.
func dockerSetting() []setting {
	for _, s := range upSettings {
		if s.name == "docker" {
			s.usage = "Docker engine where no dentropy runs; may be repeated (default: $DOCKER_HOST, else the local socket)"
			return []setting{s}
		}
	}
	return nil
}

func workerFlags(fs *pflag.FlagSet) {
	addressFlags(fs)
	addFlags(fs, dockerSetting())
	fs.Bool("local", false, "do the work in this process, even where a dentropy runs")
}

// findWorker finds who does the work. folder is the one of -o, "" for none.
func findWorker(cmd *cobra.Command, folder string) (worker, error) {
	here, _ := cmd.Flags().GetBool("local")
	address, _ := cmd.Flags().GetString("address")
	if here && address != "" {
		return nil, errors.New("--local and --address exclude each other: leave one of them out")
	}
	if !here {
		c, err := findRunning(cmd.Context(), cmd.Flags(), os.Getenv)
		if err != nil {
			return nil, err
		}
		if c != nil {
			if cmd.Flags().Changed("docker") {
				return nil, fmt.Errorf("--docker is for work without a running dentropy, and one runs at %s: it has its own engines (see --engine), or add --local", showAdmin(c.addr.String()))
			}
			return &remote{c: c, talk: cmd.ErrOrStderr()}, nil
		}
	}
	return newLocal(cmd, folder)
}

// findRunning gives the client of a running dentropy, nil where none runs. One that was
// named must be there; what answers on Caddy's default address counts only if it has
// our API.
func findRunning(ctx context.Context, flags *pflag.FlagSet, getenv func(string) string) (*client, error) {
	address, _ := flags.GetString("address")
	named := address != "" || getenv("DENTROPY_ADMIN") != ""
	c, err := newClient(flags, getenv)
	if err != nil {
		if errors.Is(err, errNoSocket) {
			return nil, nil
		}
		return nil, err
	}
	resp, err := c.do(ctx, http.MethodGet, "/dentropy/backup/key")
	if err == nil {
		return c, resp.Body.Close()
	}
	if e, ok := errors.AsType[*apiError](err); ok && e.Message != "" && (named || c.addr.IsUnixNetwork() || e.Status == http.StatusServiceUnavailable) {
		return nil, fmt.Errorf("the dentropy that runs at %s does no backups: %w (--local works without it)", showAdmin(c.addr.String()), err)
	}
	if named || ctx.Err() != nil || errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	// A socket that a dead process left behind, or another program on Caddy's port.
	return nil, nil
}

// patience turns signals into an orderly end: the first stops the work, which then
// brings its app back; the second says what is waited for; the third ends the
// process, as a signal does by itself.
func patience(ctx context.Context, talk io.Writer, waiting func() string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A reader of the archive that went away shows as an error of the next write: the work
	// then ends in order, and says why.
	signal.Ignore(syscall.SIGPIPE)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-signals:
		case <-done:
			return
		}
		_, _ = fmt.Fprintln(talk, "\ndentropy: stopping; this waits until what ran before runs again (Ctrl-C once more says what it waits for)")
		cancel(errCancelled)
		select {
		case <-signals:
		case <-done:
			return
		}
		signal.Stop(signals)
		signal.Reset(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		_, _ = fmt.Fprintf(talk, "\ndentropy: waiting for: %s\ndentropy: Ctrl-C once more ends this process at once; `dentropy up`, or the next backup or restore, then brings back what was left stopped\n", waiting())
	})
	return ctx, func() {
		signal.Stop(signals)
		signal.Reset(syscall.SIGPIPE)
		close(done)
		wg.Wait()
		cancel(nil)
	}
}

// newJobID makes an id for a job, so that it can be followed while its request is on
// its way.
func newJobID() string {
	var b [6]byte // 12 hex digits, as the API wants them
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
