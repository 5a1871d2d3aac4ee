package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/backoff"
)

// The exit codes of a guard. Only after the first is it not started again.
const (
	guardOver  = 0
	guardUsage = 2
	guardCut   = 75 // it was ended from outside: the engine starts it again with itself
)

const (
	// guardGrace is between the end of what a guard hears and what it does: a program that
	// is there after all removes it in this time.
	guardGrace = 3 * time.Second
	// guardRestartGrace is the same where the engine was restarted, which ends what a guard
	// hears as well.
	guardRestartGrace = 20 * time.Second
	// guardPatience is the longest wait between two attempts to bring an app back.
	guardPatience = 30 * time.Second
)

// sentry is a guard at work.
type sentry struct {
	p    *Platform
	spec guardSpec
	// marker is there once this guard has begun: one that finds it was started again.
	// Each guard of an operation has its own, since one takes the place of another that
	// was lost.
	marker         string
	grace, restart time.Duration
	stdout, stderr io.Writer
}

// GuardMain is the guard in its container: args hold what it guards, as JSON. It waits
// for a word on stdin. Where stdin ends without it, the program that started the guard is
// gone, and the guard brings the app back. It returns the exit code of the process.
func GuardMain(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var spec guardSpec
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &spec) != nil || !markerName.MatchString(spec.Op) || !markerName.MatchString(spec.Guard) {
		fmt.Fprintln(stderr, "usage: guard JSON")
		return guardUsage
	}
	p, err := New(Options{Endpoint: "unix://" + spec.Socket})
	if err != nil {
		fmt.Fprintln(stderr, err)
		return guardUsage
	}
	s := &sentry{
		p: p, spec: spec, marker: filepath.Join(transitDir, spec.Op+".guard", spec.Guard),
		grace: guardGrace, restart: guardRestartGrace, stdout: stdout, stderr: stderr,
	}
	return s.main(ctx, stdin)
}

// markerName is what may be in the path of a marker.
var markerName = regexp.MustCompile(`^[0-9a-f]+$`)

func (s *sentry) main(ctx context.Context, stdin io.Reader) int {
	_, err := os.Lstat(s.marker)
	again := err == nil
	if err := errors.Join(os.MkdirAll(filepath.Dir(s.marker), 0o700), os.WriteFile(s.marker, nil, 0o600)); err != nil {
		fmt.Fprintf(s.stderr, "guard: note that it has begun: %v\n", err)
		return guardCut
	}
	_, err = s.p.api(ctx)
	var left time.Time // since when nobody is there
	switch {
	case again:
		left = time.Now()
		err = s.waitEngine(ctx, s.restart)
	case err != nil:
		fmt.Fprintf(s.stderr, "guard: %v\n", err)
		_ = s.unmark() // nobody relies on it yet
		return guardCut
	default:
		s.say(guardSays{Ready: true})
		var well bool
		well, left, err = s.listen(ctx, stdin)
		if well {
			_ = s.unmark() // cleared with the rest of the operation otherwise
			s.say(guardSays{Done: true})
			return guardOver
		}
	}
	if err != nil {
		return guardCut
	}
	return s.act(ctx, left)
}

// say says a line to whoever has started the guard.
func (s *sentry) say(line guardSays) {
	if text, err := json.Marshal(line); err == nil {
		fmt.Fprintf(s.stdout, "%s\n", text)
	}
}

// unmark removes the marker, and its folder where no other guard has one.
func (s *sentry) unmark() error {
	if err := os.Remove(s.marker); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = os.Remove(filepath.Dir(s.marker))
	return nil
}

// listen waits for the word, or the end of stdin without it, and then for as long as
// somebody may need who is there after all.
func (s *sentry) listen(ctx context.Context, stdin io.Reader) (well bool, left time.Time, err error) {
	heard := make(chan bool, 1)
	go func() { // it ends with stdin, or the process
		line, _ := bufio.NewReader(io.LimitReader(stdin, 64)).ReadString('\n')
		heard <- strings.TrimSpace(line) == guardDone
	}()
	select {
	case well = <-heard:
	case <-ctx.Done():
		return false, left, ctx.Err()
	}
	if well {
		return true, left, nil
	}
	left = time.Now()
	s.p.stale()
	if _, err := s.p.api(ctx); err != nil {
		return false, left, s.waitEngine(ctx, s.restart)
	}
	return false, left, pause(ctx, s.grace)
}

// waitEngine waits for the engine, however long it takes, and then for grace.
func (s *sentry) waitEngine(ctx context.Context, grace time.Duration) error {
	wait := backoff.Backoff{Max: retryMax}
	for {
		s.p.stale()
		if _, err := s.p.api(ctx); err == nil {
			return pause(ctx, grace)
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// act brings the app back, and does not give up.
func (s *sentry) act(ctx context.Context, left time.Time) int {
	wait := backoff.Backoff{Min: time.Second, Max: guardPatience}
	for {
		// Whoever would want what a helper reads is gone.
		err := s.p.removeOurs(ctx, s.spec.Op, roleHelper)
		back := s.bringBack(ctx, left)
		if back == nil {
			if err = s.unmark(); err == nil {
				return guardOver
			}
		}
		fmt.Fprintf(s.stderr, "guard: %v\n", errors.Join(err, back))
		if wait.Wait(ctx) != nil {
			return guardCut
		}
	}
}

// bringBack brings the app back, once.
func (s *sentry) bringBack(ctx context.Context, left time.Time) error {
	report := func(pr backup.Progress) {
		if pr.Warning != "" {
			fmt.Fprintln(s.stderr, "guard: "+pr.Warning)
		}
	}
	if len(s.spec.Old) == 0 {
		_, err := s.p.bringBackAfter(ctx, left, s.spec.Halt, s.spec.Health, report)
		return err
	}
	c := &changeover{
		p: s.p, op: s.spec.Op, why: s.spec.Why, left: left, touched: true, opts: backup.ApplyOptions{Report: report},
		rec: changeRecord{Old: s.spec.Old, Health: s.spec.Health},
	}
	return c.oldBack(ctx)
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
